package file

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(holderEnv); dir != "" {
		holdUntilKilled(dir)
	}
	if dir := os.Getenv(writerEnv); dir != "" {
		writeUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

func TestStore(t *testing.T) {
	storagetest.Run(t, harness(func(t *testing.T) string { return t.TempDir() }, nil))
}

// harness opens the directory that dir makes twice. prepare, if any, sees both stores first.
func harness(dir func(t *testing.T) string, prepare func(*Store)) storagetest.Harness {
	return storagetest.Harness{
		Open: func(t *testing.T) storagetest.Target {
			d := dir(t)
			a, b := open(t, d), open(t, d)
			if prepare != nil {
				prepare(a)
				prepare(b)
			}
			return storagetest.Target{A: a, B: b, Leftovers: func(t *testing.T) []string { return leftovers(t, d) }}
		},
		Create:    true,
		Swap:      true,
		Remove:    true,
		Ranges:    true,
		Conflicts: true,
	}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// leftovers returns what is below dir that is no object: names that begin with a dot, and empty directories.
func leftovers(t *testing.T, dir string) (left []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		if strings.HasPrefix(entry.Name(), ".") {
			left = append(left, path)
		}
		if entry.IsDir() {
			entries, err := os.ReadDir(path)
			if err == nil && len(entries) == 0 {
				left = append(left, path+"/")
			}
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func put(t *testing.T, s *Store, key, body string) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(body)); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s *Store, key string) string {
	t.Helper()
	r, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
}

// failsWith fails the test unless err is of that kind, and its text the path and the system's words.
func failsWith(t *testing.T, err, kind error, text string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%v, want %v", err, kind)
	}
	if err != nil && err.Error() != text {
		t.Errorf("the text is %q, want %q", err, text)
	}
}

func TestOpenCreatesNothing(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	_, err := Open(missing)
	failsWith(t, err, storage.ErrNotFound, missing+": no such file or directory")

	object := filepath.Join(dir, "object")
	write(t, object, "x")
	_, err = Open(object)
	failsWith(t, err, err, object+": not a directory")
	if errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a file is taken for nothing: %v", err)
	}
	_, err = Open(filepath.Join(object, "below"))
	failsWith(t, err, storage.ErrNotFound, object+"/below: not a directory")

	link := filepath.Join(dir, "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	s := open(t, link)
	put(t, s, "a/b", "through a linked root")
	if got := get(t, s, "a/b"); got != "through a linked root" {
		t.Error(got)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 {
		t.Errorf("%v, want object and link alone", entries)
	}
}

func TestCreateMakesTheLastElement(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b")
	_, err := Create(deep)
	failsWith(t, err, storage.ErrNotFound, deep+": no such file or directory")

	for range 2 { // the second time it is there
		s, err := Create(filepath.Join(dir, "a"))
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, "key", "x")
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	object := filepath.Join(dir, "a", "key")
	_, err = Create(object)
	failsWith(t, err, err, object+": not a directory")
}

// Nothing that lies in the directory lets a key reach beyond it, or to an object under another name.
func TestSymlinksAreNotFollowed(t *testing.T) {
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret"), "secret")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "real", "object"), "real")
	for name, target := range map[string]string{
		"out": outside, "up": "../" + filepath.Base(outside), "in": "real", "dir/file": filepath.Join(outside, "secret"), "dir/inside": "../real/object", "dir/dangling": "nothing",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir)
	for _, key := range []string{"out/secret", "up/secret", "in/object", "dir/file", "dir/inside", "dir/dangling", "out", "in"} {
		if _, err := s.Get(t.Context(), key, 0, -1); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("get %s: %v, want ErrNotFound", key, err)
		}
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("stat %s: %v, want ErrNotFound", key, err)
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("delete %s: %v", key, err)
		}
	}
	for _, key := range []string{"out/secret", "out/new", "in/object", "in/new"} {
		if err := s.Put(t.Context(), key, strings.NewReader("x")); !errors.Is(err, storage.ErrConflict) {
			t.Errorf("put %s: %v, want ErrConflict", key, err)
		}
	}
	for info, err := range s.List(t.Context(), "") {
		if err != nil || info.Key != "real/object" {
			t.Errorf("listed %v, %v", info, err)
		}
	}
	// A Put replaces the link, not what it points to.
	put(t, s, "dir/file", "new")
	put(t, s, "dir/inside", "new")
	if get(t, s, "dir/file") != "new" || get(t, s, "dir/inside") != "new" || get(t, s, "real/object") != "real" {
		t.Error("a link was written through")
	}
	secret, _ := os.ReadFile(filepath.Join(outside, "secret"))
	entries, _ := os.ReadDir(outside)
	if string(secret) != "secret" || len(entries) != 1 {
		t.Errorf("outside there is now %q, %v", secret, entries)
	}
	if err := s.Create(t.Context(), "dir/dangling", strings.NewReader("x")); !errors.Is(err, storage.ErrExists) {
		t.Errorf("create over a link: %v, want ErrExists", err)
	}
	if left := leftovers(t, dir); left != nil {
		t.Errorf("left over: %q", left)
	}
}

func TestErrorTexts(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "a/b", "x")
	_, err := s.Get(t.Context(), "a/missing", 0, -1)
	failsWith(t, err, storage.ErrNotFound, dir+"/a/missing: no such file or directory")
	_, err = s.Stat(t.Context(), "a/b/c")
	failsWith(t, err, storage.ErrNotFound, dir+"/a/b/c: not a directory")
	failsWith(t, s.Put(t.Context(), "a/b/c", strings.NewReader("")), storage.ErrConflict, dir+"/a/b/c: not a directory")
	failsWith(t, s.Put(t.Context(), "a", strings.NewReader("")), storage.ErrConflict, dir+"/a: is a directory")
	failsWith(t, s.Create(t.Context(), "a/b", strings.NewReader("")), storage.ErrExists, dir+"/a/b: file exists")
	long := strings.Repeat("n", 256)
	err = s.Put(t.Context(), "a/"+long, strings.NewReader(""))
	failsWith(t, err, err, dir+"/a/"+long+": file name too long")
}

// Objects that others put there with old times are new to this store: their age protects them from gc.
func TestModifiedIsTheYoungerTime(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	path := filepath.Join(dir, "copied")
	write(t, path, "x")
	old := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	info, err := s.Stat(t.Context(), "copied")
	if err != nil {
		t.Fatal(err)
	}
	if changeTime(mustStat(t, path)).IsZero() {
		t.Log("this system does not tell when a file was changed")
	} else if time.Since(info.Modified) > time.Hour {
		t.Errorf("modified %v, want now", info.Modified)
	}
}

func mustStat(t *testing.T, path string) fs.FileInfo {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi
}

// Other things than objects do not disturb: they are neither listed nor in the way.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".hidden", ".git/config", "a/.b.swp", "a/.rsync.x7Y", "a/.c.0123456789abcdeX.tmp", "é/x", "new\nline"} {
		write(t, filepath.Join(dir, name), "x")
	}
	s := open(t, dir)
	put(t, s, "a/b", "x")
	var keys []string
	for info, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	if strings.Join(keys, " ") != "a/b" {
		t.Errorf("listed %q", keys)
	}
	if _, err := s.Sweep(t.Context(), "", 0); err != nil {
		t.Error(err)
	}
	if err := s.Delete(t.Context(), "a/b"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "a/.c.0123456789abcdeX.tmp")); err != nil {
		t.Errorf("a stranger's file is gone: %v", err)
	}
}

// Directories without objects, a copier's or a killed process's, are nothing: they give way.
func TestEmptyDirectoriesGiveWay(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for name, write := range map[string]func(key string) error{
		"put":    func(key string) error { return s.Put(t.Context(), key, strings.NewReader("x")) },
		"create": func(key string) error { return s.Create(t.Context(), key, strings.NewReader("x")) },
	} {
		for _, below := range []string{"b/c", "d"} {
			if err := os.MkdirAll(filepath.Join(dir, name, below), 0o777); err != nil {
				t.Fatal(err)
			}
		}
		dead := filepath.Join(dir, name, "b", temporaryName("killed"))
		if err := os.WriteFile(dead, []byte("half"), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := write(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := get(t, s, name); got != "x" {
			t.Errorf("%s: %q", name, got)
		}
		if err := os.MkdirAll(filepath.Join(dir, "full-"+name, "b"), 0o777); err != nil {
			t.Fatal(err)
		}
		put(t, s, "full-"+name+"/c/object", "x")
		if err := write("full-" + name); !errors.Is(err, storage.ErrConflict) {
			t.Errorf("%s over a directory with an object deep inside: %v, want ErrConflict", name, err)
		}
		if get(t, s, "full-"+name+"/c/object") != "x" {
			t.Error("the object is gone")
		}
	}
	// What removes directories never removes an object that has taken a directory's place.
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := removeDirectory(root, "put"); err == nil || get(t, s, "put") != "x" {
		t.Errorf("an object was removed as a directory: %v", err)
	}
}

func TestTemporaryNames(t *testing.T) {
	for _, name := range []string{"x", "layer.tar.lz4", strings.Repeat("n", 255), ""} {
		got := temporaryName(name)
		if !isTemporary(got) || len(got) > 255 || got == temporaryName(name) {
			t.Errorf("%q: %q", name, got)
		}
	}
	for _, name := range []string{"", ".tmp", ".x.tmp", "x.0123456789abcdef.tmp", ".x0123456789abcdef.tmp", ".x.0123456789ABCDEF.tmp", ".0123456789abcdef.tmp", ".x.0123456789abcdef"} {
		if isTemporary(name) {
			t.Errorf("%q is taken for one of ours", name)
		}
	}
}

// A reader without an end is no reason to hang.
func TestBodyWithoutProgress(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Put(t.Context(), "key", readerFunc(func([]byte) (int, error) { return 0, nil })); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A closed store fails, an open reader does not care.
func TestClose(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "key", "content")
	r, err := s.Get(t.Context(), "key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); string(b) != "content" || err != nil {
		t.Error(b, err)
	}
	if _, err := s.Stat(t.Context(), "key"); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

func TestPutIntoARemovedRoot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "root")
	s, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "a/b", strings.NewReader("")); err == nil || errors.Is(err, storage.ErrConflict) {
		t.Errorf("put: %v", err)
	}
	if _, err := s.Stat(t.Context(), "a/b"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("stat: %v", err)
	}
}

func BenchmarkPut(b *testing.B) {
	s, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for name, size := range map[string]int{"1kB": 1000, "64MiB": 64 << 20} {
		body := make([]byte, size)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if err := s.Put(context.Background(), "dir/object", bytes.NewReader(body)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestListReadsAgain: a name that a reading of a directory has missed, because it was renamed over, is found by another
// one; of a directory that has not changed there is no other.
func TestListReadsAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, name := range []string{"a", "b", "c"} {
		put(t, s, "dir/"+name, name)
	}
	readings := 0
	s.listing = func(names []string) []string {
		if readings++; readings < 3 { // each misses another one
			names = slices.DeleteFunc(names, func(n string) bool { return n == string(rune('a'+readings)) })
		}
		return names
	}
	list := func() (found []string) {
		for info, err := range s.List(t.Context(), "dir/") {
			if err != nil {
				t.Error(err)
			}
			found = append(found, info.Key)
		}
		return found
	}
	if got := list(); !slices.Equal(got, []string{"dir/a", "dir/b", "dir/c"}) {
		t.Errorf("it lists %q", got)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "dir"), old, old); err != nil {
		t.Fatal(err)
	}
	if readings = 10; len(list()) != 3 || readings != 11 {
		t.Errorf("%d readings of a directory that has not changed", readings-10)
	}
}
