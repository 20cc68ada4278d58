//go:build unix

package cli

import (
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestServeTellsItsProxy: with --json, the one document says where the registry and the
// proxy listen, and the proxy is there.
func TestServeTellsItsProxy(t *testing.T) {
	remote := filepath.Join("..", "..", "testdata", "golden", "2.0")
	p := start(t, noEngine, "serve", "--sealed", "--json", remote, "--listen", "127.0.0.1:0", "--deny-proxy", "127.0.0.1:0")
	p.until("it says where it listens", func() bool { return strings.HasSuffix(p.stdout.String(), "}\n") })
	var said struct{ Address, Proxy string }
	p.oneDocument(&said)
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: said.Proxy})}
	defer transport.CloseIdleConnections()
	for host, want := range map[string]int{said.Address: http.StatusOK, "elsewhere.example": http.StatusForbidden} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatalf("%v; it says %s", err, p.stdout.String())
		}
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("by the proxy, %s answers %s", host, answer.Status)
		}
	}
	p.end(syscall.SIGTERM, 0, "")
}
