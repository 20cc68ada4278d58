package engine

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
)

// sample is what an engine 20.10 exported of an image that it had built itself, without the layers.
type sample struct {
	img  Image
	dirs []string          // v1 IDs from the bottom up
	json map[string][]byte // <v1 ID>/json
}

// readSample reads testdata/v1/<name>. The engine of "kolkata" ran with TZ=Asia/Kolkata, which makes other v1 IDs.
func readSample(t testing.TB, name string) sample {
	t.Helper()
	dir := filepath.Join("testdata", "v1", name)
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	doc := read("config.json")
	config, err := image.ParseConfig(doc)
	if err != nil {
		t.Fatal(err)
	}
	var manifest []struct{ Layers []string }
	if err := json.Unmarshal(read("manifest.json"), &manifest); err != nil {
		t.Fatal(err)
	}
	s := sample{img: Image{ID: image.DigestOf(doc), DiffIDs: config.DiffIDs}, json: map[string][]byte{}}
	for _, layer := range manifest[0].Layers {
		v1 := strings.TrimSuffix(layer, "/layer.tar")
		s.dirs = append(s.dirs, v1)
		s.json[v1] = read(filepath.Join(v1, "json"))
	}
	return s
}

func TestV1NamesArePredicted(t *testing.T) {
	for _, name := range []string{"utc", "kolkata"} {
		s := readSample(t, name)
		n := newNames(s.img)
		for _, dir := range s.dirs {
			if kind, _ := n.identify(dir + "/layer.tar"); kind != namedUnknownLayer {
				t.Errorf("%s: %s is known (%d) before its json", name, dir, kind)
			}
			if kind, _ := n.identify(dir + "/json"); kind != namedV1JSON {
				t.Errorf("%s: %s/json is of kind %d", name, dir, kind)
			}
			if err := n.readV1(dir, bytes.NewReader(s.json[dir]), int64(len(s.json[dir]))); err != nil {
				t.Error(err)
			}
		}
		for i, dir := range s.dirs {
			kind, got := n.identify(dir + "/layer.tar")
			if kind != namedLayer || got != s.img.DiffIDs[i] {
				t.Errorf("%s: layer %d of %d is %d, %s, want %s", name, i, len(s.dirs), kind, got, s.img.DiffIDs[i])
			}
		}
	}
}

// TestV1NamesProveThemselves changes a json in ways that would make another sum: no name may come of it.
func TestV1NamesProveThemselves(t *testing.T) {
	s := readSample(t, "utc")
	bottom, middle, top := s.dirs[0], s.dirs[1], s.dirs[2]
	replaced := func(dir, from, to string) []byte {
		changed := bytes.ReplaceAll(s.json[dir], []byte(from), []byte(to))
		if bytes.Equal(changed, s.json[dir]) {
			t.Fatalf("%s/json has no %s", dir, from)
		}
		return changed
	}
	for what, c := range map[string]struct {
		dir string
		doc []byte
	}{
		"wrong parent":          {middle, replaced(middle, bottom, top)},
		"no parent":             {middle, replaced(middle, `"parent"`, `"apparent"`)},
		"parent that is a list": {middle, replaced(middle, `"`+bottom+`"`, `["`+bottom+`"]`)},
		"parent with a quote":   {middle, replaced(middle, bottom, `\",\"x\":\"`)},
		"other time":            {bottom, replaced(bottom, "1970", "1971")},
		"json of another":       {bottom, s.json[middle]},
		"truncated":             {top, s.json[top][:len(s.json[top])-1]},
		"empty":                 {top, nil},
		"null":                  {top, []byte("null")},
		"a list":                {top, []byte("[{}]")},
		"deep":                  {top, []byte(strings.Repeat("[", 1<<19))},
	} {
		n := newNames(s.img)
		if err := n.readV1(c.dir, bytes.NewReader(c.doc), int64(len(c.doc))); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if len(n.layer) > 0 {
			t.Errorf("%s: taken for %v", what, n.layer)
		}
	}
}

func TestV1JSONTooLarge(t *testing.T) {
	s := readSample(t, "utc")
	n := newNames(s.img)
	doc := append(bytes.Clone(s.json[s.dirs[0]]), bytes.Repeat([]byte(" "), maxV1JSON)...)
	r := bytes.NewReader(doc)
	if err := n.readV1(s.dirs[0], r, int64(len(doc))); err != nil || len(n.layer) > 0 || r.Len() != len(doc) {
		t.Errorf("error %v, names %v, %d of %d bytes left", err, n.layer, r.Len(), len(doc))
	}
}

// TestV1SumsAreBounded: large documents and many layers together would take hours.
func TestV1SumsAreBounded(t *testing.T) {
	s := readSample(t, "utc")
	n := newNames(Image{ID: s.img.ID, DiffIDs: layersFrom(0, image.MaxLayers)})
	doc := []byte(`{"os":"linux","x":"` + strings.Repeat("x", 1<<19) + `"}`)
	for range 3 {
		if err := n.readV1(s.dirs[0], bytes.NewReader(doc), int64(len(doc))); err != nil {
			t.Error(err)
		}
	}
	if n.summed > maxV1Sums+10*len(doc) {
		t.Errorf("%d MiB summed", n.summed>>20)
	}
}

func TestIdentify(t *testing.T) {
	m := threeLayers()
	img := described(t, m)
	config, layer := img.ID.Hex(), img.DiffIDs[1].Hex()
	other := strings.Repeat("ab", 32)
	for name, want := range map[string]nameKind{
		"blobs/sha256/" + config:         namedConfig,
		config + ".json":                 namedConfig,
		"blobs/sha256/" + layer:          namedLayer,
		layer + ".tar":                   namedLayer,
		other + "/json":                  namedV1JSON,
		other + "/layer.tar":             namedUnknownLayer,
		"blobs/sha256/" + other:          nameless,
		other + ".tar":                   nameless,
		other + ".json":                  nameless,
		config:                           nameless,
		config + ".tar":                  nameless,
		layer + ".json":                  nameless,
		"x/" + layer + ".tar":            nameless,
		"x/" + config + ".json":          nameless,
		"blobs/sha512/" + layer:          nameless,
		"blobs/sha256/" + layer + ".tar": nameless,
		"blobs/sha256/x/" + layer:        nameless,
		layer + ".tar.gz":                nameless,
		strings.ToUpper(layer) + ".tar":  nameless,
		"x/layer.tar":                    nameless,
		other + "/x/layer.tar":           nameless,
		other + "/VERSION":               nameless,
		"manifest.json":                  nameless,
		"repositories":                   nameless,
		"json":                           nameless,
		"layer.tar":                      nameless,
		".":                              nameless,
		"":                               nameless,
	} {
		if kind, _ := newNames(img).identify(name); kind != want {
			t.Errorf("%q is of kind %d, want %d", name, kind, want)
		}
	}
}

// threeLayers is a small image.
func threeLayers() *enginetest.Image {
	return enginetest.NewImage().Tag("dogestry-test/three:1").
		Layer(enginetest.File("a", 0o644, "bottom")).
		Layer(enginetest.File("b", 0o644, "middle")).
		Layer(enginetest.File("c", 0o644, "top"))
}
