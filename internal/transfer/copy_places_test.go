package transfer

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/dockerarchive"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/layout"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// layoutIn opens a layout in a directory, and makes one where there is none.
func layoutIn(t testing.TB, dir string) *layout.Target {
	t.Helper()
	s, err := file.Create(dir)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	l, err := layout.Create(t.Context(), s, "oci:"+dir)
	must(t, err)
	return l
}

// archiveOf writes all of a remote to an archive, and opens that.
func archiveOf(t testing.TB, from remote.Source, path string) *dockerarchive.Archive {
	t.Helper()
	w, err := dockerarchive.Create(path, path)
	must(t, err)
	defer w.Close()
	_, err = copyAll(t, from, w, CopyOptions{})
	must(t, err)
	a, err := dockerarchive.Open(t.Context(), path, path)
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// tree returns the files below a directory and what is in them.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir)] = string(b)
		return err
	}))
	return all
}

// TestCopyThroughPlaces: images of every kind keep IDs and bytes through a layout
// and through an archive, and what comes out is what a copy without them makes.
func TestCopyThroughPlaces(t *testing.T) {
	from := newStock(t)
	names := tagsOf(t, from)
	// One after the other: whether a layer is stored by itself or by an alias depends on which image comes first.
	inOrder := func(what string, place remote.Source) *mem.Store {
		t.Helper()
		to := mem.New()
		if _, err := Copy(t.Context(), place, remoteOn(t, to, codec.LZ4), copies(t, names...), CopyOptions{}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return to
	}
	direct := inOrder("direct", plainSource{from, from})
	arrives := func(what string, place remote.Source) *mem.Store {
		t.Helper()
		to := inOrder(what, place)
		if got := tagsOf(t, place); !slices.Equal(sorted(got), sorted(names)) {
			t.Errorf("%s: tags %q, want %q", what, got, names)
		}
		sameObjects(t, objects(t, direct), objects(t, to))
		return to
	}
	dir := t.TempDir()
	first := layoutIn(t, filepath.Join(dir, "first"))
	if done, err := copyAll(t, from, first, CopyOptions{}); err != nil || len(done.Images) != 6 {
		t.Fatalf("%d images, %v", len(done.Images), err)
	}
	was := tree(t, dir)
	done, err := copyAll(t, from, layoutIn(t, filepath.Join(dir, "first")), CopyOptions{})
	if n := movedIn(done.Images); err != nil || n != 0 {
		t.Errorf("a second copy moves %d layers, %v", n, err)
	}
	sameObjects(t, was, tree(t, dir))
	noTemporary(t, dir)

	back := arrives("layout", first)
	second := layoutIn(t, filepath.Join(dir, "second"))
	if _, err := copyAll(t, remoteOn(t, back, codec.LZ4), second, CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	sameObjects(t, tree(t, filepath.Join(dir, "first", "blobs")), tree(t, filepath.Join(dir, "second", "blobs")))

	a := archiveOf(t, from, filepath.Join(dir, "a.tar"))
	arrives("archive", a)
	arrives("archive of a layout", archiveOf(t, second, filepath.Join(dir, "b.tar")))
	third := layoutIn(t, filepath.Join(dir, "third"))
	if _, err := copyAll(t, a, third, CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	sameObjects(t, tree(t, filepath.Join(dir, "first", "blobs")), tree(t, filepath.Join(dir, "third", "blobs")))
}

// TestCopyPlatformsToLayout: of an index what was asked for, and later the rest.
func TestCopyPlatformsToLayout(t *testing.T) {
	from, to := newStock(t), layoutIn(t, filepath.Join(t.TempDir(), "l"))
	id, err := from.Resolve(t.Context(), reference(t, multi))
	must(t, err)
	for _, test := range []struct {
		o    Options
		want int
	}{
		{Options{Platform: image.Platform{OS: "linux", Architecture: "arm64"}}, 1},
		{Options{}, 3},
	} {
		_, err := Copy(t.Context(), from, to, copies(t, multi), CopyOptions{Options: test.o})
		must(t, err)
		held, err := to.Held(t.Context(), id)
		if err != nil || len(held) != test.want {
			t.Errorf("%d manifests of the index are there, want %d: %v", len(held), test.want, err)
		}
		if _, err := Copy(t.Context(), to, remoteOn(t, mem.New(), codec.LZ4), copies(t, multi), CopyOptions{}); err != nil {
			t.Errorf("it cannot be copied on: %v", err)
		}
	}
	if _, err := Copy(t.Context(), from, to, copies(t, multi), CopyOptions{Options: Options{AllPlatforms: true}}); !fault.Is(err, fault.NotFound) {
		t.Errorf("all platforms, of which one is nowhere: %v", err)
	}
}

func put(t testing.TB, s storage.Store, key, content string) {
	t.Helper()
	must(t, s.Put(t.Context(), key, strings.NewReader(content)))
}

// TestCommit: what is published as a whole is so once, at the end, with all that
// could be copied, and not after a failure.
func TestCommit(t *testing.T) {
	from := newStock(t)
	path := filepath.Join(t.TempDir(), "a.tar")
	top := from.classic["app:2"].DiffIDs()[1].Hex()
	for _, key := range layerKeys(slices.Collect(maps.Keys(objects(t, from.store)))) {
		if strings.Contains(key, top) {
			put(t, from.store, key, "damaged")
		}
	}
	w, err := dockerarchive.Create(path, "a.tar")
	must(t, err)
	_, err = Copy(t.Context(), from, w, copies(t, "app:1", "app:2"), CopyOptions{})
	if !fault.Is(err, fault.Damaged) {
		t.Errorf("one of two is damaged: %v", err)
	}
	must(t, w.Close())
	if left := files(t, filepath.Dir(path)); len(left) > 0 {
		t.Errorf("after a failure there is %q", left)
	}
	w, err = dockerarchive.Create(path, "a.tar")
	must(t, err)
	done, err := copyAll(t, from, w, CopyOptions{Repositories: []string{"app"}})
	if !fault.Is(err, fault.Partial) || len(done.Images) != 1 || len(done.Failed) != 1 {
		t.Errorf("%d images, %d failed: %v", len(done.Images), len(done.Failed), err)
	}
	must(t, w.Close())
	other, err := dockerarchive.Create(path+"2", "b.tar")
	must(t, err)
	defer other.Close()
	if _, err := Copy(t.Context(), from, other, copies(t, "app:2"), CopyOptions{All: true}); !fault.Is(err, fault.Partial) {
		t.Errorf("none of one: %v", err)
	}
	a, err := dockerarchive.Open(t.Context(), path, "a.tar")
	must(t, err)
	defer a.Close()
	if tags := tagsOf(t, a); !slices.Equal(tags, []string{"app:1"}) {
		t.Errorf("the archive has %q", tags)
	}
	if _, err := Copy(t.Context(), a, remoteOn(t, mem.New(), codec.LZ4), copies(t, "app:1"), CopyOptions{}); err != nil {
		t.Error(err)
	}
}

// TestCopyMendsLayout: a blob that a torn copy left in another size, or a document
// with other bytes, is written again.
func TestCopyMendsLayout(t *testing.T) {
	from, dir := newStock(t), t.TempDir()
	_, err := copyAll(t, from, layoutIn(t, dir), CopyOptions{})
	must(t, err)
	was := tree(t, dir)
	for what, least := range map[string]int{"layers": 10, "documents and layers": 20} {
		damaged := 0
		for name, content := range was {
			if strings.HasPrefix(name, "/blobs/") && (what != "layers" || content[0] != '{') {
				must(t, os.WriteFile(filepath.Join(dir, name), []byte(content[:len(content)-1]), 0o644))
				damaged++
			}
		}
		to := layoutIn(t, dir)
		if _, err := copyAll(t, to, remoteOn(t, mem.New(), codec.LZ4), CopyOptions{}); !fault.Is(err, fault.Partial) {
			t.Errorf("with damaged %s: %v", what, err)
		}
		_, err = copyAll(t, from, to, CopyOptions{})
		must(t, err)
		sameObjects(t, was, tree(t, dir))
		if damaged < least {
			t.Errorf("%d %s were damaged", damaged, what)
		}
	}
}
