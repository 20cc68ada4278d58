package file

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

// lookUpFolding is how a file system that ignores case looks a name up.
func lookUpFolding(d *os.Root, name string) (fs.FileInfo, error) {
	fi, err := d.Lstat(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return fi, err
	}
	entries, err := readAll(d)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if strings.EqualFold(entry.Name(), name) {
			return d.Lstat(entry.Name())
		}
	}
	return nil, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
}

func pretendToFold(s *Store) { s.lstat = lookUpFolding }

// Where case is ignored, as this file system is made to pretend, the contract is the same.
func TestFoldingStore(t *testing.T) {
	h := harness(func(t *testing.T) string { return t.TempDir() }, pretendToFold)
	h.Many, h.Large = 200, 1<<20+1 // every lookup reads a directory
	storagetest.Run(t, h)
}

func TestFoldingCollisions(t *testing.T) {
	t.Run("pretended", func(t *testing.T) { foldingCollisions(t, t.TempDir(), pretendToFold) })
	t.Run("real", func(t *testing.T) {
		dir, how := foldingDirectory(t)
		if dir == "" {
			t.Skipf("this machine has no file system that ignores case (%s): only the pretended one was tested", how)
		}
		t.Log(how)
		foldingCollisions(t, dir, func(*Store) {})
	})
}

func foldingCollisions(t *testing.T, dir string, prepare func(*Store)) {
	write(t, filepath.Join(dir, "Images", "Old"), "by another program")
	s := open(t, dir)
	prepare(s)
	for _, key := range []string{"images/Old", "Images/old", "IMAGES/OLD"} {
		if _, err := s.Get(t.Context(), key, 0, -1); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("get %s: %v, want ErrNotFound", key, err)
		}
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("stat %s: %v, want ErrNotFound", key, err)
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("delete %s: %v", key, err)
		}
		for name, write := range map[string]func() error{
			"put":    func() error { return s.Put(t.Context(), key, strings.NewReader("new")) },
			"create": func() error { return s.Create(t.Context(), key, strings.NewReader("new")) },
		} {
			err := write()
			if !errors.Is(err, storage.ErrConflict) || errors.Is(err, storage.ErrExists) {
				t.Errorf("%s %s: %v, want ErrConflict", name, key, err)
			} else if !strings.Contains(err.Error(), "which is there (it ignores case)") {
				t.Errorf("%s %s: %v does not say why", name, key, err)
			}
		}
	}
	if s.fold != foldYes {
		t.Errorf("folding was not noticed: %v", s.fold)
	}
	for _, prefix := range []string{"images/", "Images/o", "i"} {
		for info, err := range s.List(t.Context(), prefix) {
			t.Errorf("list %s: %v, %v", prefix, info, err)
		}
	}
	if got := get(t, s, "Images/Old"); got != "by another program" {
		t.Errorf("the object is now %q", got)
	}
	put(t, s, "Images/Old", "replaced")
	put(t, s, "Images/new", "x")
	put(t, s, "lower/case", "x")
	if got := get(t, s, "Images/Old"); got != "replaced" {
		t.Errorf("the object is now %q", got)
	}
	if left := leftovers(t, dir); len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
}

// The first look decides, whether it is a read or a write, and needs no right to write.
func TestFoldingProbe(t *testing.T) {
	for name, test := range map[string]struct {
		files   []string
		prepare func(*Store)
		look    func(*Store) error
		want    folding
	}{
		"an empty store is not asked": {nil, pretendToFold, stat("a"), foldUnknown},
		"digits do not tell":          {[]string{"12"}, pretendToFold, stat("12"), foldUnknown},
		"a read tells":                {[]string{"a"}, pretendToFold, stat("a"), foldYes},
		"so does one of another case": {[]string{"a"}, pretendToFold, stat("A"), foldYes},
		"a write into an empty store": {nil, pretendToFold, putKey("12"), foldYes},
		"a directory":                 {[]string{"a/12"}, pretendToFold, stat("a/12"), foldYes},
		"it does not fold":            {[]string{"a"}, nil, stat("a"), foldNo},
		"a write that does not fold":  {nil, nil, putKey("12"), foldNo},
		"both are there":              {[]string{"a", "A"}, nil, stat("a"), foldNo},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, file := range test.files {
				write(t, filepath.Join(dir, file), "x")
			}
			s := open(t, dir)
			if test.prepare != nil {
				test.prepare(s)
			}
			_ = test.look(s)
			if s.fold != test.want {
				t.Errorf("found out %v, want %v", s.fold, test.want)
			}
		})
	}
	t.Run("two links to one file", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "a"), "x")
		if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "A")); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir)
		if _, err := s.Stat(t.Context(), "a"); err != nil || s.fold != foldNo {
			t.Errorf("%v, found out %v", err, s.fold)
		}
	})
}

func stat(key string) func(*Store) error {
	return func(s *Store) error {
		_, err := s.Stat(context.Background(), key)
		return err
	}
}

func putKey(key string) func(*Store) error {
	return func(s *Store) error { return s.Put(context.Background(), key, strings.NewReader("")) }
}
