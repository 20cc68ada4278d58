package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/readthrough"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/file"
)

// cachedWorld is a deltaWorld in which the engine's own layers cannot be read, and the first release is in a cache.
type cachedWorld struct {
	*deltaWorld
	dir     string
	cache   *readthrough.Cache
	through *readthrough.Source
}

func newCachedWorld(t testing.TB) *cachedWorld {
	t.Helper()
	w := &cachedWorld{deltaWorld: newDeltaWorld(t), dir: t.TempDir()}
	dir, err := file.Open(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	if w.cache, err = readthrough.Open(t.Context(), dir, readthrough.Options{Name: "the-cache", Limit: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	w.through = w.cache.New(w.remote)
	mustPull(t, w.through, newClassic().connect(t), "much:1")
	clear(w.store.read)
	return w
}

// onto pulls a release through the cache onto an engine that has the first one, and proves that it has come.
func (w *cachedWorld) onto(e *classic, client Loader, m *enginetest.Image) (LayerResult, error) {
	ref, err := image.ParseReference(m.Tags()[0])
	if err != nil {
		return LayerResult{}, err
	}
	results, err := Pull(context.Background(), w.through, client, []PullImage{{ref, ref}}, w.o)
	if err != nil {
		return LayerResult{}, err
	}
	id, i := e.find(m.Tags()[0])
	if i == nil || id.String() != m.ID() || !bytes.Equal(i.layers[1], layerOf(m).Bytes()) {
		return LayerResult{}, fmt.Errorf("the engine has %q, want %s", e.names(), m.ID())
	}
	return results[0].Layers[1], nil
}

func (w *cachedWorld) cachePath(l *enginetest.Layer) string {
	return filepath.Join(w.dir, filepath.FromSlash(fileOf(l)))
}

// TestDeltaOfTheCache: an engine of which nothing can be read gets a release out of the one before, which the cache has. The
// cache has the new one then: another engine reads nothing of the remote, and the release after it is put together from it.
func TestDeltaOfTheCache(t *testing.T) {
	w := newCachedWorld(t)
	whole := w.stored(t, layerOf(w.two))
	e := newClassic(w.one)
	got, err := w.onto(e, e.connect(t), w.two)
	if err != nil {
		t.Fatal(err)
	}
	if two, one := w.store.of(layerOf(w.two)), w.store.of(layerOf(w.one)); two > whole/8 || one > 0 || got.Fetched != two || got.Local < releaseFiles*releaseSize*8/10 {
		t.Errorf("%+v; %d bytes of %d were read, and %d of the other", got, two, whole, one)
	}
	if len(w.said.notes) > 0 {
		t.Errorf("notes: %q", w.said.notes)
	}
	if _, err := os.Stat(w.cachePath(layerOf(w.two))); err != nil {
		t.Errorf("the cache has it not: %v", err)
	}
	other := newClassic(w.one)
	if got, err = w.onto(other, other.connect(t), w.two); err != nil || got.Fetched > 0 || w.store.of(layerOf(w.two)) > 0 {
		t.Errorf("once more: %+v, %v", got, err)
	}
	must(t, os.RemoveAll(filepath.Dir(w.cachePath(layerOf(w.one)))))
	three := enginetest.NewImage().Tag("much:3").Add(w.two.Layers()[0]).Layer(release(firstRelease.Add(2*time.Hour), 17, 40)...)
	mustPush(t, newClassic(three).connect(t), w.remote, "much:3")
	w.store.of(layerOf(three))
	if got, err = w.onto(other, other.connect(t), three); err != nil || got.Local == 0 || w.store.of(layerOf(three)) > whole/4 {
		t.Errorf("the third one: %+v, %v", got, err)
	}
}

// TestDeltaOfTheCacheGoesByTheLink: what is read of the cache is not taken for what the remote sends.
func TestDeltaOfTheCacheGoesByTheLink(t *testing.T) {
	w := newCachedWorld(t)
	two := digestOf(t, layerOf(w.two))
	layers, err := remote.Layers(t.Context(), w.remote, []image.Digest{two})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		latency time.Duration
		rate    float64
		want    bool
	}{{20 * time.Millisecond, 1e6, true}, {time.Millisecond, 50e6, true}, {time.Microsecond, 2e9, false}} {
		synctest.Test(t, func(t *testing.T) {
			o := w.o
			o.Delta = DeltaAuto
			from := w.cache.New(slowParts{w.remote, c.latency, c.rate, new(atomic.Int64)})
			p := &pull{from: from, to: ofKind(engine.Classic), o: o.withDefaults(), tree: &image.Tree{}, image: pulls(t, "much:2")[0], order: []image.Digest{two}, layers: map[image.Digest]remote.Layer{two: layers[0]}}
			d := p.newDeltas(p.order)
			plan := d.plan(t.Context(), layers[0])
			latency, seen := d.link.speed()
			if (plan != nil) != c.want || latency < c.latency || seen > c.rate*2 {
				t.Errorf("%+v: %v; the link is taken for %s, %.0f", c, plan != nil, latency, seen)
			}
		})
	}
}

// TestDeltaForMany: of several engines that want a release at once, through one cache, one puts it together for all.
func TestDeltaForMany(t *testing.T) {
	w := newCachedWorld(t)
	whole := w.stored(t, layerOf(w.two))
	if made := w.ontoMany(t); made != 1 {
		t.Errorf("%d of them say that they have put it together", made)
	}
	if two := w.store.of(layerOf(w.two)); two > whole/8 {
		t.Errorf("%d bytes of %d were read", two, whole)
	}
}

// TestDeltaForManyIsMisled: an index that lies keeps none of them from the image.
func TestDeltaForManyIsMisled(t *testing.T) {
	w := newCachedWorld(t)
	w.lie(t)
	w.ontoMany(t)
}

// ontoMany pulls the second release onto several engines at once. It returns how many have put it together.
func (w *cachedWorld) ontoMany(t *testing.T) (made int64) {
	t.Helper()
	w.o.Progress = nil
	var g errgroup.Group
	var rebuilt atomic.Int64
	for range 4 {
		e := newClassic(w.one)
		client := e.connect(t)
		g.Go(func() error {
			got, err := w.onto(e, client, w.two)
			if got.Local > 0 {
				rebuilt.Add(1)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	return rebuilt.Load()
}

// TestDeltaOfTheCachePodman: Podman takes whole archives, and little of them is read of the remote.
func TestDeltaOfTheCachePodman(t *testing.T) { eachPodman(t, testDeltaOfTheCachePodman) }

func testDeltaOfTheCachePodman(t *testing.T, e *enginetest.Engine, client *counted) {
	w := newCachedWorld(t)
	t.Cleanup(func() { removeAll(t, e, "much:1"); removeAll(t, e, "much:2") })
	mustPull(t, w.through, client, "much:1")
	w.store.of(layerOf(w.one))
	results, err := Pull(t.Context(), w.through, client, pulls(t, "much:2"), w.o)
	if err != nil || results[0].Layers[1].Local == 0 {
		t.Fatalf("%+v, %v", results, err)
	}
	if two, one, whole := w.store.of(layerOf(w.two)), w.store.of(layerOf(w.one)), w.stored(t, layerOf(w.two)); two > whole/8 || one > 0 {
		t.Errorf("%d bytes of %d were read, and %d of the other", two, whole, one)
	}
	if id, _, err := e.ImageID(t.Context(), "much:2"); err != nil || id != w.two.ID() {
		t.Errorf("the engine has %s, want %s, %v", id, w.two.ID(), err)
	}
}

// TestDeltaOfTheCacheGoesWrong: whatever is wrong with what the cache has, the image comes as it is.
func TestDeltaOfTheCacheGoesWrong(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, w *cachedWorld)
		note   string
		local  bool
	}{
		{name: "a frame is damaged", local: true, change: func(t *testing.T, w *cachedWorld) {
			w.spoil(t, layerOf(w.one), func(b []byte) { b[len(b)/2] ^= 1 })
		}},
		{name: "its index is damaged", change: func(t *testing.T, w *cachedWorld) {
			w.spoil(t, layerOf(w.one), func(b []byte) { b[len(b)-40] ^= 1 })
		}},
		{name: "it is another file", note: "cannot be put together", change: func(t *testing.T, w *cachedWorld) {
			w.spoil(t, layerOf(w.one), func(b []byte) { clear(b[:framesOf(t, b).Stored]) })
		}},
		{name: "an index lies", note: "an index in the remote is wrong", change: func(t *testing.T, w *cachedWorld) {
			w.lie(t)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newCachedWorld(t)
			c.change(t, w)
			e := newClassic(w.one)
			got, err := w.onto(e, e.connect(t), w.two)
			if err != nil || c.local != (got.Local > 0) {
				t.Errorf("%+v, %v", got, err)
			}
			if notes := strings.Join(w.said.notes, "\n"); c.note == "" && notes != "" || !strings.Contains(notes, c.note) {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
			has(t, e, "much:1 "+w.one.ID()[7:19], "much:2 "+w.two.ID()[7:19])
		})
	}
}

// spoil damages a layer in the cache.
func (w *cachedWorld) spoil(t *testing.T, l *enginetest.Layer, change func([]byte)) {
	t.Helper()
	b, err := os.ReadFile(w.cachePath(l))
	must(t, err)
	change(b)
	must(t, os.WriteFile(w.cachePath(l), b, 0o644))
}

// TestDeltaWithoutRoomInTheCache: a cache that cannot take the layer gives what it has all the same.
func TestDeltaWithoutRoomInTheCache(t *testing.T) {
	w := newCachedWorld(t)
	noise := make([]byte, 2<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	more := enginetest.File("srv/more", 0o644, string(noise))
	w.two = enginetest.NewImage().Tag("much:2").Add(w.one.Layers()[0]).Layer(append(release(firstRelease.Add(time.Hour)), more)...)
	mustPush(t, newClassic(w.two).connect(t), w.remote, "much:2")
	dir, err := file.Open(w.dir)
	must(t, err)
	defer dir.Close()
	small, err := readthrough.Open(t.Context(), dir, readthrough.Options{Name: "the-cache", Limit: w.stored(t, layerOf(w.two)) * 3 / 4})
	must(t, err)
	w.through = small.New(w.remote)
	e := newClassic(w.one)
	got, err := w.onto(e, e.connect(t), w.two)
	if err != nil || got.Local == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := os.Stat(w.cachePath(layerOf(w.two))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cache has it: %v", err)
	}
}

// TestDeltaOfTheCacheIsInterrupted: wherever an interrupt comes, nothing runs on, and a rerun completes.
func TestDeltaOfTheCacheIsInterrupted(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		if leak := remotetest.Leaks(before); leak != nil {
			t.Error(leak)
		}
	})
	for n := 1; ; n++ {
		w := newCachedWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		reads := make(chan struct{}, n)
		w.store.get = func(string, int64, int64) error {
			select {
			case reads <- struct{}{}:
			default:
				cancel()
			}
			return nil
		}
		e := newClassic(w.one)
		client := e.connect(t)
		_, err := Pull(ctx, w.through, client, pulls(t, "much:2"), w.o)
		interrupted := ctx.Err() != nil
		cancel()
		w.store.plain()
		if interrupted && err != nil && !errors.Is(err, context.Canceled) || len(w.said.notes) > 0 {
			t.Errorf("interrupted in read %d: %v, notes %q", n, err, w.said.notes)
		}
		if _, err := w.onto(e, client, w.two); err != nil {
			t.Errorf("after an interrupt in read %d: %v", n, err)
		}
		if !interrupted {
			return
		}
	}
}
