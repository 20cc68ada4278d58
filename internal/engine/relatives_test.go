package engine

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
)

// rootOfNothing is a data root in which a classic engine has kept layers.
func rootOfNothing(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "image", "overlay2", "layerdb", "sha256"), 0o700); err != nil {
		t.Fatal(err)
	}
	return root
}

func digestsOf(layers []Relative) []image.Digest {
	var all []image.Digest
	for _, l := range layers {
		all = append(all, l.Digest)
	}
	return all
}

func TestRelativesInOrder(t *testing.T) {
	img := func(created int64, name string, numbers ...int) fakeImage {
		i := fakeImage{created: created}
		for _, n := range numbers {
			i.layers = append(i.layers, number(n).String())
		}
		switch {
		case strings.Contains(name, "@"):
			i.digests = []string{name}
		case name != "":
			i.tags = []string{"first/name:1", name}
		}
		return i
	}
	f := &fake{images: map[string]fakeImage{
		number(100).String(): img(50, "app:1", 1, 2, 3),
		number(101).String(): img(60, "app:2", 1, 2, 4),
		number(102).String(): img(40, "app@"+number(102).String(), 1, 5),
		number(103).String(): img(99, "application:2", 6, 4),
		number(104).String(): img(98, "", 7),
		number(105).String(): img(97, "localhost:5000/app:2", 8, 1),
		number(106).String(): img(1, "port:5000/app:1", 9),
		"strange":            img(99, "app:3", 10),
	}}
	url := f.start(t)
	for _, test := range []struct {
		name  string
		root  string
		use   StoreUse
		names []image.Reference
		known []image.DiffID
		want  []int
	}{
		{name: "one name", root: rootOfNothing(t), names: []image.Reference{{Repository: "app", Tag: "3"}}, want: []int{1, 2, 4, 3, 5, 6, 7, 8, 9}},
		{name: "known layers are last", root: rootOfNothing(t), names: []image.Reference{{Repository: "app"}}, known: []image.DiffID{number(1), number(4), number(11)}, want: []int{2, 3, 5, 6, 7, 8, 9, 1, 4}},
		{name: "two names", root: rootOfNothing(t), names: []image.Reference{{Repository: "port:5000/app"}, {Repository: "localhost:5000/app"}}, want: []int{8, 1, 9, 6, 4, 7, 2, 3, 5}},
		{name: "no name", root: rootOfNothing(t), want: []int{6, 4, 7, 8, 1, 2, 3, 5, 9}},
		{name: "turned off", root: rootOfNothing(t), use: StoreOff},
		{name: "nothing there", root: t.TempDir()},
	} {
		c, err := Connect(t.Context(), Options{URL: url, DataRoot: test.root, Store: test.use, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Relatives(t.Context(), test.names, test.known)
		var want []image.Digest
		for _, n := range test.want {
			want = append(want, number(n))
		}
		if errors.Is(err, errors.ErrUnsupported) != (test.use == StoreOff) || err != nil && len(want) > 0 || !slices.Equal(digestsOf(got), want) {
			var numbers []int
			for _, d := range digestsOf(got) {
				numbers = append(numbers, slices.Index(layersFrom(0, 20), d))
			}
			t.Errorf("%s: %v, error %v, want %v", test.name, numbers, err, test.want)
		}
		for _, l := range got[:min(1, len(got))] {
			if tar, err := l.Open(t.Context()); err == nil || tar != nil {
				t.Errorf("%s: opens what is not there: %v, %v", test.name, tar, err)
			}
		}
		_ = c.Close()
	}
}

// TestRelativesAreBounded: images that are looked at, and layers.
func TestRelativesAreBounded(t *testing.T) {
	f := &fake{images: map[string]fakeImage{}}
	for i := range 3 * maxKin {
		var layers []string
		for _, l := range layersFrom(10*i, 10) {
			layers = append(layers, l.String())
		}
		f.images[number(10000+i).String()] = fakeImage{layers: layers, created: int64(i), tags: []string{fmt.Sprintf("app:%d", i)}}
	}
	c, err := Connect(t.Context(), Options{URL: f.start(t), DataRoot: rootOfNothing(t), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := c.Relatives(t.Context(), []image.Reference{{Repository: "app", Tag: "1"}}, layersFrom(10*(3*maxKin-1), 10))
	if err != nil || len(got) != maxRelatives || got[0].Digest != number(10*(3*maxKin-2)) {
		t.Errorf("%d layers, error %v", len(got), err)
	}
	if n := f.inspects.Load(); n != maxKin {
		t.Errorf("%d images were inspected", n)
	}
}

// relativesOf are the layers that a private engine has of an image, and where each is read.
func relativesOf(t *testing.T, c *Client, m *enginetest.Image) map[image.Digest]Relative {
	t.Helper()
	name, err := image.ParseReference(m.Tags()[0])
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.Relatives(t.Context(), []image.Reference{name}, nil)
	if err != nil && !(c.kind == Podman && errors.Is(err, errors.ErrUnsupported)) {
		t.Fatal(err)
	}
	all := map[image.Digest]Relative{}
	for _, l := range list {
		all[l.Digest] = l
	}
	return all
}

// TestEngineRelatives: what is read of layers at offsets is what is in their tars.
func TestEngineRelatives(t *testing.T) {
	everyEngine(t, func(t *testing.T, e *enginetest.Engine, c *Client) {
		enginetest.NeedPrivate(t, e.Private())
		for _, name := range []string{
			"hard-links", "whiteouts", "odd-metadata", "long-names", "odd-names", "empty-layers", "same-layer-twice", "padded-tar", "sparse", "no-layers",
		} {
			if c.kind == Podman && name != "hard-links" {
				break // none of its layers are read
			}
			t.Run(name, func(t *testing.T) { testEngineRelatives(t, e, c, enginetest.TroubleNamed(name).Image) })
		}
	})
}

func testEngineRelatives(t *testing.T, e *enginetest.Engine, c *Client, m *enginetest.Image) {
	a := archiveOf(t, m, 0)
	if err := load(t.Context(), c, a, same); err != nil {
		t.Fatal(err)
	}
	defer removeNamed(t, e, c.idOf(a).String())
	name, err := image.ParseReference(m.Tags()[0])
	if err == nil {
		err = c.Tag(t.Context(), c.idOf(a), name)
	}
	if err != nil {
		t.Fatal(err)
	}
	relatives := relativesOf(t, c, m)
	if c.kind == Podman {
		if len(relatives) > 0 {
			t.Errorf("%d layers of Podman", len(relatives))
		}
		return
	}
	for _, l := range m.Layers() {
		relative, ok := relatives[mustDigest(t, l.DiffID())]
		if !ok || relative.Size >= 0 && relative.Size != l.Size() {
			t.Errorf("layer %.20s is not found, or of %d bytes", l.DiffID(), relative.Size)
			continue
		}
		at, err := relative.Open(t.Context())
		if want := l.Bytes(); c.kind == Containerd && bytes.Trim(want, "\x00") == nil {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("an empty tar: error %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		switch got := make([]byte, at.Size()); {
		case c.kind == Containerd:
			if _, err := at.ReadAt(got, 0); !bytes.Equal(got, l.Bytes()) || err != nil && err != io.EOF {
				t.Errorf("the tar has other bytes, error %v", err)
			}
		case strings.HasSuffix(t.Name(), "/sparse"): // the engine keeps the file expanded, and forgot how it was
			if _, err := at.ReadAt(got, 0); err == nil {
				t.Error("a sparse file is as in the tar")
			}
		case at.Size() != l.Size():
			t.Errorf("a tar of %d bytes, want %d", at.Size(), l.Size())
		default:
			sameContents(t, at, l.Bytes())
		}
		if err := at.Close(); err != nil {
			t.Error(err)
		}
	}
}

// sameContents compares the content of each file of a layer.
func sameContents(t *testing.T, at io.ReaderAt, layer []byte) {
	t.Helper()
	from := bytes.NewReader(layer)
	files := tar.NewReader(from)
	for {
		h, err := files.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		start := from.Size() - int64(from.Len())
		for _, cut := range []int64{0, h.Size / 2} {
			want := layer[start+cut : start+h.Size]
			got := make([]byte, len(want))
			if n, err := at.ReadAt(got, start+cut); n < len(want) || err != nil && err != io.EOF || !bytes.Equal(got, want) {
				t.Errorf("%.50q from %d: %d bytes of %d, error %v", h.Name, cut, n, len(want), err)
			}
		}
	}
}

// TestEngineRelativesGo: a layer that is deleted while it is read gives an error, or what it had.
func TestEngineRelativesGo(t *testing.T) {
	everyEngine(t, func(t *testing.T, e *enginetest.Engine, c *Client) {
		enginetest.NeedPrivate(t, e.Private())
		if c.kind == Podman {
			return // none are read: TestEngineRelatives
		}
		m := enginetest.NewImage().Layer(enginetest.File("first", 0o644, "much"), enginetest.File("second", 0o644, t.Name()))
		m.Tag(enginetest.Repository + "/relatives-go:1")
		a := archiveOf(t, m, 0)
		if err := load(t.Context(), c, a, same); err != nil {
			t.Fatal(err)
		}
		found, ok := relativesOf(t, c, m)[a.Send[0].Digest]
		if !ok {
			t.Fatal("the layer is not found")
		}
		at, err := found.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer at.Close()
		p := make([]byte, 4)
		if n, err := at.ReadAt(p, 512); string(p[:n]) != "much" || err != nil {
			t.Fatalf("%q, error %v", p[:n], err)
		}
		removeNamed(t, e, c.idOf(a).String())
		p = make([]byte, len(t.Name()))
		n, err := at.ReadAt(p, 3*512)
		switch {
		case c.kind == Classic && (n > 0 || !errors.Is(err, os.ErrNotExist)):
			t.Errorf("behind its end: %q, error %v", p[:n], err)
		case c.kind == Containerd && (string(p[:n]) != t.Name() || err != nil): // one file, which is open
			t.Errorf("behind its end: %q, error %v", p[:n], err)
		}
		if again, err := found.Open(t.Context()); err == nil {
			_ = again.Close()
			t.Error("what is gone is opened")
		}
	})
}

// TestEngineRelativesCompressed: of a containerd image store's layers those that are plain tars.
func TestEngineRelativesCompressed(t *testing.T) {
	enginetest.EachContainerd(t, func(t *testing.T, e *enginetest.Engine) {
		c := connect(t, e.Host)
		layer := func(s string) *enginetest.Layer { return enginetest.NewLayer(enginetest.File(s, 0o644, t.Name()+s)) }
		other := enginetest.NewImage().Add(layer("other")).Tag(enginetest.Repository + "/relatives-other:1")
		loadNamed(t, e, c, other)
		defer removeNamed(t, e, other.Tags()[0])
		m := enginetest.NewImage().Add(layer("gzip"), layer("raw")).Tag("relatives-mixed:1") // as Archive names it, without a slash
		l := &enginetest.Layout{}
		p := c.Platform()
		root := l.Index(l.Image(m, enginetest.Gzip, enginetest.Raw).For(p.OS, p.Architecture))
		if err := e.LoadArchive(t.Context(), bytes.NewReader(l.Archive(root, m.Tags()[0]))); err != nil {
			t.Fatal(err)
		}
		defer removeNamed(t, e, m.Tags()[0])
		name := image.Reference{Repository: "relatives-mixed", Tag: "2"}
		raw := mustDigest(t, m.DiffIDs()[1])
		got, err := c.Relatives(t.Context(), []image.Reference{name}, nil)
		if err != nil || !slices.Equal(digestsOf(got), []image.Digest{raw}) {
			t.Errorf("%v, error %v, want the raw layer %s", digestsOf(got), err, raw.Short())
		}
		// Nothing new of this repository: the other images are asked for, too.
		got, err = c.Relatives(t.Context(), []image.Reference{name}, []image.Digest{raw})
		if err != nil || len(got) < 2 || got[len(got)-1].Digest != raw || !slices.Contains(digestsOf(got), mustDigest(t, other.DiffIDs()[0])) {
			t.Errorf("%v, error %v, want the layer of another image, and the raw layer %s at the end", digestsOf(got), err, raw.Short())
		}
	})
}
