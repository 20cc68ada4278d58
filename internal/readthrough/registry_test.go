package readthrough_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

// apart is a remote of which each repository knows only the layers of documents that
// were read there.
type apart struct {
	*probe
	mu      sync.Mutex
	read    map[string]map[image.Digest]bool // layers, by repository
	reading func()                           // if set, called before a document is read
}

func (a *apart) In(repository string) remote.Remote { return &room{a, repository} }

func (a *apart) Catalog(context.Context) iter.Seq2[string, error] {
	return func(func(string, error) bool) {}
}

type room struct {
	*apart
	name string
}

func (r *room) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	if r.reading != nil {
		r.reading()
	}
	doc, err := r.apart.Document(ctx, id)
	if config, failed := image.ParseConfig(doc); err == nil && failed == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.read[r.name] == nil {
			r.read[r.name] = map[image.Digest]bool{}
		}
		for _, id := range config.DiffIDs {
			r.read[r.name][id] = true
		}
	}
	return doc, err
}

func (r *room) Look(ctx context.Context, c remote.Closure, known map[image.Digest]remote.Layer) (*remote.Found, error) {
	found, err := r.apart.Look(ctx, c, known)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range c.Layers {
		if !r.read[r.name][id] {
			delete(found.Layers, id)
			found.Torn[id] = errNotRead
		}
	}
	return found, nil
}

var errNotRead = errors.New("nobody knows in which blob it is")

// TestRegistry reads from a remote with repositories: what the cache lacks of an image
// of which it has the documents is found all the same.
func TestRegistry(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tars := [][]byte{remotetest.Noise("one", layerSize), remotetest.Noise("two", layerSize)}
	img := pushed(t, p, "app:1", tars...)
	ref := remotetest.Ref(t, "app:1")
	for i, want := range []int{2, 0, 1} {
		if i == 2 {
			_, err := open(t, directory(t, dir)).Forget(t.Context(), image.DigestOf(tars[0]), time.Time{})
			must(t, err)
		}
		from := cacheIn(t, dir, 1<<30, nil).NewRegistry(&apart{probe: p, read: map[string]map[image.Digest]bool{}})
		got, err := remotetest.Pull(t.Context(), remote.SourceOf(from, "app"), ref)
		if err != nil || img.Diff(got) != "" {
			t.Errorf("time %d: %v: %s", i, err, img.Diff(got))
		}
		if n := p.since("stored"); n != want {
			t.Errorf("time %d: %d layers came, not %d", i, n, want)
		}
	}
}

// TestTwoAreDamaged: of two who need documents that the cache has given to find a layer, one reads them, and the other
// one waits for it; where that one is interrupted, it reads them itself.
func TestTwoAreDamaged(t *testing.T) {
	for name, interrupted := range map[string]bool{"waits": false, "reads them": true} {
		t.Run(name, func(t *testing.T) {
			p, dir := newProbe(t), t.TempDir()
			tars := [][]byte{remotetest.Noise("one", layerSize), remotetest.Noise("two", layerSize)}
			img := pushed(t, p, "app:1", tars...)
			_, err := remotetest.Pull(t.Context(), cacheIn(t, dir, 1<<30, nil).New(p), remotetest.Ref(t, "app:1"))
			must(t, err)
			begun, hold := make(chan struct{}), make(chan struct{})
			a := &apart{probe: p, read: map[string]map[image.Digest]bool{}}
			a.reading = sync.OnceFunc(func() { close(begun); <-hold })
			from := cacheIn(t, dir, 1<<30, nil).NewRegistry(a).In("app")
			_, err = from.Document(t.Context(), img.ID)
			must(t, err)
			layers, err := remote.Layers(t.Context(), from, img.DiffIDs())
			must(t, err)
			for _, id := range img.DiffIDs() {
				_, err := open(t, directory(t, dir)).Forget(t.Context(), id, time.Time{})
				must(t, err)
			}
			first, cancel := context.WithCancel(t.Context())
			defer cancel()
			errs := make(chan error, 1)
			go func() {
				got, err := remotetest.Read(first, from, layers[0])
				if err == nil && !bytes.Equal(got, tars[0]) {
					err = errors.New("it is another one")
				}
				errs <- err
			}()
			<-begun
			p.since("look")
			other := make(chan error, 1)
			go func() {
				got, err := remotetest.Read(t.Context(), from, layers[1])
				if err == nil && !bytes.Equal(got, tars[1]) {
					err = errors.New("it is another one")
				}
				other <- err
			}()
			for p.since("look") == 0 { // the other one has asked, or does just now
				runtime.Gosched()
			}
			if interrupted {
				cancel()
			}
			close(hold)
			if err := <-errs; interrupted != (err != nil) {
				t.Errorf("the first one: %v", err)
			}
			if err := <-other; err != nil {
				t.Errorf("the other one: %v", err)
			}
		})
	}
}

// TestTarBesideItsBlob: of a remote that gives layers decoded alone, such as a registry, a tar and the blob in which it is
// compressed may come at the same time. Each is its own bytes; the tar comes out of the blob where that is on its way.
func TestTarBesideItsBlob(t *testing.T) {
	p := newProbe(t)
	tar := remotetest.Noise("noise", large)
	blob := gzipped(t, tar)
	_, err := p.PutLayer(t.Context(), image.Descriptor{MediaType: "application/octet-stream", Digest: image.DigestOf(blob), Size: int64(len(blob))}, bytes.NewReader(blob))
	must(t, err)
	for reads, both := range map[int][][]byte{2: {tar, blob}, 1: {blob, tar}} {
		from := cacheIn(t, t.TempDir(), 1<<30, nil).New(plain{p})
		hold := make(chan struct{})
		p.replace(func(ctx context.Context, body io.ReadCloser) io.ReadCloser {
			return &gate{ReadCloser: body, ctx: ctx, left: large / 4, open: hold}
		})
		var bodies []io.ReadCloser
		for _, want := range both {
			body, err := from.Open(t.Context(), layerOf(t, from, want))
			must(t, err)
			bodies = append(bodies, body)
		}
		close(hold)
		for i, body := range bodies {
			got, err := io.ReadAll(body)
			if err = errors.Join(err, body.Close()); err != nil || !bytes.Equal(got, both[i]) {
				t.Errorf("%d bytes of %d, %v", len(got), len(both[i]), err)
			}
		}
		if n := p.since("open"); n != reads {
			t.Errorf("the remote was read %d times, want %d", n, reads)
		}
	}
}
