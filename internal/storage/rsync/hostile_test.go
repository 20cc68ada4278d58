package rsync

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage"
)

// TestMoreThanAnnounced proves that a server cannot fill the spool: what comes is bounded
// by what is announced, or asked for.
func TestMoreThanAnnounced(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []string{"", ".x.Abc123"} { // under its name, and on its way
		script := `#!/bin/sh
[ "$1" = --version ] && { echo "rsync  version 3.2.7  protocol version 31"; exit; }
for local; do :; done
echo 1000
head -c 300000000 /dev/zero >"${local}key` + c + `"
exec sleep 60
`
		if err := os.WriteFile(filepath.Join(dir, program), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
		s := openStore(t, "rsync://host/module")
		_, err := s.Get(t.Context(), "key", 0, -1)
		_, readErr := s.ReadSmall(t.Context(), "key", 1<<20)
		for _, err := range []error{err, readErr} {
			if err == nil || !strings.Contains(err.Error(), "more than it has announced") {
				t.Errorf("%q: %v", c, err)
			}
		}
	}
}

// TestGoneMeanwhile proves that what came of an object before the connection broke is
// not taken for the object when that is gone.
func TestGoneMeanwhile(t *testing.T) {
	t.Parallel()
	proxy, dir := proxied(t)
	path := filepath.Join(dir, "layer")
	gone := make(chan error, 1)
	s := openStore(t, proxy.URL("module"), func(o *Options) {
		o.DownloadLimit = 1 << 20
		o.Notify = func(string) { gone <- os.Remove(path) }
	})
	if err := os.WriteFile(path, remotetest.Noise("layer", 64<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		r, err := s.Get(t.Context(), "layer", 0, -1)
		if err == nil {
			_ = r.Close()
		}
		done <- err
	}()
	waitFor(t, "bytes to come", func() bool { _, down := proxy.Bytes(); return down > 1<<20 })
	proxy.Cut()
	if err := <-done; !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("of an object that is gone: %v", err)
	}
	if err := <-gone; err != nil {
		t.Error(err)
	}
}

// TestRefusedAgain proves that a server that refuses what it is not asked for is no endless loop.
func TestRefusedAgain(t *testing.T) {
	s := openStore(t, "rsync://host/module")
	tries := 0
	err := s.again(t.Context(), func(bool) error {
		if tries++; tries > 10 {
			t.Fatal("it goes on")
		}
		return &failed{code: codeUnsupported, said: []string{"The server is configured to refuse --fsync"}}
	})
	if err == nil || tries != 2 {
		t.Errorf("%d tries, %v", tries, err)
	}
}
