//go:build unix

package layerstore

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/vbatts/tar-split/tar/storage"
)

// TestHostile is about layers whose author wants dogestry to read, or to wait
// for, something else.
func TestHostile(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, []byte("secret"))
	link := func(to string) func(string) {
		return func(dir string) {
			if err := os.Symlink(to, filepath.Join(dir, "name")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		entries []storage.Entry
		fill    func(dir string)
	}{
		"a name that climbs":   {[]storage.Entry{file("../../../"+filepath.Base(secret), 6)}, nil},
		"an absolute name":     {[]storage.Entry{file(secret, 6)}, nil},
		"an absolute link":     {[]storage.Entry{file("name", 6)}, link(secret)},
		"a link that climbs":   {[]storage.Entry{file("name/secret", 6)}, link("../../../../..")},
		"a link to itself":     {[]storage.Entry{file("name", 6)}, link("name")},
		"nothing there":        {[]storage.Entry{file("name", 6)}, nil},
		"a directory":          {[]storage.Entry{file(".", 6)}, nil},
		"a FIFO":               {[]storage.Entry{file("name", 6)}, func(dir string) { must(t, syscall.Mkfifo(filepath.Join(dir, "name"), 0o600)) }},
		"a file too short":     {[]storage.Entry{file("name", 6)}, func(dir string) { write(t, filepath.Join(dir, "name"), []byte("short")) }},
		"a size below zero":    {[]storage.Entry{file("name", -1)}, nil},
		"sizes beyond numbers": {[]storage.Entry{file("a", 1<<62), file("b", 1<<62)}, nil},
		"a name twice":         {[]storage.Entry{file("a", 1), file("a", 1)}, nil},
		"an unknown type":      {[]storage.Entry{{Type: 9}}, nil},
	} {
		s, stack := craft(t, "overlay2", test.entries, test.fill)
		if tar, err := s.Tar(t.Context(), stack); err == nil {
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
		got, err := io.ReadAll(r)
		if err == nil || bytes.Contains(got, []byte("sec")) {
			t.Errorf("%s: %q, %v, want an error", name, got, err)
		}
		_ = r.Close()
	}
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
	if now := openFiles(t); now > before+2 { // the directory, and a file
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
