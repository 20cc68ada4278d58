//go:build unix

package layerstore

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/vbatts/tar-split/tar/storage"
)

// eachWay tests both ways of opening files: as it is done here, and without openBeneath, as
// where the system has no such thing or forbids it.
func eachWay(t *testing.T, test func(t *testing.T, choose func(*directory) *directory)) {
	t.Run("here", func(t *testing.T) { test(t, func(d *directory) *directory { return d }) })
	t.Run("everywhere", func(t *testing.T) {
		test(t, func(d *directory) *directory {
			if d.self != nil {
				must(t, d.self.Close())
				d.self = nil
			}
			return d
		})
	})
}

// TestHostile is about layers whose author wants dogestry to read, or to wait
// for, something else.
func TestHostile(t *testing.T) {
	eachWay(t, testHostile)
}

func testHostile(t *testing.T, choose func(*directory) *directory) {
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, []byte("secret"))
	outside := "../../../../" + filepath.Base(filepath.Dir(secret)) // seen from a layer's directory
	link := func(to string) func(string) {
		return func(dir string) { must(t, os.Symlink(to, filepath.Join(dir, "name"))) }
	}
	tests := map[string]struct {
		entries []storage.Entry
		fill    func(dir string)
	}{
		"a name that climbs":      {[]storage.Entry{file(outside+"/secret", 6)}, nil},
		"a name that climbs on":   {[]storage.Entry{file("name/../"+outside+"/secret", 6)}, func(dir string) { must(t, os.Mkdir(filepath.Join(dir, "name"), 0o700)) }},
		"an absolute name":        {[]storage.Entry{file(secret, 6)}, nil},
		"an absolute link":        {[]storage.Entry{file("name", 6)}, link(secret)},
		"an absolute one of many": {[]storage.Entry{file("name/secret", 6)}, link(filepath.Dir(secret))},
		"a link that climbs":      {[]storage.Entry{file("name/secret", 6)}, link(outside)},
		"a link to one": {[]storage.Entry{file("name/secret", 6)}, func(dir string) {
			link("other")(dir)
			must(t, os.Symlink(outside, filepath.Join(dir, "other")))
		}},
		"a link to climb from": {[]storage.Entry{file("name/../../secret", 6)}, func(dir string) {
			write(t, filepath.Join(filepath.Dir(dir), "secret"), []byte("secret"))
			must(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
			link("a")(dir)
		}},
		"a link from the top": {[]storage.Entry{file("name", 6)}, func(dir string) {
			write(t, filepath.Join(dir, "a"), []byte("secret"))
			link("/a")(dir)
		}},
		"a link of the kernel's": {[]storage.Entry{file("name"+secret, 6)}, link("/proc/self/root")},
		"a link to itself":       {[]storage.Entry{file("name", 6)}, link("name")},
		"nothing there":          {[]storage.Entry{file("name", 6)}, nil},
		"no name":                {[]storage.Entry{file("", 6)}, nil},
		"a directory":            {[]storage.Entry{file(".", 6)}, nil},
		"a file as a directory":  {[]storage.Entry{file("name/", 6)}, func(dir string) { write(t, filepath.Join(dir, "name"), []byte("secret")) }},
		"a FIFO":                 {[]storage.Entry{file("name", 6)}, func(dir string) { must(t, syscall.Mkfifo(filepath.Join(dir, "name"), 0o600)) }},
		"a file too short":       {[]storage.Entry{file("name", 6)}, func(dir string) { write(t, filepath.Join(dir, "name"), []byte("short")) }},
		"a size below zero":      {[]storage.Entry{file("name", -1)}, nil},
		"sizes beyond numbers":   {[]storage.Entry{file("a", 1<<62), file("b", 1<<62)}, nil},
		"a name twice":           {[]storage.Entry{file("a", 1), file("a", 1)}, nil},
		"an unknown type":        {[]storage.Entry{{Type: 9}}, nil},
	}
	for name, test := range tests {
		s, stack := craft(t, "overlay2", test.entries, test.fill)
		if tar, err := s.Tar(t.Context(), stack); err == nil {
			choose(tar.files)
			got := make([]byte, min(tar.Size(), 100))
			n, err := tar.ReadAt(got, 0)
			if err == nil || bytes.Contains(got, []byte("s")) {
				t.Errorf("%s, at an offset: %q, %v, want an error", name, got[:n], err)
			}
			must(t, tar.Close())
		}
		r, _, err := s.Layer(t.Context(), stack)
		if err != nil {
			continue
		}
		choose(r.(*reader).files)
		got, err := io.ReadAll(r)
		if err == nil || bytes.Contains(got, []byte("sec")) {
			t.Errorf("%s: %q, %v, want an error", name, got, err)
		}
		must(t, r.Close())
	}
}

// TestLinks: links that stay in the layer's directory are followed, and names that climb
// within it.
func TestLinks(t *testing.T) {
	eachWay(t, func(t *testing.T, choose func(*directory) *directory) {
		entries := []storage.Entry{file("link/file", 1), file("a/up", 1), file("a/../b", 1), file("link/../b", 1), file("a//file", 1), file("./a/file", 1)}
		s, stack := craft(t, "overlay2", entries, func(dir string) {
			must(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
			write(t, filepath.Join(dir, "a", "file"), []byte("f"))
			write(t, filepath.Join(dir, "b"), []byte("b"))
			must(t, os.Symlink("a", filepath.Join(dir, "link")))
			must(t, os.Symlink("../b", filepath.Join(dir, "a", "up")))
		})
		r, _, err := s.Layer(t.Context(), stack)
		must(t, err)
		defer r.Close()
		choose(r.(*reader).files)
		if got, err := io.ReadAll(r); string(got) != "fbbbff" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// TestReplaced: a directory of the layer becomes a link that leads out, and a directory again, while
// files in it are opened. What is read is the layer's.
func TestReplaced(t *testing.T) {
	eachWay(t, func(t *testing.T, choose func(*directory) *directory) {
		outside := t.TempDir()
		write(t, filepath.Join(outside, "file"), []byte("secret"))
		var dir string
		s, stack := craft(t, "overlay2", nil, func(files string) { dir = files })
		name := filepath.Join(dir, "name")
		must(t, os.Mkdir(name, 0o700))
		write(t, filepath.Join(name, "file"), []byte("public"))
		must(t, os.Symlink(outside, filepath.Join(dir, "link")))
		files, _, err := s.find(stack)
		must(t, err)
		defer files.Close()
		choose(files)
		done := make(chan error)
		go func() {
			var err error
			for i := 0; i < 2000 && err == nil; i++ {
				err = errors.Join(os.Rename(name, name+"-away"), os.Rename(filepath.Join(dir, "link"), name), os.Rename(name, filepath.Join(dir, "link")), os.Rename(name+"-away", name))
			}
			done <- err
		}()
		read := func() error {
			f, _, err := files.open("name/file")
			if err != nil {
				return err
			}
			defer f.Close()
			if got, err := io.ReadAll(f); string(got) != "public" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			return nil
		}
		for {
			select {
			case err := <-done:
				must(t, err)
				must(t, read())
				return
			default:
				_ = read() // where the directory just is a link
			}
		}
	})
}

// TestTarFiles: one file is kept open, however many are read.
func TestTarFiles(t *testing.T) {
	var entries []storage.Entry
	for i := range 100 {
		entries = append(entries, file(strconv.Itoa(i), 1))
	}
	s, stack := craft(t, "overlay2", entries, func(dir string) {
		for i := range 100 {
			write(t, filepath.Join(dir, strconv.Itoa(i)), []byte("x"))
		}
	})
	before := openFiles(t)
	tar, err := s.Tar(t.Context(), stack)
	must(t, err)
	for i := range int64(100) {
		for range 2 {
			if _, err := tar.ReadAt(make([]byte, 1), i); err != nil {
				t.Fatal(err)
			}
		}
	}
	if now := openFiles(t); now > before+3 { // the directory, twice at most, and a file
		t.Errorf("%d files are open, and %d were before", now, before)
	}
	must(t, tar.Close())
	if now := openFiles(t); now > before {
		t.Errorf("%d files stay open, and %d were before", now, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/dev/fd")
	must(t, err)
	return len(names)
}
