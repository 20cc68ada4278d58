package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
)

// holderEnv names the directory in which this test binary, run as a child, holds an object until it is killed.
const holderEnv = "DOGESTRY_TEST_HOLDER"

func holdUntilKilled(dir string) {
	s, err := Open(dir)
	if err != nil {
		panic(err)
	}
	if _, err := s.Hold(context.Background(), "run/x", []byte("held")); err != nil {
		panic(err)
	}
	fmt.Println("holding")
	time.Sleep(time.Hour)
}

func isHeld(t *testing.T, s *Store, key string) bool {
	t.Helper()
	held, err := s.IsHeld(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// TestHold: an object is held until it is released, and its time can be renewed.
func TestHold(t *testing.T) {
	dir := t.TempDir()
	s, other := open(t, dir), open(t, dir)
	if isHeld(t, s, "run/x") {
		t.Error("what is not there is held")
	}
	put(t, s, "run/y", "y")
	if isHeld(t, s, "run/y") {
		t.Error("what nobody holds is held")
	}
	h, err := s.Hold(t.Context(), "run/x", []byte("held"))
	if err != nil {
		t.Fatal(err)
	}
	if got := get(t, other, "run/x"); got != "held" {
		t.Errorf("it holds %q", got)
	}
	for _, side := range []*Store{s, other, s} {
		if !isHeld(t, side, "run/x") {
			t.Error("it is not held")
		}
	}
	if n, err := other.Sweep(t.Context(), "", 0); n != 0 || err != nil {
		t.Errorf("a sweep removes %d, error %v", n, err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "run", "x"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := h.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if info, err := other.Stat(t.Context(), "run/x"); err != nil || time.Since(info.Modified) > time.Minute {
		t.Errorf("renewed, it is of %v, error %v", info.Modified, err)
	}
	if err := s.Delete(t.Context(), "run/y"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "run")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty directory is left: %v", err)
	}
	if _, err := s.Stat(t.Context(), "run/x"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("released, it is there: %v", err)
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

// TestHoldRemoved: what others have removed is not renewed, and what they have put there is not released.
func TestHoldRemoved(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	h, err := s.Hold(t.Context(), "run/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "run/x"); err != nil {
		t.Fatal(err)
	}
	if err := h.Renew(t.Context()); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("removed, it is renewed: %v", err)
	}
	put(t, s, "run/x", "another's")
	if err := h.Renew(t.Context()); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("replaced, it is renewed: %v", err)
	}
	if err := h.Release(t.Context()); err != nil || get(t, s, "run/x") != "another's" {
		t.Errorf("another's object is gone, error %v", err)
	}
}

// TestHoldEndsWithItsProcess: a killed process holds nothing.
func TestHoldEndsWithItsProcess(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	kill := startChild(t, holderEnv, dir)
	if !isHeld(t, s, "run/x") {
		t.Error("what another process holds is not held")
	}
	kill()
	if isHeld(t, s, "run/x") {
		t.Error("what a killed process held is held")
	}
	if got := get(t, s, "run/x"); got != "held" {
		t.Errorf("it has left %q", got)
	}
}
