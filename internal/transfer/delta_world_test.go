package transfer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// releaseFiles is how many files a release has, and releaseSize how large one is.
const (
	releaseFiles = 60
	releaseSize  = 24 << 10
)

// release is a tree that was built anew: all times are others, and of the files that are named the contents.
func release(at time.Time, changed ...int) []enginetest.Entry {
	var entries []enginetest.Entry
	for i := range releaseFiles {
		seed := uint64(i)
		if slices.Contains(changed, i) {
			seed += uint64(at.Unix())
		}
		random := rand.New(rand.NewPCG(seed, 1))
		var b strings.Builder
		for b.Len() < releaseSize {
			fmt.Fprintf(&b, "%x\n", random.Uint64())
		}
		f := enginetest.File(fmt.Sprintf("srv/app/%03d", i), 0o644, b.String())
		f.Header.ModTime = at
		entries = append(entries, f)
	}
	return entries
}

var firstRelease = time.Date(2013, 12, 11, 10, 0, 0, 0, time.UTC)

// releases are two images of one repository: the second is the first built anew, with one file changed.
func releases() (one, two *enginetest.Image) {
	base := enginetest.NewLayer(enginetest.File("base", 0o644, "this is the base"))
	one = enginetest.NewImage().Tag("much:1").Add(base).Layer(release(firstRelease)...)
	two = enginetest.NewImage().Tag("much:2").Add(base).Layer(release(firstRelease.Add(time.Hour), 17)...)
	return one, two
}

// layerOf is the layer of a release.
func layerOf(m *enginetest.Image) *enginetest.Layer { return m.Layers()[len(m.Layers())-1] }

func digestOf(t testing.TB, l *enginetest.Layer) image.Digest {
	t.Helper()
	d, err := image.ParseDigest(l.DiffID())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// keeper is an engine whose layers can be read at any offset.
type keeper struct {
	*engine.Client
	tars [][]byte
	open func(n int) // if set, told of each that is opened

	asked int // for relatives
}

func (k *keeper) Relatives(context.Context, []image.Reference, []image.Digest) (all []engine.Relative, err error) {
	k.asked++
	for i, tar := range k.tars {
		all = append(all, engine.Relative{Digest: image.DigestOf(tar), Size: int64(len(tar)), Open: func(context.Context) (engine.Tar, error) {
			if k.open != nil {
				k.open(i)
			}
			return memoryTar{bytes.NewReader(k.tars[i])}, nil
		}})
	}
	return all, nil
}

type memoryTar struct{ *bytes.Reader }

func (memoryTar) Close() error { return nil }

// watchedStore counts what is read of each object.
type watchedStore struct {
	storage.Store
	mu   sync.Mutex
	read map[string]int64
	get  func(key string, offset, n int64) error // if set, its error is Get's; after a first Get, plain changes it
}

// plain lets all that is read from now on be as it is stored.
func (w *watchedStore) plain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.get = nil
}

func (w *watchedStore) Get(ctx context.Context, key string, offset, n int64) (io.ReadCloser, error) {
	w.mu.Lock()
	get := w.get
	w.mu.Unlock()
	if get != nil {
		if err := get(key, offset, n); err != nil {
			return nil, err
		}
	}
	body, err := w.Store.Get(ctx, key, offset, n)
	if err != nil {
		return nil, err
	}
	return &watchedBody{body, w, key}, nil
}

type watchedBody struct {
	io.ReadCloser
	w   *watchedStore
	key string
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	b.w.read[b.key] += int64(n)
	return n, err
}

// of returns the bytes that were read of a layer's file since the last call.
func (w *watchedStore) of(l *enginetest.Layer) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.read[fileOf(l)]
	delete(w.read, fileOf(l))
	return n
}

func fileOf(l *enginetest.Layer) string {
	return "images/" + strings.TrimPrefix(l.DiffID(), "sha256:") + "/layer.tar.lz4"
}

// deltaWorld is a remote with two releases, and an engine that has the first.
type deltaWorld struct {
	store    *watchedStore
	remote   *repo.Repo
	engine   *classic
	keeper   *keeper
	one, two *enginetest.Image
	o        Options
	said     *recorder
}

func newDeltaWorld(t testing.TB) *deltaWorld {
	t.Helper()
	w := &deltaWorld{store: &watchedStore{Store: mem.New(), read: map[string]int64{}}, said: &recorder{}}
	w.one, w.two = releases()
	w.remote = remoteOn(t, w.store, codec.LZ4)
	mustPush(t, newClassic(w.one, w.two).connect(t), w.remote, "much:1", "much:2")
	w.engine = newClassic(w.one)
	w.keeper = &keeper{Client: w.engine.connect(t), tars: [][]byte{layerOf(w.one).Bytes()}}
	w.o = Options{Delta: DeltaAlways, leastDelta: 1, Progress: w.said}
	clear(w.store.read)
	return w
}

// pull pulls the second release, and proves that it has come.
func (w *deltaWorld) pull(t testing.TB) LayerResult {
	t.Helper()
	results, err := Pull(t.Context(), w.remote, w.keeper, pulls(t, "much:2"), w.o)
	if err != nil {
		t.Fatal(err)
	}
	w.check(t)
	return results[0].Layers[1]
}

func (w *deltaWorld) check(t testing.TB) {
	t.Helper()
	id, i := w.engine.find("much:2")
	if i == nil || id.String() != w.two.ID() || !bytes.Equal(i.layers[1], layerOf(w.two).Bytes()) {
		t.Errorf("the engine has %q, want %s", w.engine.names(), w.two.ID())
	}
}

// stored is how many bytes the file of a layer has.
func (w *deltaWorld) stored(t testing.TB, l *enginetest.Layer) int64 {
	t.Helper()
	info, err := w.store.Stat(t.Context(), fileOf(l))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size
}

// content reads the file of a layer, and edits it.
func (w *deltaWorld) edit(t testing.TB, l *enginetest.Layer, edit func(content []byte) []byte) {
	t.Helper()
	body, err := w.store.Store.Get(t.Context(), fileOf(l), 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	content, err := io.ReadAll(body)
	if err == nil {
		err = w.store.Put(t.Context(), fileOf(l), bytes.NewReader(edit(content)))
	}
	if err != nil {
		t.Fatal(err)
	}
}
