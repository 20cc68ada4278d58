package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/storage"
)

// TestUpdateAtOnce lets many, on two Stores, add a line each: none is lost.
func TestUpdateAtOnce(t *testing.T) {
	dir := t.TempDir()
	stores := []*Store{open(t, dir), open(t, dir)}
	const writers, rounds = 8, 10
	var g errgroup.Group
	for i := range writers {
		g.Go(func() error {
			for round := range rounds {
				err := stores[i%2].Update(t.Context(), "lines", 1<<20, func(old []byte) ([]byte, error) {
					return fmt.Appendf(old[:len(old):len(old)], "%d of %d\n", round, i), nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "lines"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range writers {
		for round := range rounds {
			if line := fmt.Sprintf("%d of %d\n", round, i); strings.Count(string(b), line) != 1 {
				t.Errorf("%q is there %d times", line, strings.Count(string(b), line))
			}
		}
	}
	onlyFile(t, dir, "lines")
}

// TestUpdateFails proves that what fails changes nothing and leaves nothing behind.
func TestUpdateFails(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	broken := errors.New("no")
	ended, cancel := context.WithCancel(t.Context())
	more := func(old []byte) ([]byte, error) { return append(old, "more"...), nil }
	if err := s.Update(t.Context(), "a", 10, func(old []byte) ([]byte, error) {
		if old != nil {
			t.Errorf("a new object has %q", old)
		}
		return []byte("first"), nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), "a", 10, func([]byte) ([]byte, error) { return []byte("x"), broken }); err != broken {
		t.Errorf("got %v, want the error of change", err)
	}
	if err := s.Update(t.Context(), "a", 4, more); !errors.Is(err, storage.ErrTooLarge) {
		t.Errorf("got %v, want too large", err)
	}
	err := s.Update(ended, "a", 10, func(old []byte) ([]byte, error) {
		cancel()
		return more(old)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled meanwhile: %v", err)
	}
	if err := s.Update(ended, "a", 10, more); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	guard := storage.WithGuard(t.Context(), func(context.Context) error { return broken })
	if err := s.Update(guard, "a", 10, more); !errors.Is(err, broken) {
		t.Errorf("not allowed: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(b) != "first" {
		t.Errorf("the object is %q, %v", b, err)
	}
	onlyFile(t, dir, "a")
	if err := os.Symlink("a", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), "link", 10, more); !errors.Is(err, errNoFile) {
		t.Errorf("a link: %v", err)
	}
}

func onlyFile(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("the directory has %v, %v; want %s alone", entries, err, name)
	}
}
