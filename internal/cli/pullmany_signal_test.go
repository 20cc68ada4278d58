//go:build unix

package cli

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSignalDuringPullOntoMany: engines that do not answer do not hold up an interrupt,
// neither in the check nor in the pull, and each has its row.
func TestSignalDuringPullOntoMany(t *testing.T) {
	dir, err := os.MkdirTemp("", "dgy") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	remote := filepath.Join(dir, "remote")
	if err := os.CopyFS(remote, os.DirFS("../../testdata/golden/2.0")); err != nil {
		t.Fatal(err)
	}
	for _, more := range []string{"--json", "--skip-checks"} {
		t.Run(more, func(t *testing.T) {
			var hanging []net.Listener
			var urls []string
			for _, name := range []string{"a", "b"} {
				socket, err := net.Listen("unix", filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				defer socket.Close()
				hanging, urls = append(hanging, socket), append(urls, "unix://"+socket.Addr().String())
			}
			p := start(t, "unix:///nowhere.sock", "pull", more, remote, "app:1", "--engine", strings.Join(urls, ","))
			for _, socket := range hanging {
				connection, err := socket.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer connection.Close()
			}
			p.end(syscall.SIGINT, exitInterrupted, "dogestry: interrupted\n")
			if more != "--json" {
				if out := p.stdout.String(); strings.Count(out, " stopped ") != 2 {
					t.Errorf("it printed\n%s", out)
				}
				return
			}
			var result struct {
				Engines []struct{ Engine, Status string }
				Error   struct{ Message string }
			}
			p.oneDocument(&result)
			if len(result.Engines) != 2 || result.Engines[0].Engine != urls[0] || result.Engines[0].Status != "stopped" || result.Error.Message != "interrupted" {
				t.Errorf("it printed %s", p.stdout.String())
			}
		})
	}
}
