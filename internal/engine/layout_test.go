package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
)

// The layouts in which engines export an image. Layers are from the bottom up; extra is what else engines put there.

// blobLayout is that of Docker 25 and later.
func blobLayout(m *enginetest.Image) []entry {
	entries := []entry{{name: "blobs/"}, {name: "blobs/sha256/"}}
	for _, l := range m.Layers() {
		entries = append(entries, entry{name: "blobs/sha256/" + bare(l.DiffID()), body: l.Bytes()})
	}
	stray := strings.Repeat("5a", 32) // small documents that nothing names
	return append(entries,
		entry{name: "blobs/sha256/" + stray, body: []byte(`{"stray":true}`)},
		entry{name: "blobs/sha256/" + bare(m.ID()), body: m.Config()},
		entry{name: "index.json", body: []byte(`{}`)},
		entry{name: "manifest.json", body: []byte(`[]`)},
		entry{name: "oci-layout", body: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		entry{name: "repositories", body: []byte(`{}`)},
	)
}

// podmanLayout has layers by diffID, and links by v1 ID behind them.
func podmanLayout(m *enginetest.Image) []entry {
	var entries, links []entry
	for i, l := range m.Layers() {
		name := bare(l.DiffID()) + ".tar"
		entries = append(entries, entry{name: name, body: l.Bytes()})
		v1 := unknownDir(i)
		links = append(links, entry{name: v1 + "/VERSION", body: []byte("1.0")},
			entry{name: v1 + "/layer.tar", link: "../" + name}, entry{name: v1 + "/json", body: []byte("{}")})
	}
	entries = append(entries, entry{name: bare(m.ID()) + ".json", body: m.Config()})
	return append(append(entries, links...), entry{name: "manifest.json", body: []byte(`[]`)})
}

// v1Layout has layers below v1 IDs, as up to Docker 24; a layer that occurs again is a link. With known false the IDs
// are such that nothing tells which layer they stand for.
func v1Layout(m *enginetest.Image, known bool) []entry {
	var entries []entry
	first := map[string]string{}
	parent, chain := "", ""
	for i, l := range m.Layers() {
		if i == 0 {
			chain = l.DiffID()
		} else {
			chain = "sha256:" + sum(chain+" "+l.DiffID())
		}
		dir, doc := v1ID(chain, parent)
		if !known {
			dir = unknownDir(i)
		}
		parent = dir
		layer := entry{name: dir + "/layer.tar", body: l.Bytes()}
		if at, again := first[l.DiffID()]; again {
			layer = entry{name: layer.name, link: "../" + at + "/layer.tar"}
		} else {
			first[l.DiffID()] = dir
		}
		entries = append(entries, entry{name: dir + "/"}, entry{name: dir + "/VERSION", body: []byte("1.0")},
			entry{name: dir + "/json", body: doc}, layer)
	}
	return append(entries, entry{name: bare(m.ID()) + ".json", body: m.Config()}, entry{name: "manifest.json", body: []byte(`[]`)})
}

// v1ID makes an ID as docs/decisions/0003 says, and the json that goes with it.
func v1ID(chain, parent string) (id string, doc []byte) {
	object := map[string]any{"created": "1970-01-01T00:00:00Z", "container_config": map[string]any{"Cmd": nil}, "layer_id": chain}
	if parent != "" {
		object["parent"] = "sha256:" + parent
	}
	b, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	id = sum(string(b))
	delete(object, "layer_id")
	object["id"], object["os"] = id, "linux"
	if parent != "" {
		object["parent"] = parent
	}
	if doc, err = json.Marshal(object); err != nil {
		panic(err)
	}
	return id, doc
}

func unknownDir(i int) string { return fmt.Sprintf("%064x", 0xd06e0000+i) }

func bare(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

func sum(s string) string {
	h := sha256.New()
	h.Write([]byte(s))
	return hex.EncodeToString(h.Sum(nil))
}

func TestExportLayouts(t *testing.T) {
	for _, m := range []*enginetest.Image{
		threeLayers(), enginetest.TroubleNamed("same-layer-twice").Image, enginetest.TroubleNamed("empty-layers").Image,
	} {
		name := m.Tags()[0]
		for layout, c := range map[string]struct {
			entries []entry
			passes  int32
		}{
			"blobs":      {blobLayout(m), 1},
			"podman":     {podmanLayout(m), 1},
			"v1":         {v1Layout(m, true), 1},
			"v1 unknown": {v1Layout(m, false), 2},
		} {
			t.Run(name+" "+layout, func(t *testing.T) {
				f := &fake{export: gives(tarOf(t, c.entries...))}
				got, err := walk(f.connect(t).Export(t.Context(), described(t, m)))
				if err != nil {
					t.Fatal(err)
				}
				got.check(t, m)
				if n := f.exports.Load(); n != c.passes {
					t.Errorf("the engine was asked %d times, want %d", n, c.passes)
				}
			})
		}
	}
}

// TestExportLearnsWhatItCannotTell mixes names that can be told with one that cannot: it is hashed, and comes in a
// second pass. Nothing that is no layer of the image is ever given out.
func TestExportLearnsWhatItCannotTell(t *testing.T) {
	m := threeLayers()
	entries := v1Layout(m, true)
	strange := enginetest.NewLayer(enginetest.File("strange", 0o644, "of no image")).Bytes()
	for i := range entries {
		if strings.HasSuffix(entries[i].name, "/json") && string(entries[i].body) != "" && i > 5 && i < 9 {
			entries[i].body = []byte("{}") // the middle layer's
		}
	}
	entries = append([]entry{{name: unknownDir(7) + "/layer.tar", body: strange}}, entries...)
	f := &fake{export: gives(tarOf(t, entries...))}
	got, err := walk(f.connect(t).Export(t.Context(), described(t, m)))
	if err != nil {
		t.Fatal(err)
	}
	got.check(t, m)
	if n := f.exports.Load(); n != 2 {
		t.Errorf("the engine was asked %d times, want 2", n)
	}
}

// TestExportOfAnotherImage: nothing is taken from it, and it is not read for ever.
func TestExportOfAnotherImage(t *testing.T) {
	other := enginetest.TroubleNamed("whiteouts").Image
	for _, entries := range [][]entry{blobLayout(other), podmanLayout(other), v1Layout(other, true), v1Layout(other, false), nil} {
		f := &fake{export: gives(tarOf(t, entries...))}
		got, err := walk(f.connect(t).Export(t.Context(), described(t, threeLayers())))
		if err != nil || got.config != nil || len(got.layers) > 0 {
			t.Errorf("config %q, layers %v, error %v", got.config, got.layers, err)
		}
		if n := f.exports.Load(); n != 1 {
			t.Errorf("the engine was asked %d times, want once", n)
		}
	}
}
