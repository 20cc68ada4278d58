package ssh

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/storage/ssh/sshtest"
)

// silenced returns a store with an object that is being read, and whose server says
// nothing any more.
func silenced(t *testing.T, ctx context.Context, alive time.Duration) (*Store, io.ReadCloser) {
	t.Helper()
	server := sshtest.Start(t, sshtest.Options{})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, 16<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	o := parse(t, server.URL(dir))
	o.Alive = alive
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	r, err := s.Get(ctx, "large", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := server.Silence(); err != nil {
		t.Fatal(err)
	}
	return s, r
}

// TestSilentWire: a wire that was cut without a word is noticed, by the signs of life.
func TestSilentWire(t *testing.T) {
	s, r := silenced(t, t.Context(), 3*time.Second)
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err == nil || !strings.Contains(err.Error(), "broke off") || !strings.Contains(err.Error(), "not responding") {
		t.Errorf("reading: %v", err)
	}
	// What is asked next goes by a new connection.
	if _, err := s.Stat(t.Context(), "large"); err != nil {
		t.Error(err)
	}
}

// TestGivenUp: who gives up does not wait for a server that says nothing.
func TestGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, r := silenced(t, ctx, time.Hour)
	cancel()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = r.Close()
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute): // it takes some seconds
		t.Error("Close waits for the server")
		s.pool.mu.Lock()
		defer s.pool.mu.Unlock()
		for _, c := range s.pool.live {
			c.process.kill()
		}
	}
}
