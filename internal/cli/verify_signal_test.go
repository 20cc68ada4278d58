//go:build unix

package cli

import (
	"strings"
	"syscall"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// TestSignalDuringVerify ends a verification while it reads a layer: at once, with
// what it had found until then and no word of what it had not read.
func TestSignalDuringVerify(t *testing.T) {
	engine := enginetest.For(t)
	ref := oneLayer(t, engine, 25<<20)
	server := s3test.For(t)
	setAccount(t, server.Account)
	bucket := server.Bucket(t)
	proxy := server.ProxyFor(t)
	remote := "s3://" + bucket + "/images?endpoint="
	run(t, engine.Host, "push", "--compression=none", remote+server.Endpoint, ref)
	run(t, engine.Host, "verify", remote+server.Endpoint)
	for _, c := range signalCases {
		t.Run(c.signal.String(), func(t *testing.T) {
			proxy.Reset()
			p := start(t, engine.Host, "verify", "--json", "--limit-download=200kB", remote+proxy.Endpoint)
			p.until("it reads the layer", func() bool {
				for _, r := range proxy.Requests() {
					if r.Op == "GetObject" && strings.HasSuffix(r.Path, "/layer.tar") {
						return true
					}
				}
				return false
			})
			p.end(c.signal, c.code, c.told)
			if c.signal == syscall.SIGKILL {
				return
			}
			var result struct {
				Images   int
				Layers   int
				Findings []any
				Error    struct{ Message string }
			}
			p.oneDocument(&result)
			if result.Images != 1 || result.Layers != 0 || len(result.Findings) > 0 || !strings.Contains(c.told, result.Error.Message) {
				t.Errorf("%+v", result)
			}
			if strings.Contains(p.stderr.String(), "layers: done") {
				t.Errorf("it says that it is done:\n%s", p.stderr.String())
			}
		})
	}
}
