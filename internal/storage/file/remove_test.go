package file

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
)

// patience is how long something is watched that must not happen.
const patience = 50 * time.Millisecond

// hold takes the lock of dir/key as another process would.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	d, err := s.descend([]string{"dir"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	held, err := s.lock(t.Context(), d, "key")
	if err != nil {
		t.Fatal(err)
	}
	return held.close
}

// Whatever changes an object waits for who changes it already, and no longer than its context.
func TestChangesTakeTurns(t *testing.T) {
	for name, change := range map[string]struct {
		do   func(context.Context, *Store) error
		then string
	}{
		"delete if": {func(ctx context.Context, s *Store) error { return s.DeleteIf(ctx, "dir/key", []byte("old")) }, ""},
		"delete":    {func(ctx context.Context, s *Store) error { return s.Delete(ctx, "dir/key") }, ""},
		"put":       {func(ctx context.Context, s *Store) error { return putContent(ctx, s, "new") }, "new"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			put(t, s, "dir/key", "old")
			release := sync.OnceFunc(hold(t, open(t, dir)))
			defer release()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := change.do(ctx, s); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("beside another change: %v, want context.DeadlineExceeded", err)
			}
			if got := get(t, s, "dir/key"); got != "old" {
				t.Errorf("it changed all the same: %q", got)
			}
			done := make(chan error)
			go func() { done <- change.do(t.Context(), s) }()
			select {
			case err := <-done:
				t.Fatalf("it did not wait: %v", err)
			case <-time.After(patience):
			}
			release()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if change.then == "" {
				if _, err := s.Stat(t.Context(), "dir/key"); !errors.Is(err, storage.ErrNotFound) {
					t.Errorf("still there: %v", err)
				}
			} else if got := get(t, s, "dir/key"); got != change.then {
				t.Errorf("there is %q", got)
			}
			if left := leftovers(t, dir); len(left) != 0 {
				t.Errorf("left over: %q", left)
			}
		})
	}
}

func putContent(ctx context.Context, s *Store, content string) error {
	return s.Put(ctx, "dir/key", strings.NewReader(content))
}

// An object that a Put replaces between the last look of a DeleteIf and its removal stays.
func TestDeleteIfBesidePut(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir), open(t, dir)
	put(t, s, "dir/key", "old")
	done := make(chan error, 1)
	looks, lstat := 0, s.lstat
	s.lstat = func(d *os.Root, name string) (fs.FileInfo, error) {
		fi, err := lstat(d, name)
		if _, locked := os.Lstat(filepath.Join(dir, "dir", lockName("key"))); name == "key" && locked == nil {
			if looks++; looks == 1 {
				go func() { done <- putContent(t.Context(), other, "new") }()
				time.Sleep(patience) // as much as a Put takes
			}
		}
		return fi, err
	}
	if err := s.DeleteIf(t.Context(), "dir/key", []byte("old")); err != nil && !errors.Is(err, storage.ErrChanged) {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if looks == 0 {
		t.Fatal("nobody looked by the lock: this test proves nothing")
	}
	if got := get(t, other, "dir/key"); got != "new" {
		t.Errorf("there is %q", got)
	}
}

// A Put that has seen no object does not replace one that came meanwhile while somebody else changes it.
func TestPutOntoALateObject(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir), open(t, dir)
	put(t, s, "dir/beside", "x")
	releases := make(chan func(), 1)
	looks, lstat := 0, s.lstat
	s.lstat = func(d *os.Root, name string) (fs.FileInfo, error) {
		fi, err := lstat(d, name)
		if name == "key" {
			if looks++; looks == 2 { // the one before it publishes
				put(t, other, "dir/key", "late")
				releases <- hold(t, other)
			}
		}
		return fi, err
	}
	done := make(chan error)
	go func() { done <- putContent(t.Context(), s, "new") }()
	select {
	case err := <-done:
		(<-releases)()
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(patience):
	}
	if got := get(t, other, "dir/key"); got != "late" {
		t.Errorf("there is %q", got)
	}
	(<-releases)()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := get(t, other, "dir/key"); got != "new" {
		t.Errorf("there is %q in the end", got)
	}
	if left := leftovers(t, dir); len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
}
