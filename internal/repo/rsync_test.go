package repo_test

import (
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/rsync"
	"github.com/dogestry/dogestry/internal/storage/rsync/rsynctest"
)

// TestRemoteRsync runs the suite on a real rsync server. Each operation of it starts
// processes there and here, some thousands: it is for `make test-rsync`.
func TestRemoteRsync(t *testing.T) {
	if !*every {
		t.Skip("it takes minutes: make test-rsync")
	}
	remotetest.Run(t, remotetest.Harness{
		Conflicts: true, Sessions: true, Untags: true, Signs: true, Stored: true, Memberships: true, Uploads: true,
		Open: func(t *testing.T) remotetest.Target {
			server, err := rsynctest.Start(t.TempDir(), rsynctest.Module{Name: "module", Path: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(server.Stop)
			return target(t, openModule(t, server.URL("module/images")), openModule(t, server.URL("module/images")), codec.LZ4)
		},
	})
}

func openModule(t *testing.T, url string) *rsync.Store {
	t.Helper()
	o, err := rsync.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	o.Spool, o.Backoff = t.TempDir(), time.Millisecond
	s, err := rsync.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
