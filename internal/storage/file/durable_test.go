//go:build unix

package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// recorder is told of each sync, and writes down what could be seen in the
// directory at that instant: only what is there before a sync can be durable
// after it, and what is not there yet is published later.
type recorder struct {
	t    *testing.T
	dir  string
	said []string
	fail int // the sync, from 1, that fails
}

var errSync = errors.New("such disk, much broken")

// A temporary file's number differs each time.
var number = regexp.MustCompile(`\.[0-9a-f]{16}\.tmp$`)

func (r *recorder) sync(f *os.File) error {
	r.t.Helper()
	rel, err := filepath.Rel(r.dir, f.Name())
	if err != nil {
		r.t.Fatal(err)
	}
	fi, err := f.Stat()
	if err != nil {
		r.t.Fatal(err)
	}
	line := "names in " + rel
	if !fi.IsDir() {
		content, err := os.ReadFile(f.Name())
		if err != nil {
			r.t.Fatal(err)
		}
		line = fmt.Sprintf("bytes of %s: %q", number.ReplaceAllString(rel, ".tmp"), content)
	}
	r.said = append(r.said, line+", seen"+r.seen())
	if len(r.said) == r.fail {
		return errSync
	}
	return nil
}

// seen is each object with its content, and each empty directory.
func (r *recorder) seen() (all string) {
	r.t.Helper()
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == r.dir || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		rel, err := filepath.Rel(r.dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			entries, err := os.ReadDir(path)
			if err == nil && len(entries) == 0 {
				all += " " + rel + "/"
			}
			return err
		}
		content, err := os.ReadFile(path)
		all += fmt.Sprintf(" %s=%s", rel, content)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// TestDurable: what a method reports as done survives a crash, and at no
// instant does a name reach bytes that would not. So bytes are synced under
// their temporary name, before anybody can see them; the names of new
// directories before there is anything in them; and a name at the end.
func TestDurable(t *testing.T) {
	r := &recorder{t: t, dir: t.TempDir()}
	s := open(t, r.dir)
	s.sync = r.sync
	for _, step := range []struct {
		what string
		do   func() error
		want []string
	}{
		{"first object", func() error { return s.Put(t.Context(), "a/b/c", strings.NewReader("one")) }, []string{
			`names in ., seen a/`,
			`names in a, seen a/b/`,
			`bytes of a/b/.c.tmp: "one", seen`,
			`names in a/b, seen a/b/c=one`,
		}},
		{"another beside it", func() error { return s.Put(t.Context(), "a/b/d", strings.NewReader("two")) }, []string{
			`bytes of a/b/.d.tmp: "two", seen a/b/c=one`,
			`names in a/b, seen a/b/c=one a/b/d=two`,
		}},
		{"overwrite", func() error { return s.Put(t.Context(), "a/b/c", strings.NewReader("three")) }, []string{
			`bytes of a/b/.c.tmp: "three", seen a/b/c=one a/b/d=two`,
			`names in a/b, seen a/b/c=three a/b/d=two`,
		}},
		{"create in a new directory", func() error { return s.Create(t.Context(), "a/e/f", strings.NewReader("four")) }, []string{
			`names in a, seen a/b/c=three a/b/d=two a/e/`,
			`bytes of a/e/.f.tmp: "four", seen a/b/c=three a/b/d=two`,
			`names in a/e, seen a/b/c=three a/b/d=two a/e/f=four`,
		}},
		{"swap", func() error { return s.Swap(t.Context(), "a/e/f", []byte("four"), []byte("five")) }, []string{
			`bytes of a/e/.f.tmp: "five", seen a/b/c=three a/b/d=two a/e/f=four`,
			`names in a/e, seen a/b/c=three a/b/d=two a/e/f=five`,
		}},
		{"delete", func() error { return s.Delete(t.Context(), "a/b/c") }, []string{
			`names in a/b, seen a/b/d=two a/e/f=five`,
		}},
		{"delete the last one", func() error { return s.Delete(t.Context(), "a/b/d") }, []string{
			`names in a, seen a/e/f=five`,
		}},
		{"at the root", func() error { return s.Put(t.Context(), "g", strings.NewReader("six")) }, []string{
			`bytes of .g.tmp: "six", seen a/e/f=five`,
			`names in ., seen a/e/f=five g=six`,
		}},
	} {
		r.said = nil
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if diff := cmp.Diff(step.want, r.said); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.what, diff)
		}
	}
}

// TestDurableRoot: a new root's name in its parent is synced too.
func TestDurableRoot(t *testing.T) {
	r := &recorder{t: t, dir: t.TempDir()}
	s, err := create(filepath.Join(r.dir, "root"), r.sync)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if diff := cmp.Diff([]string{"names in ., seen root/"}, r.said); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	r = &recorder{t: t, dir: t.TempDir(), fail: 1}
	if _, err := create(filepath.Join(r.dir, "root"), r.sync); !errors.Is(err, errSync) {
		t.Errorf("error %v", err)
	}
}

// TestSyncIsReal: what is replaced above is the system's sync.
func TestSyncIsReal(t *testing.T) {
	dir := t.TempDir()
	made, err := Create(filepath.Join(dir, "root"))
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	closed, err := os.Create(filepath.Join(dir, "closed"))
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	for _, s := range []*Store{made, open(t, dir)} {
		if err := s.sync(closed); !errors.Is(err, os.ErrClosed) {
			t.Errorf("syncs a file that is closed: error %v", err)
		}
	}
}

// TestSyncFails: a sync that fails is told, and where it is one before the
// rename, nobody sees the object.
func TestSyncFails(t *testing.T) {
	for _, c := range []struct {
		what string
		do   func(s *Store) error
		fail int
		seen string // afterwards
	}{
		{"put, first directory", func(s *Store) error { return s.Put(t.Context(), "a/b/c", strings.NewReader("new")) }, 1, " old=old"},
		{"put, second directory", func(s *Store) error { return s.Put(t.Context(), "a/b/c", strings.NewReader("new")) }, 2, " old=old"},
		{"put, bytes", func(s *Store) error { return s.Put(t.Context(), "a/b/c", strings.NewReader("new")) }, 3, " old=old"},
		{"put, name", func(s *Store) error { return s.Put(t.Context(), "a/b/c", strings.NewReader("new")) }, 4, " a/b/c=new old=old"},
		{"overwrite, bytes", func(s *Store) error { return s.Put(t.Context(), "old", strings.NewReader("new")) }, 1, " old=old"},
		{"create, bytes", func(s *Store) error { return s.Create(t.Context(), "new", strings.NewReader("new")) }, 1, " old=old"},
		{"swap, bytes", func(s *Store) error { return s.Swap(t.Context(), "old", []byte("old"), []byte("new")) }, 1, " old=old"},
		{"swap, name", func(s *Store) error { return s.Swap(t.Context(), "old", []byte("old"), []byte("new")) }, 2, " old=new"},
		{"delete", func(s *Store) error { return s.Delete(t.Context(), "old") }, 1, ""},
	} {
		r := &recorder{t: t, dir: t.TempDir(), fail: c.fail}
		s := open(t, r.dir)
		put(t, s, "old", "old")
		s.sync = r.sync
		if err := c.do(s); !errors.Is(err, errSync) {
			t.Errorf("%s: error %v", c.what, err)
		}
		if seen := r.seen(); seen != c.seen {
			t.Errorf("%s: seen%s, want%s", c.what, seen, c.seen)
		}
		if left := leftovers(t, r.dir); len(left) > 0 {
			t.Errorf("%s: left %s", c.what, left)
		}
	}
}
