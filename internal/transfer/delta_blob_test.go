package transfer

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/readthrough"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// blobWorld is a store into which two releases were copied out of a registry, so that their layers are blobs, and an
// engine that has the first one.
type blobWorld struct {
	deltaWorld
	blobs map[*enginetest.Image]image.Digest
}

func newBlobWorld(t *testing.T, c client.Compression) *blobWorld {
	t.Helper()
	s := registrytest.Start(t, registrytest.Options{})
	w := &blobWorld{blobs: map[*enginetest.Image]image.Digest{}}
	w.store, w.said = &watchedStore{Store: mem.New(), read: map[string]int64{}}, &recorder{}
	w.remote = remoteOn(t, w.store, codec.LZ4)
	w.one, w.two = releases()
	from := registryAt(t, s.Host, "", c)
	for _, m := range []*enginetest.Image{w.one, w.two} {
		copyIn(t, m, from.In("much"))
		_, err := Copy(t.Context(), from, w.remote, copies(t, m.Tags()[0]), CopyOptions{})
		must(t, err)
		layers, err := remote.Layers(t.Context(), w.remote, []image.Digest{digestOf(t, layerOf(m))})
		must(t, err)
		if w.blobs[m] = layers[0].Packed; w.blobs[m].IsZero() {
			t.Fatalf("%+v lies in no blob", layers[0])
		}
	}
	w.engine = newClassic(w.one)
	w.keeper = &keeper{Client: w.engine.connect(t), tars: [][]byte{layerOf(w.one).Bytes()}}
	w.o = Options{Delta: DeltaAlways, leastDelta: 1 << 10, Progress: w.said}
	clear(w.store.read)
	return w
}

// came returns how many bytes were read of a release's blob since the last call, and how many it has.
func (w *blobWorld) came(t *testing.T, m *enginetest.Image) (came, all int64) {
	t.Helper()
	key := "images/" + w.blobs[m].Hex() + "/blob"
	info, err := w.store.Stat(t.Context(), key)
	must(t, err)
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	came = w.store.read[key]
	delete(w.store.read, key)
	return came, info.Size
}

// TestDeltaOfBlobInStore: a layer that a store keeps as a blob of zstd, as it came from a registry with its index, is
// put together like others, and compared like them.
func TestDeltaOfBlobInStore(t *testing.T) {
	w := newBlobWorld(t, client.Zstd)
	got := w.pull(t)
	one, _ := w.came(t, w.one)
	two, all := w.came(t, w.two)
	if got.Local < releaseFiles*releaseSize*6/10 || got.Fetched != one+two || got.Size != layerOf(w.two).Size() || two > all/2 {
		t.Errorf("%+v; %d bytes of %d were read, and %d of the first one", got, two, all, one)
	}
	c := compareAll(t, w.remote, "much:1", "much:2", w.o)
	if len(c.Layers) != 1 || c.Layers[0].Whole != "" || c.Layers[0].Fetch > all/2 || !slices.Equal(c.Layers[0].Names, []string{"srv/app/017"}) {
		t.Errorf("%+v", c)
	}
	if len(w.said.notes) > 0 {
		t.Errorf("notes: %q", w.said.notes)
	}
}

// TestDeltaOfBlobInStoreThroughTheCache: the same out of a cache, which has the first release as a blob, and keeps the tar
// of the second one.
func TestDeltaOfBlobInStoreThroughTheCache(t *testing.T) {
	w := newBlobWorld(t, client.Zstd)
	w.keeper.tars = nil
	at := t.TempDir()
	dir, err := file.Open(at)
	must(t, err)
	defer dir.Close()
	cache, err := readthrough.Open(t.Context(), dir, readthrough.Options{Name: "the-cache", Limit: 1 << 30, Notify: func(line string) { t.Error(line) }})
	must(t, err)
	mustPull(t, cache.New(w.remote), newClassic().connect(t), "much:1")
	w.came(t, w.one)
	results, err := Pull(t.Context(), cache.New(w.remote), w.keeper, pulls(t, "much:2"), w.o)
	must(t, err)
	w.check(t)
	one, _ := w.came(t, w.one)
	two, all := w.came(t, w.two)
	if got := results[0].Layers[1]; got.Local == 0 || two > all/2 || one > 0 {
		t.Errorf("%+v; %d bytes of %d were read, and %d of the first one", got, two, all, one)
	}
	if _, err := os.Stat(filepath.Join(at, filepath.FromSlash(fileOf(layerOf(w.two))))); err != nil {
		t.Errorf("it is not kept: %v", err)
	}
}

// TestDeltaOfGzipInStore: of a layer in gzip, which has no index, nothing is asked for that, and it is read once. Where the
// store has the tar by itself as well, that is what counts, whatever the manifest says.
func TestDeltaOfGzipInStore(t *testing.T) {
	w := newBlobWorld(t, client.Gzip)
	reads := 0
	w.store.get = func(key string, _, _ int64) error {
		if key == "images/"+w.blobs[w.two].Hex()+"/blob" {
			reads++
		}
		return nil
	}
	got := w.pull(t)
	if two, all := w.came(t, w.two); got.Local != 0 || got.Fetched != 0 || two != all || reads != 1 || w.keeper.asked != 0 {
		t.Errorf("%+v; %d bytes of %d were read at %d times, and the engine was asked %d times", got, two, all, reads, w.keeper.asked)
	}
	for _, m := range []*enginetest.Image{w.one, w.two} {
		_, err := w.remote.PutLayer(t.Context(), image.Descriptor{Digest: digestOf(t, layerOf(m)), Size: layerOf(m).Size()}, layerOf(m).Open())
		must(t, err)
	}
	w.engine = newClassic(w.one)
	w.keeper.Client = w.engine.connect(t)
	if got := w.pull(t); got.Local == 0 {
		t.Errorf("where it is there as a tar, too: %+v", got)
	}
}
