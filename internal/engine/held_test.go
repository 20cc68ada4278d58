package engine

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
)

// number is a digest for tests.
func number(n int) image.Digest { return image.DigestOf(fmt.Append(nil, n)) }

// layersFrom are n layers, the first of which is number(first).
func layersFrom(first, n int) []image.DiffID {
	var layers []image.DiffID
	for i := range n {
		layers = append(layers, number(first+i))
	}
	return layers
}

func testCache(t testing.TB) *layerCache {
	return openLayerCache(filepath.Join(t.TempDir(), "a", "b"), slog.New(slog.DiscardHandler))
}

func sameLists(a, b map[image.ID][]image.DiffID) bool {
	return maps.EqualFunc(a, b, slices.Equal[[]image.DiffID])
}

func TestLayerCache(t *testing.T) {
	c := testCache(t)
	want := map[image.ID][]image.DiffID{}
	for i, n := range []int{0, 1, 3, 127, image.MaxLayers} {
		want[number(i)] = layersFrom(1000*i, n)
	}
	if got := c.load(); len(got) > 0 {
		t.Errorf("a new cache has %d lists", len(got))
	}
	c.add(want)
	if got := c.load(); !sameLists(got, want) {
		t.Errorf("%d lists come back wrong", len(got))
	}
	info, err := os.Stat(c.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file %v, error %v", info, err)
	}
}

// TestLayerCacheTorn cuts the file at every byte, and writes on: no list is ever wrong, and what follows is whole.
func TestLayerCacheTorn(t *testing.T) {
	c := testCache(t)
	first := map[image.ID][]image.DiffID{number(1): layersFrom(10, 3)}
	second := map[image.ID][]image.DiffID{number(2): layersFrom(20, 2)}
	c.add(first)
	whole, err := os.ReadFile(c.path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) {
		if err := os.WriteFile(c.path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		c.add(second)
		got := c.load()
		if list, ok := got[number(1)]; ok && !slices.Equal(list, first[number(1)]) {
			t.Fatalf("cut at %d: list of %d layers", cut, len(list))
		}
		delete(got, number(1))
		if !sameLists(got, second) {
			t.Fatalf("cut at %d: what was written after it is %v", cut, got)
		}
	}
}

func TestLayerCacheGarbage(t *testing.T) {
	id, layer := number(1).Hex(), number(2).Hex()
	for _, line := range []string{
		"", " ", ".", " .", id, id + " " + layer, id + " " + layer + ".", id + "  .", id + " " + layer[:63] + " .", id[:63] + " " + layer + " .",
		id + " " + layer + " . .", strings.ToUpper(id) + " " + layer + " .", id + "\t" + layer + "\t.", "\x00\xff .", id + " " + layer + " .\r",
	} {
		if got, layers, ok := parseLayerLine(line); ok {
			t.Errorf("%q is %v, %v", line, got, layers)
		}
	}
	if got, layers, ok := parseLayerLine(id + " ."); !ok || got != number(1) || len(layers) != 0 {
		t.Error("an image without layers is not remembered")
	}
}

// TestLayerCacheManyWriters: processes share the file without a lock.
func TestLayerCacheManyWriters(t *testing.T) {
	dir := t.TempDir()
	want := map[image.ID][]image.DiffID{}
	var wg sync.WaitGroup
	for w := range 8 {
		lists := map[image.ID][]image.DiffID{}
		for i := range 20 {
			id := number(100*w + i)
			lists[id] = layersFrom(1000*w+i, 1+i*10)
			want[id] = lists[id]
		}
		wg.Go(func() { openLayerCache(dir, slog.New(slog.DiscardHandler)).add(lists) })
	}
	wg.Wait()
	if got := openLayerCache(dir, slog.New(slog.DiscardHandler)).load(); !sameLists(got, want) {
		t.Errorf("%d lists, want %d", len(got), len(want))
	}
}

func TestLayerCacheOversize(t *testing.T) {
	c := testCache(t)
	c.add(map[image.ID][]image.DiffID{number(1): layersFrom(1, 1)})
	if err := os.Truncate(c.path, maxLayerCache+1); err != nil {
		t.Fatal(err)
	}
	want := map[image.ID][]image.DiffID{number(2): layersFrom(2, 2)}
	c.add(want)
	if got := c.load(); !sameLists(got, want) {
		t.Errorf("after its limit the cache has %d lists", len(got))
	}
}

func TestLayerCacheUnusable(t *testing.T) {
	lists := map[image.ID][]image.DiffID{number(1): layersFrom(1, 1)}
	for what, spoil := range map[string]func(dir string) error{
		"a folder in its place": func(dir string) error { return os.MkdirAll(filepath.Join(dir, "image-layers", "x"), 0o755) },
		"a file as its folder":  func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
		"full of zeros": func(dir string) error {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "image-layers"), make([]byte, 1<<20), 0o600)
		},
	} {
		dir := filepath.Join(t.TempDir(), "cache")
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		c := openLayerCache(dir, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		if got := c.load(); len(got) > 0 {
			t.Errorf("%s: %d lists", what, len(got))
		}
		c.add(lists)
		if !strings.Contains(log.String(), "cannot remember") && what != "full of zeros" {
			t.Errorf("%s: the log has only %q", what, log.String())
		}
	}
	none := openLayerCache("", slog.New(slog.DiscardHandler))
	none.add(lists)
	if got := none.load(); len(got) > 0 {
		t.Errorf("no folder: %d lists", len(got))
	}
}

func TestHeld(t *testing.T) {
	hex := func(layers ...[]image.DiffID) (s []string) {
		for _, l := range slices.Concat(layers...) {
			s = append(s, l.String())
		}
		return s
	}
	f := &fake{images: map[string]fakeImage{
		number(1).String(): {layers: hex(layersFrom(1, 2))},
		number(2).String(): {layers: hex(layersFrom(1, 3), layersFrom(50, 2))},
		number(3).String(): {layers: hex(layersFrom(4, 3))}, // above what it lacks: counts for nothing
		number(4).String(): {layers: nil},
		number(5).String(): {layers: []string{"md5:abc"}},
		"strange":          {layers: hex(layersFrom(1, 6))},
		number(6).String(): {layers: hex(layersFrom(1, 2*image.MaxLayers))}, // no image that could be pulled
	}}
	url, dir := f.start(t), t.TempDir()
	for round := range 2 {
		c, err := Connect(t.Context(), Options{URL: url, CacheDir: dir, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		f.inspects.Store(0)
		for _, want := range []struct {
			layers []image.DiffID
			held   int
			below  []image.ID
		}{
			{nil, 0, nil},
			{layersFrom(1, 1), 1, nil},
			{layersFrom(1, 2), 2, []image.ID{number(1)}},
			{layersFrom(1, 6), 3, []image.ID{number(1)}},
			{layersFrom(2, 6), 0, nil},
			{layersFrom(4, 3), 3, []image.ID{number(3)}},
			{append(layersFrom(1, 3), layersFrom(50, 9)...), 5, []image.ID{number(1), number(2)}},
		} {
			held, below, err := c.Held(t.Context(), want.layers)
			slices.SortFunc(below, func(a, b image.ID) int { return slices.Index(want.below, a) - slices.Index(want.below, b) })
			if err != nil || held != want.held || !slices.Equal(below, want.below) {
				t.Errorf("round %d: %d held, %s below (%v), want %d, %s", round, held, below, err, want.held, want.below)
			}
		}
		n := f.inspects.Load()
		if round == 0 && n < 4 || round == 1 && n > 2*7 { // 5 and 6 are asked about each time
			t.Errorf("round %d: %d images inspected", round, n)
		}
		_ = c.Close()
	}
}

// TestHeldWhileImagesGo: an image that is gone when it is asked about is no error.
func TestHeldWhileImagesGo(t *testing.T) {
	f := &fake{images: map[string]fakeImage{}}
	for i := range 50 {
		f.images[number(i).String()] = fakeImage{layers: []string{number(7).String()}}
	}
	c := f.connect(t)
	list, err := c.layerLists(t.Context(), append(layersFrom(0, 50), layersFrom(500, 50)...))
	if err != nil || len(list) != 50 {
		t.Errorf("%d lists, error %v", len(list), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := c.Held(ctx, layersFrom(7, 1)); err == nil {
		t.Error("no error although cancelled")
	}
}
