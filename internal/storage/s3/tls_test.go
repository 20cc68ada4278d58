package s3_test

import (
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// withTLS is a server by https, with a certificate that nobody knows, which
// speaks HTTP/2 to who asks for it. seen may be nil.
func withTLS(t *testing.T, server *s3test.Server, seen func(*http.Request)) (front *httptest.Server, contacts *atomic.Int64) {
	t.Helper()
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true}
	front = httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
			if seen != nil {
				seen(r.In)
			}
		},
		Transport: transport,
	})
	contacts = new(atomic.Int64)
	front.Config.ErrorLog = log.New(io.Discard, "", 0) // what clients think of the certificate
	front.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			contacts.Add(1)
		}
	}
	front.EnableHTTP2 = true
	front.StartTLS()
	t.Cleanup(func() { front.Close(); transport.CloseIdleConnections() })
	return front, contacts
}

func TestTLS(t *testing.T) {
	server := s3test.For(t)
	front, contacts := withTLS(t, server, nil)
	b := server.Bucket(t)
	s := open(t, server.Account, front.URL, b, nil)
	err := s.Put(t.Context(), "key", strings.NewReader("x"))
	if err == nil || !strings.Contains(err.Error(), "certificate is not trusted") || !strings.Contains(advice(err), "AWS_CA_BUNDLE") {
		t.Errorf("an unknown authority: %v (%s)", err, advice(err))
	}
	if n := contacts.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}

	bundle := authority(t, front)
	trusting := open(t, server.Account, front.URL, b, func(*s3.Options) { t.Setenv("AWS_CA_BUNDLE", bundle) })
	body := noise(17 << 20)
	put(t, trusting, "large", body)
	holds(t, trusting, "large", body)
	holds(t, open(t, server.Account, server.Endpoint, b, nil), "large", body)

	_, err = tryOpen(t, server.Account, front.URL, b, func(*s3.Options) { t.Setenv("AWS_CA_BUNDLE", bundle+".none") })
	if err == nil || !strings.Contains(advice(err), "AWS_CA_BUNDLE") {
		t.Errorf("no bundle: %v (%s)", err, advice(err))
	}
}

// authority is a file with the certificate of a server.
func authority(t *testing.T, front *httptest.Server) string {
	t.Helper()
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
	if err := os.WriteFile(bundle, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return bundle
}

// TestOwnConnections makes sure that pieces that travel at once have a connection
// each, with and without an authority of the user's own: HTTP/2 would give them one.
func TestOwnConnections(t *testing.T) {
	server := s3test.For(t)
	const atOnce = 3
	var others, pieces atomic.Int64
	met, late := make(chan struct{}), time.After(20*time.Second)
	meet := sync.OnceFunc(func() { close(met) })
	front, contacts := withTLS(t, server, func(r *http.Request) {
		if r.ProtoMajor != 1 || r.TLS.NegotiatedProtocol == "h2" {
			others.Add(1)
		}
		if r.Method != http.MethodGet || strings.HasPrefix(r.Header.Get("Range"), "bytes=0-") {
			return
		}
		if pieces.Add(1) == atOnce {
			meet()
		}
		select { // so that they meet
		case <-met:
		case <-late:
			meet()
		}
	})
	bundle := authority(t, front)
	s := open(t, server.Account, front.URL, server.Bucket(t), func(*s3.Options) { t.Setenv("AWS_CA_BUNDLE", bundle) })
	body := noise(16 << 20) // four pieces, of which three are read at once when the first is there
	put(t, s, "large", body)
	holds(t, s, "large", body)
	if others.Load() != 0 || contacts.Load() < atOnce {
		t.Errorf("%d requests by another protocol than HTTP/1.1, %d connections", others.Load(), contacts.Load())
	}
}

// TestNoTLS is about an endpoint that was written without http://.
func TestNoTLS(t *testing.T) {
	server := s3test.For(t)
	host := strings.TrimPrefix(server.Endpoint, "http://")
	var told notes
	s := open(t, server.Account, "https://"+host, server.Bucket(t), func(o *s3.Options) { o.Notify = told.add })
	err := s.Put(t.Context(), "key", strings.NewReader("x"))
	if err == nil || !strings.Contains(err.Error(), "does not speak TLS") || !strings.Contains(advice(err), "http://") {
		t.Errorf("https to a server without TLS: %v (%s)", err, advice(err))
	}
	if told.all() != "" {
		t.Errorf("it was tried again: %s", told.all())
	}
}
