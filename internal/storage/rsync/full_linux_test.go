package rsync

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/rsync/rsynctest"
)

// TestFull proves what is said of a full server, and of a full spool.
func TestFull(t *testing.T) {
	full, room := small(t), t.TempDir()
	server := serveModules(t, rsynctest.Module{Name: "full", Path: full}, rsynctest.Module{Name: "room", Path: room})
	body := bytes.Repeat([]byte("x"), 3<<20)
	s := openStore(t, server.URL("full/images"))
	if err := s.Put(t.Context(), "layer", bytes.NewReader(body)); !errors.Is(err, storage.ErrNoSpace) {
		t.Errorf("a full server: %v", err)
	}
	if keys := list(t, s); len(keys) > 0 {
		t.Errorf("there is %q", keys)
	}
	spool := small(t)
	s = openStore(t, server.URL("room/images"), func(o *Options) { o.Spool = filepath.Join(spool, "spool") })
	if err := os.Mkdir(filepath.Join(spool, "spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "layer", bytes.NewReader(body)); err == nil || !strings.Contains(fault.AdviceOf(err), "TMPDIR") || !strings.Contains(err.Error(), spool) {
		t.Errorf("a full spool: %v, %s", err, fault.AdviceOf(err))
	}
	if err := os.Mkdir(filepath.Join(room, "images"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(room, "images/layer"), body, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := get(t.Context(), s, "layer"); err == nil || !strings.Contains(fault.AdviceOf(err), "TMPDIR") || !strings.Contains(err.Error(), spool) {
		t.Errorf("a full spool, reading: %v, %s", err, fault.AdviceOf(err))
	}
}
