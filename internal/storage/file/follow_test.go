package file

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
)

// TestPutFollowed reads an object while it is written, and after it was deleted.
func TestPutFollowed(t *testing.T) {
	s := open(t, t.TempDir())
	var growing storage.Growing
	begun := func(g storage.Growing) { growing = g }
	readAll := func() string {
		t.Helper()
		b, err := io.ReadAll(io.NewSectionReader(growing, 0, 1<<40))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first := strings.Repeat("x", smallBuffer)
	body := io.MultiReader(strings.NewReader(first), readerFunc(func([]byte) (int, error) {
		if got := readAll(); got != first { // what came before the next Read is there
			t.Errorf("while it is written %d bytes are there", len(got))
		}
		if _, err := s.Stat(t.Context(), "a/b"); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("the object is there already: %v", err)
		}
		return 0, io.EOF
	}), strings.NewReader("the end"))
	if err := s.PutFollowed(t.Context(), "a/b", body, begun); err != nil {
		t.Fatal(err)
	}
	if got := readAll(); got != first+"the end" {
		t.Errorf("then there are %d bytes", len(got))
	}
	if b, err := storage.Read(t.Context(), s, "a/b", 1<<20); err != nil || string(b) != first+"the end" {
		t.Errorf("the object has %d bytes, %v", len(b), err)
	}
	if err := s.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	if got := readAll(); got != first+"the end" {
		t.Errorf("once it is deleted there are %d bytes", len(got))
	}
	if err := growing.Close(); err != nil {
		t.Error(err)
	}
}

// TestPutFollowedFails: nothing is published, what was written can be read to the
// end, and who could not begin is not told of a beginning.
func TestPutFollowedFails(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var growing storage.Growing
	broken := errors.New("broken")
	body := io.MultiReader(bytes.NewReader(make([]byte, smallBuffer)), iotest.ErrReader(broken))
	if err := s.PutFollowed(t.Context(), "a", body, func(g storage.Growing) { growing = g }); !errors.Is(err, broken) {
		t.Errorf("%v, want the body's error", err)
	}
	if n, err := growing.ReadAt(make([]byte, 2*smallBuffer), 0); n != smallBuffer || err != io.EOF {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := growing.Close(); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("%v is left, %v", entries, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.PutFollowed(ended, "a", body, func(storage.Growing) { t.Error("begun") }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's end", err)
	}
}

// TestTouch makes an object younger, and nothing else.
func TestTouch(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := s.Put(t.Context(), "a/b", strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "a", "b"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := s.Touch(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(dir, "a", "b"))
	if err != nil || time.Since(fi.ModTime()) > time.Minute {
		t.Errorf("it is of %s, %v", fi.ModTime(), err)
	}
	if b, err := storage.Read(t.Context(), s, "a/b", 100); err != nil || string(b) != "content" {
		t.Errorf("it has %q, %v", b, err)
	}
	if err := s.Touch(t.Context(), "a/c"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("nothing there: %v", err)
	}
	if err := s.Touch(t.Context(), ".a"); !errors.Is(err, storage.ErrInvalidKey) {
		t.Errorf("no key: %v", err)
	}
}
