package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Registry is a registry as a remote. It reads what has no repository of its own in
// the repository where it was named first in this run; it writes tags, and what
// repositories hold by In alone. It is safe for concurrent use.
type Registry struct {
	o         Options
	client    *auth.Client
	transport *http.Transport
	direct    http.RoundTripper // by the transport, watched
	hints     *hints
	shelf     shelf
	known     *recent[knownKey, any] // what repositories have learned from documents: see fact

	noRanges atomic.Bool // blobs are not given in parts: it was tried

	scheme sync.Mutex // held while it is found out
	base   string     // "https://host" once it is known

	repositories *recent[string, *Repository]
	homes        *recent[image.Digest, *Repository] // where what was named or read in this run lies

	mu     sync.Mutex
	placed map[image.Digest]*Repository // blobs that this run has put
}

var (
	_ remote.Remote       = (*Registry)(nil)
	_ remote.Repositories = (*Registry)(nil)
	_ remote.Holder       = (*Registry)(nil)
	_ remote.Untagger     = (*Registry)(nil)
	_ remote.Referred     = (*Registry)(nil)
	_ remote.Catalogued   = (*Registry)(nil)
)

// Open returns a registry. It contacts nobody before something is asked of it.
func Open(o Options) (*Registry, error) {
	o = o.withDefaults()
	t, err := newTransport(o)
	if err != nil {
		return nil, err
	}
	r := &Registry{
		o: o, transport: t, direct: &watching{next: t, limit: o.Stall}, hints: newHints(o),
		known:        newRecent[knownKey, any](mostKnown),
		repositories: newRecent[string, *Repository](math.MaxInt), homes: newRecent[image.Digest, *Repository](math.MaxInt),
		placed: map[image.Digest]*Repository{},
	}
	tokens := auth.NewCache
	if o.Serving {
		r.repositories, r.homes = newRecent[string, *Repository](mostRepositories), newRecent[image.Digest, *Repository](mostHomes)
		tokens = func() auth.Cache { return &tokenCache{Cache: auth.NewCache()} }
	}
	r.client = &auth.Client{
		Client:     &http.Client{Transport: &retrying{next: r.direct, o: o}, CheckRedirect: redirect},
		Cache:      tokens(),
		Credential: r.credential(),
		ClientID:   "dogestry",
	}
	r.client.SetUserAgent("dogestry")
	if o.Dial != nil || o.Seal != nil { // it says where tokens may come from: names are not looked up beside it
		r.client.BlockedRealmPrefixes = []netip.Prefix{}
	}
	if o.PlainHTTP {
		r.base = "http://" + o.endpoint()
	} else if !o.Insecure && !o.loopback() {
		r.base = "https://" + o.endpoint()
	}
	return r, nil
}

// Close closes idle connections. The registry may be used again after it.
func (r *Registry) Close() error {
	r.transport.CloseIdleConnections()
	return nil
}

// redirect follows what registries say about where blobs lie. Credentials stay
// with whom they are for; auth.Client sees to that.
func redirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("it goes on redirecting")
	}
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("it redirects to what is not encrypted")
	}
	return nil
}

// credential asks for the credentials of the registry, once, and gives them to
// nobody else.
func (r *Registry) credential() auth.CredentialFunc {
	var mu sync.Mutex
	var known *auth.Credential
	return func(ctx context.Context, host string) (auth.Credential, error) {
		mu.Lock()
		defer mu.Unlock()
		if host != r.o.endpoint() || r.o.Credentials == nil {
			return auth.EmptyCredential, nil
		}
		if known == nil {
			c, err := r.o.Credentials(ctx, r.o.Host)
			if err != nil {
				return auth.EmptyCredential, err
			}
			known = &auth.Credential{Username: c.User, Password: c.Password, RefreshToken: c.IdentityToken, AccessToken: c.RegistryToken}
		}
		return *known, nil
	}
}

// url returns the registry's URL of a path. Whether it speaks TLS is found out by
// asking, where that may be otherwise.
func (r *Registry) url(ctx context.Context, path string) (string, error) {
	r.scheme.Lock()
	defer r.scheme.Unlock()
	if r.base == "" {
		if err := r.findScheme(ctx); err != nil {
			return "", err
		}
	}
	return r.base + path, nil
}

// findScheme tries TLS first, and then HTTP, as docker does on this machine and
// where it is told to.
func (r *Registry) findScheme(ctx context.Context) error {
	try := func(base string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v2/", nil)
		if err != nil {
			return err
		}
		resp, err := r.direct.RoundTrip(req) // not again, and whatever it answers
		if err == nil {
			drain(resp)
			r.base = base
		}
		return err
	}
	secure := try("https://" + r.o.endpoint())
	if secure == nil || ctx.Err() != nil {
		return orContext(ctx, secure)
	}
	if untrusted(secure) || alerted(secure) {
		r.base = "https://" + r.o.endpoint() // it is TLS: the failure is to be told
		return nil
	}
	if try("http://"+r.o.endpoint()) != nil {
		return orContext(ctx, secure)
	}
	return nil
}

func orContext(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// In returns the remote of one repository.
func (r *Registry) In(repository string) remote.Remote { return r.in(repository) }

func (r *Registry) in(repository string) *Repository {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.repositories.get(repository)
	if !ok {
		p = newRepository(r, repository)
		r.repositories.put(repository, p, 1)
	}
	return p
}

// settle notes where digests lie.
func (r *Registry) settle(in *Repository, ids ...image.Digest) {
	for _, id := range ids {
		if _, ok := r.homes.get(id); !ok {
			r.homes.put(id, in, 1)
		}
	}
}

// home returns the repository where a digest was named, nil where it was not.
func (r *Registry) home(id image.Digest) *Repository {
	in, _ := r.homes.get(id)
	return in
}

func (r *Registry) place(in *Repository, id image.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.placed[id] = in
}

func (r *Registry) placedIn(id image.Digest) *Repository {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.placed[id]
}

// Resolve returns the ID that ref names.
func (r *Registry) Resolve(ctx context.Context, ref image.Reference) (image.ID, error) {
	return r.in(ref.Repository).Resolve(ctx, ref)
}

// Document returns a document of what was resolved before.
func (r *Registry) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if in := r.home(id); in != nil {
		return in.Document(ctx, id)
	}
	return nil, r.missing("document", id, r.o.Name)
}

// Look looks for each digest in the repository where it was named.
func (r *Registry) Look(ctx context.Context, c remote.Closure, known map[image.Digest]remote.Layer) (*remote.Found, error) {
	parts := map[*Repository]*remote.Closure{}
	part := func(in *Repository) *remote.Closure {
		if parts[in] == nil {
			parts[in] = &remote.Closure{}
		}
		return parts[in]
	}
	all := newFound()
	for _, id := range c.Documents {
		if in := r.home(id); in != nil {
			part(in).Documents = append(part(in).Documents, id)
		}
	}
	for _, id := range c.Layers {
		if in := r.home(id); in != nil {
			part(in).Layers = append(part(in).Layers, id)
		} else {
			all.Torn[id] = r.missing("layer", id, r.o.Name)
		}
	}
	for in, c := range parts {
		found, err := in.Look(ctx, *c, known)
		if err != nil {
			return nil, err
		}
		all.add(found)
	}
	return &all.Found, ctx.Err()
}

// Open opens a layer that Look found.
func (r *Registry) Open(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if in := r.home(layer.Digest); in != nil {
		return in.Open(ctx, layer)
	}
	return nil, r.missing("layer", layer.Digest, r.o.Name)
}

// References yields the tags of a repository, or those of all, where the registry
// lists its repositories.
func (r *Registry) References(ctx context.Context, repository string) iter.Seq2[remote.Tag, error] {
	if repository != "" {
		return r.in(repository).References(ctx, repository)
	}
	return func(yield func(remote.Tag, error) bool) {
		for name, err := range r.Catalog(ctx) {
			if err != nil {
				yield(remote.Tag{}, err)
				return
			}
			for tag, err := range r.in(name).References(ctx, name) {
				if !yield(tag, err) || err != nil {
					return
				}
			}
		}
	}
}

// Referrers yields the manifests that refer to subject in a repository.
func (r *Registry) Referrers(ctx context.Context, repository string, subject image.Digest) iter.Seq2[image.Digest, error] {
	return r.in(repository).Referrers(ctx, repository, subject)
}

// Held returns the manifests of an index that are there.
func (r *Registry) Held(ctx context.Context, index image.Digest) ([]image.Digest, error) {
	if in := r.home(index); in != nil {
		return in.Held(ctx, index)
	}
	return nil, r.missing("document", index, r.o.Name)
}

// Tag lets ref name id, also where that lies in another repository: then what it
// needs is mounted, or copied.
func (r *Registry) Tag(ctx context.Context, ref image.Reference, id image.ID) error {
	return r.in(ref.Repository).Tag(ctx, ref, id)
}

// Untag removes the tag ref while it names id.
func (r *Registry) Untag(ctx context.Context, ref image.Reference, id image.ID) error {
	return r.in(ref.Repository).Untag(ctx, ref, id)
}

// errNowhere says that what is to be written has no repository.
var errNowhere = errors.New("images are written to repositories of a registry, not to the registry itself")

// Missing fails: see In.
func (r *Registry) Missing(context.Context, remote.Closure) (remote.Closure, []remote.Layer, error) {
	return remote.Closure{}, nil, errNowhere
}

// PutLayer fails: see In.
func (r *Registry) PutLayer(context.Context, image.Descriptor, io.Reader) (remote.Layer, error) {
	return remote.Layer{}, errNowhere
}

// PutDocument fails: see In.
func (r *Registry) PutDocument(context.Context, []byte) error { return errNowhere }

// Hold fails: see In.
func (r *Registry) Hold(context.Context, image.Digest, []image.Digest) error { return errNowhere }

// missing is the fault of something that an image needs.
func (r *Registry) missing(what string, id image.Digest, where string) error {
	text := fmt.Sprintf("%s %s is missing in %s", what, id, where)
	return fault.Wrap(fault.Damaged, &remote.Damage{Object: id.String(), Missing: true, Text: text}, "incomplete image").
		Advise("Push the image there again.")
}

type found struct{ remote.Found }

func newFound() *found {
	return &found{remote.Found{Documents: map[image.Digest]string{}, Layers: map[image.Digest]remote.Layer{}, Torn: map[image.Digest]error{}}}
}

func (f *found) add(more *remote.Found) {
	for id, version := range more.Documents {
		f.Documents[id] = version
	}
	for id, l := range more.Layers {
		f.Layers[id] = l
	}
	for id, err := range more.Torn {
		f.Torn[id] = err
	}
}
