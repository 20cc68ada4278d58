package catalog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/catalog"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

const remoteName = "s3://key:secret@bucket"

// list lists with the cache in dir, and proves that the rows are those of a
// list without it.
func list(t *testing.T, s *far, dir, repository string) (rows []catalog.Image, requests int) {
	t.Helper()
	requests = s.count(func() {
		var err error
		if rows, err = catalog.Cached(open(t, s), dir, remoteName, nil).List(t.Context(), repository); err != nil {
			t.Fatal(err)
		}
	})
	plain, err := catalog.New(open(t, s)).List(t.Context(), repository)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(asJSON(t, plain), asJSON(t, rows)); diff != "" {
		t.Errorf("rows with a cache are others than without (-without +with):\n%s", diff)
	}
	return rows, requests - 1 // opening reads VERSION
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// cacheFile returns the path of the only file below dir; "" where there is none.
func cacheFile(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "catalog", "*"))
	if err != nil || len(files) > 1 {
		t.Fatalf("cache files %q, %v", files, err)
	}
	if len(files) == 0 {
		return ""
	}
	return files[0]
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Size()
}

func damaged(rows []catalog.Image) (names []string) {
	for _, r := range rows {
		if r.Damage != "" {
			names = append(names, r.Reference.String())
		}
	}
	return names
}

// TestRequests counts what a list costs: a few of them, and so many that
// images/ is listed as a whole.
func TestRequests(t *testing.T) {
	for _, test := range []struct{ images, first, second int }{
		// References; tag, document, two listings and two metadata each; the document's version.
		{3, 1 + 3*(1+1+2+2+1), 1 + 3*(1+2)},
		// References; tag, document, two metadata each; a sample and 16 parts of images/.
		{300, 1 + 300*(1+1+2) + 1 + 16, 1 + 1 + 16},
	} {
		t.Run(fmt.Sprint(test.images), func(t *testing.T) {
			s, dir := &far{Store: mem.New()}, t.TempDir()
			images := fill(t, s, "app", test.images)
			rows, first := list(t, s, dir, "")
			_, second := list(t, s, dir, "")
			if first != test.first || second != test.second {
				t.Errorf("%d requests, then %d; want %d, then %d", first, second, test.first, test.second)
			}
			if len(rows) != len(images) || len(damaged(rows)) > 0 {
				t.Errorf("%d rows, damaged: %q", len(rows), damaged(rows))
			}
			written := size(t, cacheFile(t, dir))
			if most := int64(1000 * (test.images + 1)); written > most {
				t.Errorf("the cache is of %d bytes, want at most %d", written, most)
			}

			// Inspect reads its image, and asks for the others as list does.
			inspect := s.count(func() {
				if _, err := catalog.Cached(open(t, s), dir, remoteName, nil).Inspect(t.Context(), remotetest.Ref(t, "app:0")); err != nil {
					t.Error(err)
				}
			})
			if want := 1 + 1 + 1 + 2*2 + test.second; inspect != want {
				t.Errorf("inspect makes %d requests, want %d", inspect, want)
			}
		})
	}
}

// TestTagMoves proves that a cache never hides where a tag went.
func TestTagMoves(t *testing.T) {
	s, dir := &far{Store: mem.New()}, t.TempDir()
	images := fill(t, s, "app", 2)
	for i, id := range []image.ID{images[0].ID, images[1].ID, images[0].ID, images[1].ID} {
		put(t, s, "repositories/app/0", id.Hex())
		if rows, _ := list(t, s, dir, ""); rows[0].ID != id {
			t.Errorf("move %d: the tag names %s, want %s", i, rows[0].ID.Short(), id.Short())
		}
	}
	// It moves after it was listed and before it is read, and is put back: it has
	// the ETag of the listing again.
	dir = t.TempDir()
	put(t, s, "repositories/app/0", images[0].ID.Hex())
	s.before = func(_ context.Context, key string) error {
		if key == "repositories/app/0" {
			put(t, s.Store.(*mem.Store), key, images[1].ID.Hex())
		}
		return nil
	}
	rows, err := catalog.Cached(open(t, s), dir, remoteName, nil).List(t.Context(), "")
	if err != nil || rows[0].ID != images[1].ID {
		t.Fatalf("the move is too late: %v, %v", rows, err)
	}
	s.before = nil
	put(t, s, "repositories/app/0", images[0].ID.Hex())
	if rows, _ := list(t, s, dir, ""); rows[0].ID != images[0].ID {
		t.Errorf("moved and put back: the tag names %s, want %s", rows[0].ID.Short(), images[0].ID.Short())
	}
	// It goes and comes.
	if err := s.Delete(t.Context(), "repositories/app/0"); err != nil {
		t.Fatal(err)
	}
	if rows, _ := list(t, s, dir, ""); len(rows) != 1 {
		t.Errorf("removed: %v", names(rows))
	}
}

// TestDamageBehindCache damages what a list has seen whole: each later list says so.
func TestDamageBehindCache(t *testing.T) {
	for _, n := range []int{3, 300} { // asked one by one, and all at once
		s := &far{Store: mem.New()}
		images := fill(t, s, "app", n)
		layer, config := "images/"+images[0].DiffIDs()[1].Hex(), "images/"+images[0].ID.Hex()
		for name, damage := range map[string]func(){
			"no layer file":    func() { remove(t, s, layer+"/layer.tar") },
			"no metadata":      func() { remove(t, s, layer+"/json") },
			"metadata garbled": func() { put(t, s, layer+"/json", "garbage") },
			"no document":      func() { remove(t, s, config+"/json") },
			"document garbled": func() { put(t, s, config+"/json", "garbage") },
			"tag garbled":      func() { put(t, s, "repositories/app/0", "garbage") },
			"tag of nothing":   func() { put(t, s, "repositories/app/0", strings.Repeat("1", 64)) },
			"no config": func() {
				put(t, s, "repositories/app/0", image.DigestOf(images[0].Manifest()).Hex())
				remove(t, s, config+"/json")
			},
		} {
			t.Run(fmt.Sprintf("%d %s", n, name), func(t *testing.T) {
				dir := t.TempDir()
				if rows, _ := list(t, s, dir, ""); len(damaged(rows)) > 0 {
					t.Fatalf("damaged before: %q", damaged(rows))
				}
				damage()
				for range 2 {
					rows, _ := list(t, s, dir, "")
					if diff := cmp.Diff([]string{"app:0"}, damaged(rows)); diff != "" {
						t.Errorf("damaged (-want +got):\n%s", diff)
					}
				}
				fillImage(t, s, "app/0", images[0])
				if rows, _ := list(t, s, dir, ""); len(damaged(rows)) > 0 {
					t.Errorf("damaged when it is mended: %q", damaged(rows))
				}
			})
		}
		// Metadata that lied is believed no longer than it lies.
		dir := t.TempDir()
		put(t, s, layer+"/json", fmt.Sprintf(`{"diffID":"%s","size":5,"file":"layer.tar"}`, images[0].DiffIDs()[1]))
		list(t, s, dir, "")
		fillImage(t, s, "app/0", images[0])
		list(t, s, dir, "")
		// Of two files the metadata says which one counts.
		put(t, s, layer+"/layer.tar.zst", "seven b")
		list(t, s, dir, "")
	}
}

func remove(t *testing.T, s *far, key string) {
	t.Helper()
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

// TestCacheDamaged proves that a list reads anew what the cache cannot tell.
func TestCacheDamaged(t *testing.T) {
	s := &far{Store: mem.New()}
	fill(t, s, "app", 2)
	good := t.TempDir()
	_, first := list(t, s, good, "")
	_, second := list(t, s, good, "")
	content, err := os.ReadFile(cacheFile(t, good))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(cacheFile(t, good))
	for what, garbage := range map[string][]byte{
		"empty":            {},
		"random":           remotetest.Noise("garbage", 10_000),
		"short":            content[:len(content)-1],
		"long":             append(bytes.Clone(content), '\n'),
		"another size":     bytes.Replace(content, []byte(`"Size":`), []byte(`"Size":1`), 1),
		"of a later day":   bytes.Replace(content, []byte("catalog 2 "), []byte("catalog 3 "), 1),
		"JSON of others":   []byte(`{"Tags":[1,2]}`),
		"endless":          make([]byte, 65<<20),
		"another checksum": bytes.Replace(content, []byte("catalog 2 "), []byte("catalog 2 0"), 1),
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "catalog", name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, garbage, 0o600)); err != nil {
				t.Fatal(err)
			}
			if _, n := list(t, s, dir, ""); n != first {
				t.Errorf("%d requests, want %d", n, first)
			}
			if _, n := list(t, s, dir, ""); n != second {
				t.Errorf("then %d requests, want %d", n, second)
			}
		})
	}
	t.Run("a directory", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "catalog", name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		list(t, s, dir, "")
		cacheFile(t, dir) // no temporary file is left
	})
	t.Run("no place", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		list(t, s, dir, "")
	})
}

// TestCacheHoldsNoSecrets also proves that only the user may read it.
func TestCacheHoldsNoSecrets(t *testing.T) {
	s, dir := &far{Store: mem.New()}, t.TempDir()
	fill(t, s, "app", 1)
	list(t, s, dir, "")
	content, err := os.ReadFile(cacheFile(t, dir))
	if err != nil || strings.Contains(string(content)+cacheFile(t, dir), "secret") {
		t.Errorf("%v, the cache names the remote", err)
	}
	if fi, err := os.Stat(cacheFile(t, dir)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "catalog")); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}

	// A store without versions leaves nothing to remember, and asks for no more than it must.
	s, dir = &far{Store: s.Store, plain: true}, t.TempDir()
	for range 2 {
		if _, n := list(t, s, dir, ""); n != 1+1+1+2+2 {
			t.Errorf("%d requests without versions", n)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "catalog")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a cache: %v", err)
	}
}

// TestCacheIsBounded proves that a cache holds what its remote has, and no more.
func TestCacheIsBounded(t *testing.T) {
	s, dir := &far{Store: mem.New()}, t.TempDir()
	few := fill(t, s, "few", 2)
	list(t, s, dir, "")
	small := size(t, cacheFile(t, dir))
	for round := range 3 {
		repository := fmt.Sprintf("many/%d", round)
		many := fill(t, s, repository, 40)
		list(t, s, dir, "")
		if grown := size(t, cacheFile(t, dir)); grown < 10*small || grown > 40*small {
			t.Errorf("with 40 more images %d bytes, without %d", grown, small)
		}
		for i := range many {
			remove(t, s, fmt.Sprintf("repositories/%s/%d", repository, i))
		}
		list(t, s, dir, "")
		if got := size(t, cacheFile(t, dir)); got != small {
			t.Errorf("when they have gone %d bytes, before they came %d", got, small)
		}
	}

	// A list of one repository keeps what it does not look at, and nothing else.
	fill(t, s, "few/x", 2)
	put(t, s, "repositories/other/1", few[0].ID.Hex())
	put(t, s, "repositories/few%3A5000/app/1", few[0].ID.Hex()) // few is a registry there
	list(t, s, dir, "")
	_, again := list(t, s, dir, "")
	all := size(t, cacheFile(t, dir))
	list(t, s, dir, "few")
	if got := size(t, cacheFile(t, dir)); got != all {
		t.Errorf("after a list of one repository the cache has %d bytes, before %d", got, all)
	}
	remove(t, s, "repositories/few/1")
	list(t, s, dir, "few")
	if got := size(t, cacheFile(t, dir)); got >= all || got < all/2 {
		t.Errorf("without one of six tags the cache has %d bytes, before %d", got, all)
	}
	if _, n := list(t, s, dir, ""); n != again-3 {
		t.Errorf("%d requests after it, want %d less 3", n, again)
	}

	// Nothing is remembered of what has become empty.
	nobody, place := &far{Store: mem.New()}, t.TempDir()
	fill(t, nobody, "app", 9)
	list(t, nobody, place, "")
	full := size(t, cacheFile(t, place))
	for i := range 9 {
		remove(t, nobody, fmt.Sprintf("repositories/app/%d", i))
	}
	list(t, nobody, place, "")
	if got := size(t, cacheFile(t, place)); got > full/10 {
		t.Errorf("an empty remote takes %d bytes, with 9 images it took %d", got, full)
	}

	// What killed runs and forgotten remotes left goes with the next write.
	old, older := time.Now().Add(-2*time.Hour), time.Now().Add(-100*24*time.Hour)
	for name, at := range map[string]time.Time{"a.new-1": old, "a.new-2": time.Now(), "b": old, "c": older} {
		path := filepath.Join(dir, "catalog", name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, "repositories/other/2", few[0].ID.Hex())
	list(t, s, dir, "")
	left, err := filepath.Glob(filepath.Join(dir, "catalog", "?*"))
	if err != nil {
		t.Fatal(err)
	}
	var short []string
	for _, path := range left {
		if name := filepath.Base(path); len(name) < 64 {
			short = append(short, name)
		}
	}
	if diff := cmp.Diff([]string{"a.new-2", "b"}, short); diff != "" || len(left) != 3 {
		t.Errorf("files left (-want +got):\n%s", diff)
	}
}
