package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	orasremote "oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Repository is one repository of a registry as a remote. It is safe for concurrent use.
type Repository struct {
	registry *Registry
	name     string // as images are called
	path     string // as the registry calls it
	bad      error  // no registry has such a name

	mu   sync.Mutex
	list *orasremote.Repository // nil until it is needed

	survey   sync.Once // of tags, for what their images have
	expected []string  // tags that are read first then
}

var (
	_ remote.Remote      = (*Repository)(nil)
	_ remote.Closures    = (*Repository)(nil)
	_ remote.Holder      = (*Repository)(nil)
	_ remote.Untagger    = (*Repository)(nil)
	_ remote.Memberships = (*Repository)(nil)
	_ remote.Expecting   = (*Repository)(nil)
	_ remote.Blobs       = (*Repository)(nil)
)

func newRepository(r *Registry, name string) *Repository {
	p := &Repository{registry: r, name: name}
	p.path, p.bad = r.o.pathOf(name)
	return p
}

// check is what every method begins with.
func (p *Repository) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return p.bad
}

func (p *Repository) failure(ctx context.Context, err error, format string, args ...any) error {
	return p.registry.failure(ctx, err, format, args...)
}

// where is the repository as the user knows it.
func (p *Repository) where() string { return fmt.Sprintf("%s in %s", p.name, p.registry.o.Name) }

func (p *Repository) missing(what string, id image.Digest) error {
	return p.registry.missing(what, id, p.where())
}

// manifestTypes are those that are asked for.
var manifestTypes = []string{
	ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
	"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
}

// request is one to a path of the repository. Its answer may have any status.
type request struct {
	method string
	path   string // below the repository: "/blobs/…"
	url    string // instead: where the registry said, as it is
	header http.Header
	body   []byte
	busy   *sync.WaitGroup // of those who still read body; nil where that does not matter
	stream io.ReadCloser   // instead: what is sent as it comes, once
	from   string          // path of another repository that it reads
	erase  bool            // it takes the right to delete
	once   bool            // it is not to be sent again when it fails
}

// do sends a request. The caller closes the answer's body.
func (p *Repository) do(ctx context.Context, q request) (*http.Response, error) {
	r := p.registry
	if q.url == "" {
		var err error
		if q.url, err = r.url(ctx, "/v2/"+p.path+q.path); err != nil {
			return nil, q.unsent(err)
		}
	}
	ctx = auth.AppendScopes(ctx, auth.ScopeRepository(p.path, p.actions(q)...))
	if q.from != "" {
		ctx = auth.AppendScopes(ctx, auth.ScopeRepository(q.from, auth.ActionPull))
	}
	if q.once {
		ctx = once(ctx)
	}
	var body io.Reader = http.NoBody
	switch {
	case q.stream != nil:
		body = q.stream
	case q.busy == nil && q.body != nil:
		body = bytes.NewReader(q.body)
	}
	req, err := http.NewRequestWithContext(ctx, q.method, q.url, body)
	if err != nil {
		return nil, q.unsent(err)
	}
	if q.busy != nil {
		req.GetBody = q.reader
		req.Body, _ = q.reader()
		req.ContentLength = int64(len(q.body))
	}
	for key, values := range q.header {
		req.Header[key] = values
	}
	return r.client.Do(req)
}

// reader returns a reader of the body that is counted as busy until it is closed: the
// transport may go on reading when an answer has come.
func (q request) reader() (io.ReadCloser, error) {
	q.busy.Add(1)
	return &busyReader{Reader: bytes.NewReader(q.body), done: sync.OnceFunc(q.busy.Done)}, nil
}

type busyReader struct {
	*bytes.Reader
	done func()
}

// Close says that nobody reads any more.
func (b *busyReader) Close() error {
	b.done()
	return nil
}

// unsent closes a stream that nobody is to send, and returns why.
func (q request) unsent(why error) error {
	if q.stream != nil {
		q.stream.Close()
	}
	return why
}

func (p *Repository) actions(q request) []string {
	actions := []string{auth.ActionPull}
	if p.registry.o.Writes {
		actions = append(actions, auth.ActionPush)
	}
	if q.erase {
		actions = append(actions, auth.ActionDelete)
	}
	return actions
}

// ask is do for an answer without a body: it returns nil and the header, or an
// *answer.
func (p *Repository) ask(ctx context.Context, q request, fine ...int) (http.Header, error) {
	resp, err := p.do(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, status := range fine {
		if resp.StatusCode == status {
			drain(resp)
			return resp.Header, nil
		}
	}
	return nil, answered(resp)
}

func accept() http.Header { return http.Header{"Accept": manifestTypes} }

// headManifest returns the digest of a manifest, by its tag or digest; its error is an
// *answer of 404 where there is none.
func (p *Repository) headManifest(ctx context.Context, reference string) (image.Digest, error) {
	h, err := p.ask(ctx, request{method: http.MethodHead, path: "/manifests/" + reference, header: accept()}, http.StatusOK)
	if err != nil {
		return image.Digest{}, err
	}
	if id, err := image.ParseDigest(h.Get("Docker-Content-Digest")); err == nil {
		return id, nil
	}
	doc, err := p.get(ctx, "/manifests/"+reference) // the header may be left out
	return image.DigestOf(doc), err
}

// headBlob returns the size of a blob in bytes, -1 where the registry does not say.
func (p *Repository) headBlob(ctx context.Context, id image.Digest) (int64, error) {
	resp, err := p.do(ctx, request{method: http.MethodHead, path: "/blobs/" + id.String()})
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return 0, answered(resp)
	}
	drain(resp)
	return resp.ContentLength, nil
}

// get reads a document, with patience.
func (p *Repository) get(ctx context.Context, path string) ([]byte, error) {
	return p.read(ctx, request{method: http.MethodGet, path: path, header: accept()})
}

// read reads what a request is answered.
func (p *Repository) read(ctx context.Context, q request) ([]byte, error) {
	for attempt := 0; ; attempt++ {
		resp, err := p.do(ctx, q)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, answered(resp)
		}
		doc, err := io.ReadAll(io.LimitReader(resp.Body, image.MaxDocument+1))
		resp.Body.Close()
		switch {
		case err == nil && len(doc) > image.MaxDocument:
			return nil, image.ErrTooLarge
		case err == nil, ctx.Err() != nil, attempt == attempts-1:
			return doc, err
		}
		pause, _ := pauseFor(nil, attempt) // it broke in the middle
		p.registry.o.tell(nil, err, pause)
		if err := p.registry.o.Wait(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// Document returns a document, verified: a manifest or index, or a blob.
func (p *Repository) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	if err := p.check(ctx); err != nil {
		return nil, err
	}
	if doc := p.remembered(id); doc != nil {
		return doc, nil
	}
	doc, err := p.fetch(ctx, id)
	switch {
	case isStatus(err, http.StatusNotFound):
		return nil, p.missing("document", id)
	case errors.Is(err, image.ErrTooLarge):
		return nil, p.damaged("document", id, err)
	case err != nil:
		return nil, p.failure(ctx, err, "cannot read %s of %s", id.Short(), p.where())
	}
	if got := image.DigestOf(doc); got != id {
		return nil, p.damaged("document", id, &image.MismatchError{Want: id, Got: got, Size: -1, Read: int64(len(doc))})
	}
	p.remember(id, doc)
	return doc, nil
}

// fetch reads a document from where its kind is kept, the likelier place first.
func (p *Repository) fetch(ctx context.Context, id image.Digest) ([]byte, error) {
	manifest, blob := "/manifests/"+id.String(), "/blobs/"+id.String()
	if p.namedConfig(id) != nil || p.isBlob(id) {
		doc, err := p.get(ctx, blob)
		if isNone(err) {
			doc, err = p.get(ctx, manifest)
		}
		return doc, err
	}
	doc, err := p.read(ctx, request{method: http.MethodGet, path: manifest, header: accept(), once: true})
	switch {
	case err == nil:
		return doc, nil
	case isNone(err):
		return p.get(ctx, blob)
	case isStatus(err, http.StatusInternalServerError): // see locate
		if doc, err := p.read(ctx, request{method: http.MethodGet, path: blob, once: true}); err == nil {
			return doc, nil
		}
	}
	return p.get(ctx, manifest)
}

func (p *Repository) damaged(what string, id image.Digest, cause error) error {
	object := p.path + "@" + id.String()
	where := &remote.Damage{Object: object, Text: fmt.Sprintf("%s in %s", object, p.registry.o.Name), Cause: cause}
	return fault.Wrap(fault.Damaged, where, "%s %s is damaged", what, id.Short()).Advise("Push the image there again.")
}

func (p *Repository) remembered(id image.Digest) []byte {
	return p.registry.shelf.get(p, id)
}

// remember keeps a document that is there, and what it says of layers.
func (p *Repository) remember(id image.Digest, doc []byte) {
	p.registry.settle(p, append(p.learn(id, doc), id)...)
	p.registry.shelf.put(p, id, doc)
}

// learn takes from a document what lies in the repository with it. A manifest and
// its config tell which layer is compressed in which blob.
func (p *Repository) learn(id image.Digest, doc []byte) (names []image.Digest) {
	kind, err := image.KindOf(doc)
	if err != nil {
		return nil
	}
	switch kind {
	case image.IndexKind:
		if x, err := image.ParseIndex(doc); err == nil {
			for _, c := range x.Manifests {
				names = append(names, c.Digest)
			}
		}
	case image.ManifestKind:
		m, err := image.ParseManifest(doc)
		if err != nil {
			return nil
		}
		names = append(names, m.Config.Digest)
		for _, l := range m.Layers {
			names = append(names, l.Digest)
		}
		p.noteConfig(m, len(doc))
		p.pair(m, p.remembered(m.Config.Digest))
	case image.ConfigKind:
		m := p.namedConfig(id)
		if c, err := image.ParseConfig(doc); err == nil {
			names = c.DiffIDs
		}
		p.pair(m, doc)
	}
	return names
}

// pair notes what a manifest and its config say of layers.
func (p *Repository) pair(m *image.Manifest, config []byte) {
	if m == nil || config == nil {
		return
	}
	c, err := image.ParseConfig(config)
	if err != nil || len(c.DiffIDs) != len(m.Layers) {
		return
	}
	for i, l := range m.Layers {
		if tar, compressed := l.Tar(); tar && compressed && l.Digest != c.DiffIDs[i] { // see image.Tree
			p.notePacked(c.DiffIDs[i], packed{Digest: l.Digest, Size: l.Size, Media: l.MediaType, Plain: -1})
		}
	}
}
