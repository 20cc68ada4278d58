package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// This file makes what the tests of copies copy.

// stock is a remote that has an image of every kind.
type stock struct {
	store *mem.Store
	*repo.Repo
	classic map[string]remotetest.Image // by their tags
}

const multi, blobbed = "multi:1", "blobs:1" // an index, and a manifest with compressed layers

func newStock(t testing.TB) *stock {
	t.Helper()
	s := &stock{store: mem.New(), classic: map[string]remotetest.Image{}}
	s.Repo = remoteOn(t, s.store, codec.LZ4)
	base := remotetest.FileLayer(t, "base", strings.Repeat("base ", 3000))
	for name, c := range map[string]codec.Codec{"app:1": codec.LZ4, "app:2": codec.Zstd, "team/app:1": codec.None} {
		s.push(t, remoteOn(t, s.store, c), name, remotetest.NewImage(t, name, base, remotetest.FileLayer(t, "own", strings.Repeat(name, 2000)), base))
	}
	var l enginetest.Layout
	s.node(t, &l, l.Image(layered("x", "blob-a", "blob-b", "blob-c"), enginetest.Gzip, enginetest.Zstd, enginetest.Raw), blobbed)
	amd64 := l.Image(layered("x", "amd64", "shared"), enginetest.Gzip).For("linux", "amd64")
	arm64 := l.Image(layered("x", "arm64", "shared"), enginetest.Zstd, enginetest.Gzip).For("linux", "arm64")
	riscv := l.Image(layered("x", "riscv"), enginetest.Gzip).For("linux", "riscv64")
	attested := l.Attestation(amd64, `{"_type":"https://in-toto.io/Statement/v0.1"}`)
	s.node(t, &l, l.Index(amd64, attested, arm64, riscv), multi, amd64.Digest, arm64.Digest, attested.Digest)
	// A classic image whose layers are there as blobs alone.
	aliased := layered("x", "blob-a", "blob-b")
	config := aliased.Config()
	if err := s.PutDocument(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(t.Context(), reference(t, "aliased:1"), image.DigestOf(config)); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stock) push(t testing.TB, to remote.Target, name string, img remotetest.Image) {
	t.Helper()
	if _, err := remotetest.Push(t.Context(), to, reference(t, name), img); err != nil {
		t.Fatal(err)
	}
	s.classic[name] = img
}

// node stores a manifest, or an index and those of its manifests that are held.
func (s *stock) node(t testing.TB, l *enginetest.Layout, n enginetest.Node, name string, held ...string) {
	t.Helper()
	var doc struct {
		Config            image.Descriptor
		Layers, Manifests []image.Descriptor
	}
	put := func(digest string) {
		t.Helper()
		b := l.Blob(digest)
		doc.Config, doc.Layers, doc.Manifests = image.Descriptor{}, nil, nil
		if err := json.Unmarshal(b, &doc); err != nil {
			t.Fatal(err)
		}
		for _, d := range doc.Layers {
			if _, err := s.PutLayer(t.Context(), d, bytes.NewReader(l.Blob(d.Digest.String()))); err != nil {
				t.Fatal(err)
			}
		}
		if !doc.Config.Digest.IsZero() {
			if err := s.PutDocument(t.Context(), l.Blob(doc.Config.Digest.String())); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.PutDocument(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	var ids []image.Digest
	for _, h := range held {
		put(h)
		ids = append(ids, mustDigest(t, h))
	}
	put(n.Digest)
	if err := s.Hold(t.Context(), mustDigest(t, n.Digest), ids); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(t.Context(), reference(t, name), mustDigest(t, n.Digest)); err != nil {
		t.Fatal(err)
	}
}

func mustDigest(t testing.TB, s string) image.Digest {
	t.Helper()
	d, err := image.ParseDigest(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// objects returns all of a store.
func objects(t testing.TB, s storage.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	for info, err := range s.List(context.WithoutCancel(t.Context()), "") {
		if err != nil {
			t.Fatal(err)
		}
		all[info.Key] = content(t, s, info.Key)
	}
	return all
}

func content(t testing.TB, s storage.Store, key string) string {
	t.Helper()
	r, err := s.Get(context.WithoutCancel(t.Context()), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sameObjects fails the test unless got has the objects of want and no others.
func sameObjects(t testing.TB, want, got map[string]string) {
	t.Helper()
	for key, content := range want {
		if was, ok := got[key]; !ok || was != content {
			t.Errorf("%s: %.80q, want %.80q", key, was, content)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok && !strings.HasPrefix(key, "run/") { // a lease whose removal failed stays until it is dead
			t.Errorf("%s is there too", key)
		}
	}
}

func copies(t testing.TB, names ...string) (images []CopyImage) {
	for _, n := range names {
		images = append(images, CopyImage{Source: reference(t, n), Target: reference(t, n)})
	}
	return images
}

// copyAll copies all tags.
func copyAll(t testing.TB, from remote.Source, to remote.Target, o CopyOptions) (Copied, error) {
	t.Helper()
	o.All, o.From, o.To = true, "src", "dst"
	images, err := AllOf(t.Context(), from, o)
	if err != nil {
		return Copied{}, err
	}
	return Copy(t.Context(), from, to, images, o)
}

// movedIn counts the layers that a copy moved.
func movedIn(results []Result) (n int) {
	for _, r := range results {
		layers, _, _ := r.Moved()
		n += layers
	}
	return n
}

// logbook is a store that notes what is asked of it.
type logbook struct {
	storage.Store
	mu   sync.Mutex
	gets []string
	puts []string

	beforePut func(key string) error
}

func (r *logbook) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r.mu.Lock()
	r.gets = append(r.gets, key)
	r.mu.Unlock()
	return r.Store.Get(ctx, key, offset, length)
}

func (r *logbook) Put(ctx context.Context, key string, body io.Reader) error {
	r.mu.Lock()
	r.puts = append(r.puts, key)
	r.mu.Unlock()
	if r.beforePut != nil {
		if err := r.beforePut(key); err != nil {
			return err
		}
	}
	return r.Store.Put(ctx, key, body)
}

// layerKeys are those that are of layers' bytes.
func layerKeys(keys []string) (of []string) {
	for _, k := range keys {
		if strings.Contains(k, "/layer.tar") || strings.HasSuffix(k, "/blob") {
			of = append(of, k)
		}
	}
	return of
}
