package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a registry by its URL without the scheme.
func open(t testing.TB, rest string, change func(*client.Options)) *client.Registry {
	t.Helper()
	name := "registry://" + rest
	address, err := client.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	o := client.Options{
		Address: address, Name: name, Writes: true,
		Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
	if change != nil {
		change(&o)
	}
	r, err := client.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// roaming is a registry as a remote without repositories: what is put lies in one of
// its own, and comes to others when it is tagged. Names that no registry can have are
// written otherwise.
type roaming struct{ *client.Registry }

func (r roaming) staging() remote.Remote { return r.In("staging") }

func (r roaming) Missing(ctx context.Context, c remote.Closure) (remote.Closure, []remote.Layer, error) {
	return r.staging().Missing(ctx, c)
}

func (r roaming) Look(ctx context.Context, c remote.Closure, known map[image.Digest]remote.Layer) (*remote.Found, error) {
	found, err := r.staging().Look(ctx, c, known)
	if err != nil || len(found.Torn) == 0 {
		return found, err
	}
	there, err := r.Registry.Look(ctx, c, known) // in the repositories that say what they are compressed in
	if err != nil {
		return nil, err
	}
	for id, l := range there.Layers {
		if found.Torn[id] != nil {
			delete(found.Torn, id)
			found.Layers[id] = l
		}
	}
	return found, nil
}

func (r roaming) Open(ctx context.Context, l remote.Layer) (io.ReadCloser, error) {
	if in, _, _ := strings.Cut(l.Object, "@"); strings.HasSuffix(in, "/staging") {
		return r.staging().Open(ctx, l)
	}
	return r.Registry.Open(ctx, l)
}

func (r roaming) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	if doc, err := r.Registry.Document(ctx, id); err == nil {
		return doc, nil
	}
	return r.staging().Document(ctx, id)
}

func (r roaming) PutLayer(ctx context.Context, l image.Descriptor, body io.Reader) (remote.Layer, error) {
	return r.staging().PutLayer(ctx, l, body)
}

func (r roaming) PutDocument(ctx context.Context, doc []byte) error {
	return r.staging().PutDocument(ctx, doc)
}

func (r roaming) Tag(ctx context.Context, ref image.Reference, id image.ID) error {
	_, err := r.staging().Document(ctx, id) // so that it is known where it lies
	if err == nil {
		err = r.Registry.Tag(ctx, escape(ref), id)
	}
	var damage *remote.Damage
	if errors.As(err, &damage) && damage.Missing {
		return &remote.IncompleteError{ID: id, Missing: remote.Closure{Documents: []image.Digest{id}}}
	}
	return err
}

func (r roaming) Resolve(ctx context.Context, ref image.Reference) (image.ID, error) {
	to := escape(ref)
	if !ref.Digest.IsZero() {
		to.Repository = "staging"
		if id, err := r.Registry.Resolve(ctx, to); err == nil {
			return id, nil
		}
		to = escape(ref)
	}
	return r.Registry.Resolve(ctx, to)
}

func (r roaming) Untag(ctx context.Context, ref image.Reference, id image.ID) error {
	return r.Registry.Untag(ctx, escape(ref), id)
}

func (r roaming) References(ctx context.Context, repository string) iter.Seq2[remote.Tag, error] {
	return func(yield func(remote.Tag, error) bool) {
		for tag, err := range r.Registry.References(ctx, escape(image.Reference{Repository: repository}).Repository) {
			tag.Reference.Repository = escaped.ReplaceAllStringFunc(tag.Reference.Repository, func(s string) string {
				n, _ := strconv.ParseUint(s[3:5], 16, 8)
				return string(rune(n))
			})
			if !yield(tag, err) {
				return
			}
		}
	}
}

var (
	odd     = regexp.MustCompile(`[A-Z:\[\]]`)
	escaped = regexp.MustCompile(`z--[0-9a-f]{2}z`)
)

func escape(ref image.Reference) image.Reference {
	ref.Repository = odd.ReplaceAllStringFunc(ref.Repository, func(s string) string { return fmt.Sprintf("z--%02xz", s[0]) })
	return ref
}

// TestSuite: a stock registry is a remote like others, as far as it can be, whatever
// its layers are compressed with, and so is one of the generation before.
func TestSuite(t *testing.T) {
	for name, of := range map[string]struct {
		method client.Compression
		debian bool
	}{"none": {client.None, false}, "gzip": {client.Gzip, false}, "2.8": {client.Zstd, true}} {
		if testing.Short() && name != "gzip" {
			continue // which takes the longest way through all of it
		}
		t.Run(name, func(t *testing.T) {
			s, opened, method := registrytest.Start(t, registrytest.Options{Debian: of.debian}), 0, of.method
			remotetest.Run(t, remotetest.Harness{
				Open: func(t *testing.T) remotetest.Target {
					opened++
					place := fmt.Sprintf("%s/%d", s.Host, opened) // which is empty
					dir := t.TempDir()
					side := func() remote.Remote {
						return roaming{open(t, place, func(o *client.Options) {
							o.Compression, o.CacheDir, o.Chunk = method, dir, 1<<20
							if of.debian { // it answers 500 as long as it writes what is asked for, on a busy machine for long
								o.Wait = patiently
							}
						})}
					}
					return remotetest.Target{A: side(), B: side(), Forge: func(t *testing.T, l remote.Layer, tar []byte) {
						forge(t, s, l, tar, method)
					}}
				},
				Untags:     true,
				Compresses: method != client.None,
				Lasting:    []goleak.Option{goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop")},
			})
		})
	}
}

// patiently waits four times as long as it is told to.
func patiently(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(4 * d):
		return nil
	}
}

func forge(t *testing.T, s *registrytest.Server, l remote.Layer, tar []byte, method client.Compression) {
	t.Helper()
	id, content := l.Digest, tar
	if !l.Packed.IsZero() {
		id = l.Packed
		z := codec.EncodeGzip(bytes.NewReader(tar))
		if method == client.Zstd {
			z = chunk.Encode(codec.Zstd, bytes.NewReader(tar)) // as a push does: the blob itself is put back last
		}
		var err error
		if content, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
		z.Close()
	}
	if err := os.WriteFile(filepath.Clean(s.Blob(id)), content, 0o600); err != nil {
		t.Fatal(err)
	}
}
