//go:build unix

package cli

import (
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// TestSignalDuringCopyToPlace ends a copy into a layout, or an archive, while it
// writes a layer: nothing is named, nothing is left over but what SIGKILL leaves, and
// the same command completes it and removes that too.
func TestSignalDuringCopyToPlace(t *testing.T) {
	engine := enginetest.For(t)
	ref := oneLayer(t, engine, 25<<20)
	server := s3test.For(t)
	setAccount(t, server.Account)
	bucket := "s3://" + server.Bucket(t) + "/images?endpoint="
	from, proxy := bucket+server.Endpoint, server.ProxyFor(t)
	run(t, engine.Host, "push", "--compression=none", from, ref)
	for scheme := range places() {
		for _, c := range []signalCase{signalCases[0], signalCases[2]} {
			t.Run(scheme+" "+c.signal.String(), func(t *testing.T) {
				dir := t.TempDir()
				to := scheme + ":" + filepath.Join(dir, "out")
				proxy.SetFault(s3test.Between(3, -1, isLayer, s3test.Stall())) // the layer comes in more pieces than that
				p := start(t, engine.Host, "copy", bucket+proxy.Endpoint, to, ref)
				p.until("it writes the layer", func() bool {
					for _, f := range temporaryFiles(t, dir) {
						if info, err := os.Stat(f); err == nil && info.Size() > 100<<10 {
							return true
						}
					}
					return false
				})
				p.end(c.signal, c.code, c.told)
				if left := temporaryFiles(t, dir); (len(left) > 0) != (c.signal == syscall.SIGKILL) {
					t.Errorf("left over: %q", left)
				}
				for _, f := range files(t, dir) {
					switch b, err := os.ReadFile(f); {
					case err != nil:
						t.Fatal(err)
					case filepath.Base(f) == "out":
						t.Error("the archive is there")
					case filepath.Base(f) == "index.json" && !strings.Contains(string(b), `"manifests":[]`):
						t.Errorf("the layout names %s", b)
					}
				}
				run(t, engine.Host, "copy", from, to, ref)
				if left := temporaryFiles(t, dir); len(left) > 0 {
					t.Errorf("left over behind the rerun: %q", left)
				}
				run(t, engine.Host, "copy", to, filepath.Join(dir, "back"), ref)
			})
		}
	}
}

// isLayer matches the requests that read a layer, or a piece of one.
func isLayer(r *http.Request) bool {
	return s3test.Is("GetObject")(r) && strings.HasPrefix(path.Base(r.URL.Path), "layer.tar")
}
