package repo_test

import (
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/rsync"
	"github.com/dogestry/dogestry/internal/storage/rsync/rsynctest"
)

// TestRemoteRsync runs the suite on a real rsync server. Each operation of it starts
// processes there and here, some thousands: it is for `make test-transports`.
func TestRemoteRsync(t *testing.T) {
	if !*every {
		t.Skip("it takes minutes: make test-transports")
	}
	server, err := rsynctest.Start(t.TempDir(), rsynctest.Module{Name: "module", Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	n := 0
	remotetest.Run(t, remotetest.Harness{
		Conflicts: true, Sessions: true, Untags: true, Signs: true, Stored: true, Memberships: true, Uploads: true,
		Open: func(t *testing.T) remotetest.Target {
			n++
			url := server.URL("module/images" + strconv.Itoa(n))
			return target(t, openModule(t, url), openModule(t, url), codec.LZ4)
		},
		Lasting: []goleak.Option{goleak.IgnoreCurrent()}, // the server's
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
