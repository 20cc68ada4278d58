package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

func compareAll(t testing.TB, from remote.Source, a, b string, o Options) *Comparison {
	t.Helper()
	c, err := Compare(t.Context(), from, reference(t, a), reference(t, b), true, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCompare: a comparison says what a pull fetches, and which file it is for.
func TestCompare(t *testing.T) {
	w := newDeltaWorld(t)
	c := compareAll(t, w.remote, "much:1", "much:2", w.o)
	if c.FromID.String() != w.one.ID() || c.ToID.String() != w.two.ID() || c.Shared != 1 || len(c.Layers) != 1 {
		t.Fatalf("%+v", c)
	}
	l := c.Layers[0]
	if l.Files != releaseFiles || l.Changed != 1 || !slices.Equal(l.Names, []string{"srv/app/017"}) || l.MoreNames != 0 || l.Whole != "" {
		t.Errorf("%+v", l)
	}
	if c.Fetch != l.Fetch || c.Stored != w.stored(t, layerOf(w.two)) || c.Size != int64(len(layerOf(w.two).Bytes())) {
		t.Errorf("%+v", c)
	}
	pulled := w.pull(t)
	if l.Local != pulled.Local || l.Fetch < pulled.Fetched || l.Fetch > pulled.Fetched*5/4 {
		t.Errorf("%+v, and a pull: %+v", l, pulled)
	}
	counted, err := Compare(t.Context(), w.remote, reference(t, "much:1"), reference(t, "much:2"), false, w.o)
	if err != nil || counted.Layers[0].Files != releaseFiles || counted.Layers[0].Changed != 1 || counted.Layers[0].Names != nil {
		t.Errorf("without names: %+v, %v", counted, err)
	}
	if c := compareAll(t, w.remote, "much:1", "much:2", Options{leastDelta: c.Stored + 1}); c.Fetch != c.Stored || c.Layers[0].Whole == "" || c.Layers[0].Changed != 1 {
		t.Errorf("a small layer: %+v", c)
	}
	// Of what is the same no layer is looked into.
	clear(w.store.read)
	if c := compareAll(t, w.remote, "much:1", "much:1", w.o); c.Shared != 2 || c.Fetch != 0 || c.Layers == nil {
		t.Errorf("the same: %+v", c)
	}
	for key, n := range w.store.read {
		if strings.Contains(key, "layer.tar") {
			t.Errorf("%d bytes of %s were read", n, key)
		}
	}
}

// TestCompareCountsIndexesOnce: two layers that take from one read its index once.
func TestCompareCountsIndexesOnce(t *testing.T) {
	w := newDeltaWorld(t)
	fourth := release(firstRelease.Add(time.Hour), 3)
	half := enginetest.NewImage().Tag("much:3").Layer(fourth[:releaseFiles/2]...).Layer(fourth[releaseFiles/2:]...)
	mustPush(t, newClassic(half).connect(t), w.remote, "much:3")
	clear(w.store.read)
	c := compareAll(t, w.remote, "much:1", "much:3", w.o)
	table := w.store.of(layerOf(w.one))
	var alone int64
	for i := range half.Layers() {
		name := fmt.Sprintf("alone:%d", i)
		one := enginetest.NewImage().Tag(name).Add(half.Layers()[i])
		mustPush(t, newClassic(one).connect(t), w.remote, name)
		alone += compareAll(t, w.remote, "much:1", name, w.o).Fetch
	}
	if len(c.Layers) != 2 || c.Shared != 0 || table == 0 || c.Fetch != alone-table {
		t.Errorf("%d are fetched, and %d of the two alone; the index has %d: %+v", c.Fetch, alone, table, c)
	}
}

// TestCompareGoesWithout: a layer with no index, or a damaged one, is fetched whole, and it is told why. One that cannot
// be read is a failure: nobody knows what is in it.
func TestCompareGoesWithout(t *testing.T) {
	damage := func(from int) func(b []byte) []byte {
		return func(b []byte) []byte { b = bytes.Clone(b); b[len(b)-from] ^= 0xff; return b }
	}
	for name, test := range map[string]struct {
		edit func(b []byte) []byte
		why  string
	}{
		"no index":             {damage(32), "`dogestry index`"},
		"a damaged table":      {damage(60), "index is damaged"},
		"an index of no sense": {damage(32 - 17), "index is damaged"},
	} {
		w := newDeltaWorld(t)
		w.edit(t, layerOf(w.two), test.edit)
		c := compareAll(t, w.remote, "much:1", "much:2", w.o)
		if l := c.Layers[0]; !strings.Contains(l.Whole, test.why) || l.Fetch != l.Stored || c.Fetch != c.Stored {
			t.Errorf("%s: %+v", name, c)
		}
		w = newDeltaWorld(t)
		w.edit(t, layerOf(w.one), test.edit)
		if c := compareAll(t, w.remote, "much:1", "much:2", w.o); c.Layers[0].Whole == "" || c.Layers[0].Local != 0 || c.Layers[0].Changed != releaseFiles {
			t.Errorf("%s, of the other: %+v", name, c)
		}
	}
	// An index of another layer.
	w := newDeltaWorld(t)
	short := enginetest.NewImage().Tag("short:1").Layer(release(firstRelease)[:40]...)
	mustPush(t, newClassic(short).connect(t), w.remote, "short:1")
	w.edit(t, layerOf(short), func(foreign []byte) []byte {
		w.edit(t, layerOf(w.two), func([]byte) []byte { return foreign })
		return foreign
	})
	if c := compareAll(t, w.remote, "much:1", "much:2", w.o); !strings.Contains(c.Layers[0].Whole, "damaged") {
		t.Errorf("an index of another layer: %+v", c)
	}
	// Parts cannot be had.
	w = newDeltaWorld(t)
	if c := compareAll(t, plainSource{w.remote, w.remote}, "much:1", "much:2", w.o); !strings.Contains(c.Layers[0].Whole, "parts of it cannot be had") || c.Fetch != c.Stored {
		t.Errorf("without parts: %+v", c)
	}
	// The bucket fails.
	for _, l := range []*enginetest.Layer{layerOf(w.one), layerOf(w.two)} {
		broken := errors.New("the bucket is on fire")
		w.store.get = func(key string, _, _ int64) error {
			if key == fileOf(l) {
				return broken
			}
			return nil
		}
		if _, err := Compare(t.Context(), w.remote, reference(t, "much:1"), reference(t, "much:2"), true, w.o); !errors.Is(err, broken) {
			t.Errorf("a layer cannot be read: %v", err)
		}
	}
}

// TestCompareNames: files of a layer whose index cannot name them are counted.
func TestCompareNames(t *testing.T) {
	w := newDeltaWorld(t)
	w.edit(t, layerOf(w.two), func(b []byte) []byte {
		b = bytes.Clone(b)
		payload := int(binary.LittleEndian.Uint32(b[len(b)-8:]))
		b[len(b)-payload+20] ^= 0xff // literals
		return b
	})
	if l := compareAll(t, w.remote, "much:1", "much:2", w.o).Layers[0]; l.Files != releaseFiles || l.Changed != 1 || l.MoreNames != 1 || l.Names != nil {
		t.Errorf("damaged literals: %+v", l)
	}
	w = newDeltaWorld(t)
	source := w.remote
	id, layers, err := layersOf(t.Context(), source, reference(t, "much:2"), Options{}.withDefaults())
	if err != nil || id.String() != w.two.ID() || len(layers) != 2 {
		t.Fatal(err)
	}
	left := len("srv/app/000") * 10
	if err := layers[1].readIndex(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	l, err := layers[1].compare(t.Context(), nil, true, &left, Options{}.withDefaults())
	if err != nil || len(l.Names) != 10 || l.MoreNames != releaseFiles-10 || l.Changed != releaseFiles {
		t.Errorf("too many names: %+v, %v", l, err)
	}
}

// TestComparePlatforms: of indexes what was asked for, or all that is there.
func TestComparePlatforms(t *testing.T) {
	s := &stock{store: mem.New()}
	s.Repo = remoteOn(t, s.store, codec.LZ4)
	var l enginetest.Layout
	for i, name := range []string{"much:1", "much:2"} {
		var nodes []enginetest.Node
		for arch, file := range map[string]int{"amd64": 1, "arm64": 2} {
			entries := release(firstRelease.Add(time.Duration(i)*time.Hour), file, 10)
			node := l.Image(enginetest.NewImage().Layer(entries...)).For("linux", arch)
			nodes = append(nodes, node)
		}
		s.node(t, &l, l.Index(nodes...), name, nodes[0].Digest, nodes[1].Digest)
	}
	o := Options{leastDelta: 1}
	both := compareAll(t, s, "much:1", "much:2", o)
	o.Platform = image.Platform{OS: "linux", Architecture: "arm64"}
	arm := compareAll(t, s, "much:1", "much:2", o)
	if len(both.Layers) != 2 || both.Layers[0].Changed != 2 || len(arm.Layers) != 1 || !slices.Equal(arm.Layers[0].Names, []string{"srv/app/002", "srv/app/010"}) {
		t.Errorf("both: %+v, one: %+v", both, arm)
	}
	o.Platform.Architecture = "riscv64"
	if _, err := Compare(t.Context(), s, reference(t, "much:1"), reference(t, "much:2"), true, o); !fault.Is(err, fault.NotFound) {
		t.Errorf("a platform that is not there: %v", err)
	}
}

// TestCompareBlobs: layers that are there compressed by others are known by their diffIDs, and have no index.
func TestCompareBlobs(t *testing.T) {
	s := newStock(t)
	o := Options{leastDelta: 1}
	for _, way := range [][2]string{{"aliased:1", blobbed}, {blobbed, "aliased:1"}} {
		c := compareAll(t, s, way[0], way[1], o)
		if c.Shared != 2 || len(c.Layers) != map[string]int{blobbed: 1, "aliased:1": 0}[way[1]] {
			t.Errorf("%s, %s: %+v", way[0], way[1], c)
		}
	}
	if c := compareAll(t, s, "app:1", blobbed, o); len(c.Layers) != 3 || !strings.Contains(c.Layers[0].Whole, "--recompress") {
		t.Errorf("%+v", c)
	}
	if c := compareAll(t, s, "app:1", blobbed, Options{}); c.Layers[0].Whole != whySmall {
		t.Errorf("%+v", c)
	}
	// A layer that an image has twice is one.
	if c := compareAll(t, s, "app:1", "app:2", o); c.Shared != 1 || len(c.Layers) != 1 {
		t.Errorf("%+v", c)
	}
}

// TestCompareIsInterrupted: an interrupt ends it, wherever that comes.
func TestCompareIsInterrupted(t *testing.T) {
	w := newDeltaWorld(t)
	var reads atomic.Int64
	w.store.get = func(string, int64, int64) error { reads.Add(1); return nil }
	compare := func(ctx context.Context) error {
		_, err := Compare(ctx, w.remote, reference(t, "much:1"), reference(t, "much:2"), true, w.o)
		return err
	}
	if err := compare(t.Context()); err != nil || reads.Load() < 8 {
		t.Fatalf("%d reads, %v", reads.Load(), err)
	}
	all := reads.Load()
	for at := int64(1); at <= all; at++ {
		ctx, cancel := context.WithCancel(t.Context())
		reads.Store(0)
		w.store.get = func(string, int64, int64) error {
			if reads.Add(1) >= at {
				cancel()
				return ctx.Err()
			}
			return nil
		}
		if err := compare(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("at read %d of %d: %v", at, all, err)
		}
		cancel()
	}
}

// TestCompareRegistry: of a registry the layers are compared that lie in zstd, by their diffIDs.
func TestCompareRegistry(t *testing.T) {
	w := newRegistryWorld(t, registrytest.Options{})
	c := compareAll(t, w.registry(t), "much:1", "much:2", w.o)
	if len(c.Layers) != 1 || c.Shared != 1 {
		t.Fatalf("%+v", c)
	}
	if l := c.Layers[0]; l.Whole != "" || l.Fetch > l.Stored/2 || !slices.Equal(l.Names, []string{"srv/app/017"}) || l.Digest != digestOf(t, layerOf(w.two)) {
		t.Errorf("%+v", l)
	}
}
