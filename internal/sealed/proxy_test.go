package sealed

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// gate serves one that allows addresses, and returns where and what stops it.
func gate(t *testing.T, allow ...string) (address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	g := NewGate(seal(t, Options{Allow: allow}), slog.New(slog.DiscardHandler))
	go func() { ended <- g.Serve(ctx, l) }()
	return l.Addr().String(), func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// by is a client whose proxy is at address.
func by(t *testing.T, address string, like *http.Client) *http.Client {
	t.Helper()
	transport := like.Transport.(*http.Transport).Clone()
	transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: address})
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// TestGate: what is allowed comes through, with and without TLS; all else is refused
// in words that a Go client, which engines are, makes its error of.
func TestGate(t *testing.T) {
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello "+r.Host) }) //nolint:errcheck
	plain, secure, other := httptest.NewServer(hello), httptest.NewTLSServer(hello), httptest.NewTLSServer(hello)
	defer plain.Close()
	defer secure.Close()
	defer other.Close()
	host := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	address, stop := gate(t, host(plain), host(secure))
	defer stop()
	for _, s := range []*httptest.Server{plain, secure} {
		answer, err := by(t, address, s.Client()).Get(s.URL)
		if err != nil {
			t.Error(err)
			continue
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || string(body) != "hello "+host(s) {
			t.Errorf("%s, %v", body, err)
		}
	}
	const why = "dogestry is sealed: "
	if _, err := by(t, address, other.Client()).Get(other.URL); err == nil || !strings.HasSuffix(err.Error(), why+host(other)+" is not contacted. Have the image in the remote first: dogestry copy") {
		t.Errorf("CONNECT: %v", err)
	}
	if _, err := by(t, address, other.Client()).Get("https://registry.example/v2/"); err == nil || !strings.Contains(err.Error(), why+"registry.example is not") {
		t.Errorf("a name: %v", err)
	}
	for _, where := range []string{"http://registry.example/v2/", "http://" + address + "/v2/"} {
		answer, err := by(t, address, plain.Client()).Get(where)
		if err != nil {
			t.Error(err)
			continue
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != http.StatusForbidden || !strings.Contains(answer.Status, why) || !strings.Contains(string(body), `"message":"`+why) {
			t.Errorf("%s: %s %s", where, answer.Status, body)
		}
	}
	answer, err := http.Head("http://" + address)
	if err != nil || answer.StatusCode != http.StatusForbidden {
		t.Errorf("HEAD: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestGateHostile: what a client writes into a request does not write headers of the answer.
func TestGateHostile(t *testing.T) {
	address, stop := gate(t)
	defer stop()
	for _, request := range []string{
		"CONNECT a\x1b]0;x\x07b:443 HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT " + strings.Repeat("a", 2000) + ":443 HTTP/1.1\r\nHost: x\r\n\r\n",
		"CONNECT a%0d%0aX:443 HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://a%0d%0aX/ HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: a:1\r\n\r\n",
		"CONNECT 127.0.0.1 HTTP/1.1\r\nHost: x\r\n\r\n", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, request) //nolint:errcheck
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		c.Close()
		if err != nil || answer.StatusCode != http.StatusForbidden && answer.StatusCode != http.StatusBadRequest || len(answer.Status) > 500 || strings.ContainsFunc(answer.Status, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q: %v, %+v", request, err, answer)
		}
	}
}

// TestGateCloses: a tunnel that is open ends with the gate.
func TestGateCloses(t *testing.T) {
	far, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	address, stop := gate(t, far.Addr().String())
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "CONNECT "+far.Addr().String()+" HTTP/1.1\r\nHost: x\r\n\r\nearly") //nolint:errcheck
	server, err := far.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	r := bufio.NewReader(c)
	if answer, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect}); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(server, got); err != nil || string(got) != "early" {
		t.Errorf("%q, %v", got, err)
	}
	io.WriteString(server, "back") //nolint:errcheck
	if _, err := io.ReadFull(r, got[:4]); err != nil || string(got[:4]) != "back" {
		t.Errorf("%q, %v", got, err)
	}
	stop()
	if _, err := r.ReadByte(); err == nil {
		t.Error("the tunnel is open")
	}
	if _, err := server.Read(got); err == nil {
		t.Error("its other side is open")
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("it answers")
	}
}
