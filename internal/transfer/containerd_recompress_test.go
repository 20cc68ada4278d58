package transfer

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	registryclient "github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// pushAnew pushes with Options.Recompress.
func pushAnew(t *testing.T, from Exporter, to *mem.Store, o Options, names ...string) []Result {
	t.Helper()
	o.Recompress = true
	results, err := Push(t.Context(), from, remoteOn(t, to, codec.LZ4), pushes(t, names...), o)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// ownLayers is an image whose layers no other test has: an engine may be removing those of the last one still.
func ownLayers(t *testing.T, tag string, contents ...string) *enginetest.Image {
	for i := range contents {
		contents[i] += "-" + strings.ReplaceAll(t.Name(), "/", "-")
	}
	return layered(tag, contents...)
}

// TestContainerdRecompress: what an engine has compressed is stored as a classic engine would have pushed it, once, whether
// the engine's own store is read or an export, and comes back under the ID that this has everywhere.
func TestContainerdRecompress(t *testing.T) { eachLook(t, testContainerdRecompress) }

func testContainerdRecompress(t *testing.T, e *enginetest.Engine, client *counted) {
	m := ownLayers(t, "anew", "a", "b", "c")
	var l enginetest.Layout
	one := l.Image(m, enginetest.Gzip, enginetest.Raw, enginetest.Zstd).For("linux", "amd64")
	loadLayout(t, e, &l, l.Index(one, l.Attestation(one, `{"_type":"https://in-toto.io/Statement/v0.1"}`)), "much:anew")
	img, err := client.Inspect(t.Context(), "much:anew")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := client.Stored(img)
	if err != nil {
		t.Fatal(err)
	}
	exports := map[bool]int{true: 0, false: 2}[stored != nil] // for the documents, and for the layers
	to := mem.New()
	if dry := pushAnew(t, client, to, Options{DryRun: true}, "much:anew")[0]; dry.ID.String() != m.ID() || !slices.Equal(digestsOf(dry), m.DiffIDs()) || len(moved(dry)) != 3 || len(keysOf(t, to)) > 0 {
		t.Errorf("dry run: %+v, stored %q", dry, keysOf(t, to))
	}
	client.exports = 0
	for round, moves := range []int{3, 0} {
		r := pushAnew(t, client, to, Options{IfAbsent: true}, "much:anew")[0]
		if r.ID.String() != m.ID() || len(moved(r)) != moves || !slices.Equal(digestsOf(r), m.DiffIDs()) || r.Layers[0].Size != m.Layers()[0].Size() {
			t.Errorf("round %d: %+v", round, r)
		}
		if round == 0 && client.exports != exports {
			t.Errorf("%d exports, want %d", client.exports, exports)
		}
	}
	checkAnew(t, to, "much:anew", m, ".lz4")
	mended := mem.New()
	target := &hooked{Target: remoteOn(t, mended, codec.LZ4)}
	target.beforeTag = func(ctx context.Context, _ image.ID) {
		if target.tagged == 0 {
			must(t, mended.Delete(ctx, "images/"+mustDigest(t, m.DiffIDs()[2]).Hex()+"/json"))
		}
	}
	signs := func(_ context.Context, _ image.Reference, id image.ID) (string, error) { return id.String(), nil }
	if r, err := Push(t.Context(), client, target, pushes(t, "much:anew"), Options{Recompress: true, Sign: signs}); err != nil || target.tagged != 2 || r[0].SignedBy != m.ID() {
		t.Errorf("tagged %d times: %+v, error %v", target.tagged, r, err)
	}
	checkAnew(t, mended, "much:anew", m, ".lz4")
	registry := registryAt(t, registrytest.Start(t, registrytest.Options{}).Host, "", registryclient.Zstd)
	if _, err := Push(t.Context(), client, registry, pushes(t, "much:anew"), Options{Recompress: true}); err != nil {
		t.Fatal(err)
	}
	allZstd(t, registry, "much:anew")

	kept, told := mem.New(), &noted{} // where they are compressed already
	if _, err := Push(t.Context(), client, remoteOn(t, kept, codec.LZ4), pushes(t, "much:anew"), Options{}); err != nil {
		t.Fatal(err)
	}
	pushAnew(t, client, kept, Options{Progress: told}, "much:anew")
	if len(told.notes) != 1 || !strings.Contains(told.notes[0], ": 2 layers, ") {
		t.Errorf("it tells %q", told.notes)
	}

	removeAll(t, e, "much:anew")
	id := mustPull(t, remoteOn(t, to, codec.LZ4), client, "much:anew")[0].ID
	again := mem.New()
	if r := mustPush(t, client, remoteOn(t, again, codec.LZ4), "much:anew")[0]; r.ID != id {
		t.Errorf("pulled %s, and pushed %s", id, r.ID)
	}
	checkWhole(t, remoteOn(t, again, codec.LZ4), "much:anew", m)
	if r := pushAnew(t, client, again, Options{}, "much:anew")[0]; r.ID != id || len(moved(r)) > 0 {
		t.Errorf("an image of tars is not what it was: %+v", r)
	}
}

// TestContainerdTwoNames: one export serves both names of an image, and the second mends what vanishes as the first would.
func TestContainerdTwoNames(t *testing.T) {
	eachLook(t, func(t *testing.T, e *enginetest.Engine, client *counted) {
		m := ownLayers(t, "twice", "a")
		var l enginetest.Layout
		n := l.Image(m, enginetest.Gzip)
		loadLayout(t, e, &l, n, "much:twice")
		stored := path.Base(t.Name()) == string(engine.StoreAuto) && os.Geteuid() == 0
		for recompress, exports := range map[bool]int{false: 1, true: 2} { // there for the documents, too
			if stored {
				exports = 0
			}
			client.exports = 0
			images := append(pushes(t, "much:twice"), PushImage{Source: "much:twice", Target: reference(t, "other:twice")})
			results, err := Push(t.Context(), client, remoteOn(t, mem.New(), codec.LZ4), images, Options{Recompress: recompress})
			if err != nil || client.exports != exports || results[0].ID != results[1].ID || len(moved(results[0])) != 1 || len(moved(results[1])) != 0 || len(results[1].Layers) != 1 {
				t.Errorf("%t: %d exports, want %d: %+v, error %v", recompress, client.exports, exports, results, err)
			}
			client.exports = 0
			lost, to := map[bool]string{false: n.Blobs[0], true: m.DiffIDs()[0]}[recompress], mem.New()
			target := &hooked{Target: remoteOn(t, to, codec.LZ4)}
			target.beforeTag = func(ctx context.Context, _ image.ID) {
				if target.tagged == 1 { // the first is there
					must(t, to.Delete(ctx, "images/"+mustDigest(t, lost).Hex()+"/json"))
				}
			}
			if _, err := Push(t.Context(), client, target, images, Options{Recompress: recompress}); err != nil || target.tagged != 3 || stored && client.exports > 0 {
				t.Errorf("%t, mended: tagged %d times by %d exports, error %v", recompress, target.tagged, client.exports, err)
			}
			checkWhole(t, remoteOn(t, to, codec.LZ4), "other:twice", m)
		}
	})
}

// TestContainerdRecompressPlatforms: which of several platforms is stored has to be said.
func TestContainerdRecompressPlatforms(t *testing.T) {
	eachLook(t, func(t *testing.T, e *enginetest.Engine, client *counted) {
		amd64, arm64 := ownLayers(t, "several", "amd64"), ownLayers(t, "several", "arm64")
		var l enginetest.Layout
		loadLayout(t, e, &l, l.Index(l.Image(amd64, enginetest.Gzip).For("linux", "amd64"), l.Image(arm64, enginetest.Gzip).For("linux", "arm64")), "much:several")
		to := mem.New()
		_, err := Push(t.Context(), client, remoteOn(t, to, codec.LZ4), pushes(t, "much:several"), Options{Recompress: true})
		if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), "much:several") || len(objects(t, to)) > 0 {
			t.Errorf("error %v, stored %q", err, keysOf(t, to))
		}
		pushAnew(t, client, to, Options{Platform: image.Platform{OS: "linux", Architecture: "arm64"}}, "much:several")
		checkAnew(t, to, "much:several", arm64, ".lz4")
	})
}

// TestContainerdRecompressDamaged: of a layer that the engine has damaged nothing is stored.
func TestContainerdRecompressDamaged(t *testing.T) {
	eachLook(t, func(t *testing.T, e *enginetest.Engine, client *counted) {
		m := ownLayers(t, "damaged", "damaged")
		var l enginetest.Layout
		n := l.Image(m, enginetest.Gzip)
		loadLayout(t, e, &l, n, "much:damaged")
		blob := filepath.Join(e.DataRoot(), "containerd/daemon/io.containerd.content.v1.content/blobs/sha256", strings.TrimPrefix(n.Blobs[0], "sha256:"))
		if _, err := os.Stat(blob); err != nil {
			t.Fatal(err)
		}
		if err := flipByte(blob); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = flipByte(blob) }()
		to := mem.New()
		_, err := Push(t.Context(), client, remoteOn(t, to, codec.LZ4), pushes(t, "much:damaged"), Options{Recompress: true})
		what := "layer " + mustDigest(t, n.Blobs[0]).Short()
		if path.Base(t.Name()) == string(engine.StoreOff) {
			what = "lacks the document" // an export ends with what the engine finds damaged
		}
		if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), "much:damaged") || !strings.Contains(err.Error(), what) {
			t.Errorf("error %v, want %q", err, what)
		}
		if keys := keysOf(t, to); len(layerKeys(keys)) > 0 || len(tagsOf(t, remoteOn(t, to, codec.LZ4))) > 0 {
			t.Errorf("stored %q", keys)
		}
	})
}

// TestContainerdRecompressDelta: of the second of two releases that an engine has built in gzip, another engine of its kind
// fetches what has changed.
func TestContainerdRecompressDelta(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root reads the engine's own directory")
	}
	enginetest.EachContainerd(t, func(t *testing.T, e *enginetest.Engine) {
		client := connectWith(t, engine.Options{URL: e.Host, Store: engine.StoreAuto})
		one, two := releases()
		var l enginetest.Layout
		loadLayout(t, e, &l, l.Image(one, enginetest.Gzip), "much:1")
		loadLayout(t, e, &l, l.Image(two, enginetest.Gzip), "much:2")
		dir, err := file.Create(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = dir.Close() })
		store := &watchedStore{Store: dir, read: map[string]int64{}}
		r := remoteOn(t, store, codec.LZ4)
		if _, err := Push(t.Context(), client, r, pushes(t, "much:1", "much:2"), Options{Recompress: true}); err != nil {
			t.Fatal(err)
		}
		removeAll(t, e, "much:1")
		removeAll(t, e, "much:2")
		mustPull(t, r, client, "much:1")
		clear(store.read)
		results, err := Pull(t.Context(), r, client, pulls(t, "much:2"), Options{Delta: DeltaAlways, leastDelta: 1})
		if err != nil {
			t.Fatal(err)
		}
		got := results[0].Layers[1]
		if read := store.of(layerOf(two)); got.Local < releaseFiles*releaseSize*8/10 || read > got.Stored/6 || got.Fetched < read {
			t.Errorf("%+v, and %d bytes of it were read", got, read)
		}
	})
}
