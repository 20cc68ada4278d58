//go:build unix

package cli

import (
	"strings"
	"syscall"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// TestSignalDuringUpload ends a push to a bucket while a layer of several parts is
// on its way: there is no object of it, and after a signal that can be caught no
// part either. What a kill leaves is swept, and the same push goes through.
func TestSignalDuringUpload(t *testing.T) {
	engine := enginetest.For(t)
	ref := oneLayer(t, engine, 25<<20)
	server := s3test.For(t)
	setAccount(t, server.Account)
	for _, c := range []struct {
		signal syscall.Signal
		code   int
		told   string
		left   int // unfinished uploads
	}{
		{syscall.SIGINT, 130, "dogestry: interrupted\n", 0},
		{syscall.SIGKILL, -1, "", 1},
	} {
		t.Run(c.signal.String(), func(t *testing.T) {
			bucket := server.Bucket(t)
			proxy := server.ProxyFor(t)
			remote := "s3://" + bucket + "/images?part-size=5MiB&endpoint="
			proxy.SetFault(s3test.Between(3, -1, s3test.Is("UploadPart"), s3test.Stall()))
			p := start(t, engine.Host, "push", "--engine-store=off", "--compression=none", remote+proxy.Endpoint, ref)
			p.until("two parts are stored", func() bool {
				stored := 0
				for _, r := range proxy.Requests() {
					if r.Op == "UploadPart" && r.Status == 200 {
						stored++
					}
				}
				return stored == 2
			})
			p.end(c.signal, c.code, c.told)
			if left := server.Uploads(t, bucket); len(left) != c.left {
				t.Errorf("unfinished uploads: %q, want %d", left, c.left)
			}
			for _, f := range files(t, server.Dir(bucket)) {
				if strings.Contains(f, "/layer.tar") || strings.Contains(f, "/repositories/") {
					t.Errorf("a push that did not end left %s", f)
				}
			}

			out := run(t, engine.Host, "check", "--sweep", "--older-than=0s", remote+server.Endpoint)
			if left := server.Uploads(t, bucket); len(left) > 0 || !strings.Contains(out, "left-overs that were older than 0s") {
				t.Errorf("a sweep left %q:\n%s", left, out)
			}
			run(t, engine.Host, "push", "--engine-store=off", "--compression=none", remote+server.Endpoint, ref)
			if _, err := engine.Docker(t.Context(), nil, "rmi", ref); err != nil {
				t.Fatal(err)
			}
			run(t, engine.Host, "pull", remote+server.Endpoint, ref)
			if _, ok, err := engine.ImageID(t.Context(), ref); !ok || err != nil {
				t.Errorf("after the second push and a pull the engine has no %s (error: %v)", ref, err)
			}
		})
	}
}

// TestInterruptWhileRetrying interrupts a push that waits to try again.
func TestInterruptWhileRetrying(t *testing.T) {
	server := s3test.For(t)
	setAccount(t, server.Account)
	proxy := server.ProxyFor(t)
	proxy.SetFault(s3test.Always(s3test.Any, s3test.Answer(503, "SlowDown")))
	p := start(t, "unix:///nowhere.sock", "list", "s3://"+server.Bucket(t)+"?endpoint="+proxy.Endpoint)
	p.until("it has failed a few times", func() bool { return proxy.Count() > 2 })
	p.end(syscall.SIGINT, 130, "dogestry: interrupted\n")
}
