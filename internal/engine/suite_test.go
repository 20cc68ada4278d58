package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// These tests run on each kind of real engine that this machine has.

func eachEngine(t *testing.T, test func(t *testing.T, e *enginetest.Engine, c *Client)) {
	t.Helper()
	enginetest.Each(t, func(t *testing.T, e *enginetest.Engine) { test(t, e, connect(t, e.Host)) })
}

// everyEngine adds those of other kinds, which have other IDs for images, and take other archives.
func everyEngine(t *testing.T, test func(t *testing.T, e *enginetest.Engine, c *Client)) {
	t.Helper()
	eachEngine(t, test)
	for _, each := range []func(*testing.T, func(*testing.T, *enginetest.Engine)){enginetest.EachContainerd, enginetest.EachPodman} {
		each(t, func(t *testing.T, e *enginetest.Engine) { test(t, e, connect(t, e.Host)) })
	}
}

// idOf is what an engine calls the image of an archive.
func (c *Client) idOf(a Archive) image.ID {
	if c.kind == Containerd {
		return a.Root.Digest
	}
	return image.DigestOf(a.Config)
}

// cleanUp removes what a failed load has left: a classic store's must leave nothing.
func cleanUp(t *testing.T, c *Client, a Archive) {
	t.Helper()
	if c.kind == Classic {
		return
	}
	if err := c.RemoveUntagged(t.Context(), c.idOf(a)); err != nil {
		t.Error(err)
	}
}

// loadNamed brings an image into the engine, and returns what the engine says of it.
func loadNamed(t *testing.T, e *enginetest.Engine, c *Client, m *enginetest.Image) Image {
	t.Helper()
	if err := e.LoadImage(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	img, err := c.Inspect(t.Context(), m.Tags()[0])
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// contents is what an engine holds: images, and where we may look, layers and temporary files.
func contents(t *testing.T, e *enginetest.Engine) []string {
	t.Helper()
	out, err := e.Docker(t.Context(), nil, "images", "-a", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Split(strings.TrimSpace(string(out)), "\n")
	if e.Private() {
		for _, dir := range []string{"image/overlay2/layerdb/sha256", "image/overlay2/layerdb/tmp", "image/overlay2/imagedb/content/sha256", "overlay2", "overlay2/l", "tmp"} {
			entries, err := os.ReadDir(filepath.Join(e.DataRoot(), dir))
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			for _, d := range entries {
				list = append(list, dir+"/"+d.Name())
			}
		}
	}
	slices.Sort(list)
	return list
}

// unchanged fails the test unless the engine soon holds what it held before: it may clean up behind its answer.
func unchanged(t *testing.T, e *enginetest.Engine, before []string) {
	t.Helper()
	var now []string
	for range 600 {
		if now = contents(t, e); slices.Equal(now, before) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, s := range now {
		if !slices.Contains(before, s) {
			t.Errorf("left in the engine: %s", s)
		}
	}
	for _, s := range before {
		if !slices.Contains(now, s) {
			t.Errorf("gone from the engine: %s", s)
		}
	}
}

// remove takes an image from a classic store, with all its tags.
func remove(t *testing.T, e *enginetest.Engine, m *enginetest.Image) {
	t.Helper()
	removeNamed(t, e, m.ID())
}

// removeNamed takes an image from the engine, with all its tags.
func removeNamed(t *testing.T, e *enginetest.Engine, name string) {
	t.Helper()
	id, ok, err := e.ImageID(t.Context(), name)
	if err == nil && ok {
		_, err = e.Docker(t.Context(), nil, "rmi", "-f", id)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// archiveOf is an archive with all layers above the lowest held ones.
func archiveOf(t testing.TB, m *enginetest.Image, held int) Archive {
	t.Helper()
	byID := map[image.DiffID]*enginetest.Layer{}
	var all []image.Descriptor
	for _, l := range m.Layers() {
		d := image.Descriptor{Digest: mustDigest(t, l.DiffID()), Size: l.Size()}
		byID[d.Digest] = l
		all = append(all, d)
	}
	manifest := image.SynthesizeManifest(m.Config(), all)
	a := Archive{
		Root:      image.Descriptor{MediaType: image.MediaTypeOf(manifest, ""), Digest: image.DigestOf(manifest), Size: int64(len(manifest))},
		Documents: [][]byte{m.Config(), manifest},
		Config:    m.Config(),
	}
	sent := map[image.DiffID]bool{}
	for _, d := range all[held:] {
		if !sent[d.Digest] {
			sent[d.Digest] = true
			a.Send = append(a.Send, d)
		}
	}
	a.Open = func(d image.Descriptor) (io.ReadCloser, error) { return byID[d.Digest].Open(), nil }
	return a
}

// load sends an archive, whose bytes pass through change.
func load(ctx context.Context, c *Client, a Archive, change func(io.Reader) io.Reader) error {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(a.Write(w))
	}()
	_, err := c.Load(ctx, change(r))
	r.CloseWithError(io.ErrClosedPipe)
	<-done
	return err
}

func same(r io.Reader) io.Reader { return r }

// TestEngineTrouble loads each image as we send it, and exports it again: the same ID, the same layers, byte for byte.
func TestEngineTrouble(t *testing.T) { eachEngine(t, testEngineTrouble) }

func testEngineTrouble(t *testing.T, e *enginetest.Engine, c *Client) {
	version, err := e.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range enginetest.Trouble() {
		if tr.Name == "layers-120" && !*every && strings.HasPrefix(version, "20.") {
			continue // it takes a quarter of this package's time; the tests of internal/transfer have it there
		}
		t.Run(tr.Name, func(t *testing.T) {
			remove(t, e, tr.Image)
			if err := load(t.Context(), c, archiveOf(t, tr.Image, 0), same); err != nil {
				t.Fatal(err)
			}
			want := described(t, tr.Image)
			img, err := c.Inspect(t.Context(), tr.ID())
			if err != nil || img.ID != want.ID || !slices.Equal(img.DiffIDs, want.DiffIDs) || len(img.Tags) > 0 {
				t.Fatalf("inspected %v, want %v, error %v", img, want, err)
			}
			x := c.Export(t.Context(), img)
			got, err := walk(x)
			switch {
			case tr.Name == "no-layers" && tr.NotSaved != "":
				if !errors.Is(err, ErrUnexportable) || !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), img.ID.Short()) {
					t.Errorf("error %v", err)
				}
			case tr.NotSaved != "":
				if !fault.Is(err, fault.Other) || !strings.Contains(err.Error(), img.ID.Short()) {
					t.Errorf("error %v", err)
				}
			case err != nil:
				t.Error(err)
			default:
				got.check(t, tr.Image)
				if x.pass != 1 {
					t.Errorf("took %d passes: its names were not predicted", x.pass)
				}
			}
			remove(t, e, tr.Image)
		})
	}
}

// crafted are images that share layers, which no other test has.
func crafted(t *testing.T) (base, derived *enginetest.Image) {
	layer := func(name string) *enginetest.Layer {
		return enginetest.NewLayer(enginetest.File(name, 0o644, t.Name()), enginetest.File("fill", 0o644, strings.Repeat(t.Name(), 10000)))
	}
	bottom, middle, top := layer("bottom"), layer("middle"), layer("top")
	return enginetest.NewImage().Add(bottom, middle), enginetest.NewImage().Add(bottom, middle, top)
}

func TestEnginePartialLoad(t *testing.T) { eachEngine(t, testEnginePartialLoad) }

func testEnginePartialLoad(t *testing.T, e *enginetest.Engine, c *Client) {
	base, derived := crafted(t)
	before := contents(t, e)
	for held := 1; held <= 3; held++ {
		if err := load(t.Context(), c, archiveOf(t, derived, held), same); !errors.Is(err, ErrLacksLayer) {
			t.Errorf("%d layers left out that are not there: error %v", held, err)
		}
		unchanged(t, e, before)
	}
	if err := load(t.Context(), c, archiveOf(t, base, 0), same); err != nil {
		t.Fatal(err)
	}
	if held, _, err := c.Held(t.Context(), described(t, derived).DiffIDs); held != 2 || err != nil {
		t.Errorf("%d layers held, error %v", held, err)
	}
	withBase := contents(t, e)
	if err := load(t.Context(), c, archiveOf(t, derived, 3), same); !errors.Is(err, ErrLacksLayer) {
		t.Errorf("too many left out: error %v", err)
	}
	unchanged(t, e, withBase)
	if err := load(t.Context(), c, archiveOf(t, derived, 2), same); err != nil {
		t.Fatal(err)
	}
	got, err := walk(c.Export(t.Context(), described(t, derived)))
	if err != nil {
		t.Fatal(err)
	}
	got.check(t, derived)
	if err := load(t.Context(), c, archiveOf(t, derived, 3), same); err != nil {
		t.Errorf("nothing sent, all there: %v", err)
	}
	for _, m := range []*enginetest.Image{derived, base} {
		if err := c.RemoveUntagged(t.Context(), mustDigest(t, m.ID())); err != nil {
			t.Error(err)
		}
	}
	unchanged(t, e, before)
}

// TestEngineRefusesBrokenArchives: and nothing of them stays.
func TestEngineRefusesBrokenArchives(t *testing.T) { everyEngine(t, testEngineRefusesBrokenArchives) }

func testEngineRefusesBrokenArchives(t *testing.T, e *enginetest.Engine, c *Client) {
	_, m := crafted(t)
	var whole bytes.Buffer
	if err := archiveOf(t, m, 0).Write(&whole); err != nil {
		t.Fatal(err)
	}
	size := int64(whole.Len())
	broken := errors.New("much broken")
	before := contents(t, e)
	for what, change := range map[string]func(io.Reader) io.Reader{
		"nothing":             func(io.Reader) io.Reader { return strings.NewReader("") },
		"garbage":             func(io.Reader) io.Reader { return strings.NewReader(strings.Repeat("wow", 10000)) },
		"cut in a layer":      func(r io.Reader) io.Reader { return io.LimitReader(r, size/2) },
		"cut in the last one": func(r io.Reader) io.Reader { return io.LimitReader(r, size-5000) },
		"cut in the config":   func(r io.Reader) io.Reader { return io.LimitReader(r, 5000) },
		"a layer is damaged": func(r io.Reader) io.Reader {
			return io.MultiReader(io.LimitReader(r, size/2), &flip{r: r})
		},
	} {
		// The containerd image store drops a blob of another digest, and then lacks it.
		dropped := c.kind == Containerd && what == "a layer is damaged"
		err := load(t.Context(), c, archiveOf(t, m, 0), change)
		switch {
		case fault.Is(err, fault.Other), dropped && errors.Is(err, ErrLacksLayer):
		case dropped && err == nil && hasAll(t, c, archiveOf(t, m, 0)): // it still had the right blob from before
		default:
			t.Errorf("%s: error %v", what, err)
		}
		cleanUp(t, c, archiveOf(t, m, 0))
		unchanged(t, e, before)
	}
	for _, n := range []int64{0, 100, size / 2, size - 1} {
		err := load(t.Context(), c, archiveOf(t, m, 0), func(r io.Reader) io.Reader {
			return io.MultiReader(io.LimitReader(r, n), failing{broken})
		})
		if !errors.Is(err, broken) {
			t.Errorf("breaks after %d bytes: error %v", n, err)
		}
		cleanUp(t, c, archiveOf(t, m, 0))
		unchanged(t, e, before)
	}
}

// hasAll reports whether the engine has the image of an archive, and exports its very layers.
func hasAll(t *testing.T, c *Client, a Archive) bool {
	t.Helper()
	img, err := c.Inspect(t.Context(), c.idOf(a).String())
	if err != nil {
		t.Error(err)
		return false
	}
	got, err := walk(c.Export(t.Context(), img))
	if err != nil {
		t.Error(err)
		return false
	}
	for _, l := range a.Send {
		if got.layers[l.Digest] != l.Digest {
			return false
		}
	}
	return true
}

// flip changes the first byte that passes.
type flip struct {
	r    io.Reader
	done bool
}

func (f *flip) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if n > 0 && !f.done {
		p[0] ^= 0xff
		f.done = true
	}
	return n, err
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// wide is an image too large for what lies between us and the engine, so that it can be interrupted in the middle.
func wide() *enginetest.Image { return enginetest.BigImage(3, 8<<20) }
