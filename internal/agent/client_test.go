package agent

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

const secret = "t0ken-0f-a-test"

// recorded keeps what comes in on the connections of a listener.
type recorded struct {
	net.Listener
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *recorded) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return &recordedConn{conn, l}, err
}

type recordedConn struct {
	net.Conn
	of *recorded
}

func (c *recordedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.all.Write(p[:n])
	return n, err
}

func (l *recorded) bytes() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// startTLS serves with the certificate of httptest, which is for 127.0.0.1.
func startTLS(t *testing.T, h http.Handler) (address string, authorities *x509.CertPool, heard *recorded) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	heard = &recorded{Listener: s.Listener}
	s.Listener = heard
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	authorities = x509.NewCertPool()
	authorities.AddCert(s.Certificate())
	return s.Listener.Addr().String(), authorities, heard
}

// TestTokenStays: a token is sent by TLS to who is known, or within this machine; else nothing is.
func TestTokenStays(t *testing.T) {
	var asked int
	var token string
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		token = r.Header.Get("Authorization")
		writeJSON(w, http.StatusOK, Status{Agent: 1})
	})
	address, authorities, _ := startTLS(t, h)
	ask := func(o ClientOptions) error {
		asked = 0
		o.Token = secret
		c := NewClient(o)
		defer c.Close()
		_, err := c.Status(t.Context())
		_, pull := c.Pull(t.Context(), request("myapp:1"), &progress{})
		if (err == nil) != (pull == nil || !errors.Is(pull, ErrAbsent)) {
			t.Errorf("a look gives %v, a pull %v", err, pull)
		}
		return err
	}
	if err := ask(ClientOptions{Address: address, Authorities: authorities}); err != nil || token != "Bearer "+secret {
		t.Errorf("who is known: %v, and got %q", err, token)
	}
	if err := ask(ClientOptions{Address: address}); !errors.Is(err, ErrAbsent) || !fault.Is(err, fault.Refused) || asked != 0 {
		t.Errorf("who is not known was asked %d times: %v", asked, err)
	}
	_, port, _ := net.SplitHostPort(address)
	if err := ask(ClientOptions{Address: "localhost:" + port, Authorities: authorities}); !errors.Is(err, ErrAbsent) || asked != 0 {
		t.Errorf("who has a certificate for another name was asked %d times: %v", asked, err)
	}

	plain := httptest.NewUnstartedServer(h)
	heard := &recorded{Listener: plain.Listener}
	plain.Listener = heard
	plain.Start()
	defer plain.Close()
	address = plain.Listener.Addr().String()
	if err := ask(ClientOptions{Address: address, Authorities: authorities}); !errors.Is(err, ErrAbsent) || strings.Contains(heard.bytes(), secret) {
		t.Errorf("who speaks no TLS: %v", err)
	}
	// The name is for another machine's, which is what the dialer says.
	away := func(ctx context.Context, network, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return &awayConn{conn}, err
	}
	if err := ask(ClientOptions{Address: "127.0.0.1:22375", Plain: true, dial: away}); !errors.Is(err, ErrAbsent) || asked != 0 || strings.Contains(heard.bytes(), secret) {
		t.Errorf("another machine without TLS was asked %d times: %v", asked, err)
	}
	if err := ask(ClientOptions{Address: address, Plain: true}); err != nil || token != "Bearer "+secret {
		t.Errorf("this machine: %v, and got %q", err, token)
	}
}

// awayConn says that it goes to another machine.
type awayConn struct{ net.Conn }

func (*awayConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 22375} }

// TestAbsent: what is no agent, or lets nobody in, is told as that, and no redirection is followed.
func TestAbsent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	_ = l.Close()
	c := NewClient(ClientOptions{Address: nobody, Plain: true})
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), nobody) || strings.Contains(err.Error(), "Get ") {
		t.Errorf("nobody: %v", err)
	}
	for code, kind := range map[int]fault.Kind{http.StatusUnauthorized: fault.Refused, http.StatusForbidden: fault.Refused, http.StatusNotFound: fault.Other, http.StatusFound: fault.Other, http.StatusServiceUnavailable: fault.Locked} {
		asked := 0
		c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked++
			w.Header().Set("Location", "/v1/elsewhere")
			http.Error(w, "no\x1b[2J\nnever", code)
		}))
		c.waits = nil
		_, err := c.Status(t.Context())
		if !errors.Is(err, ErrAbsent) || fault.KindOf(err) != kind || asked != 1 {
			t.Errorf("%d, asked %d times: %v", code, asked, err)
		}
		if _, err := c.Pull(t.Context(), request("myapp:1"), &progress{}); !errors.Is(err, ErrAbsent) || fault.KindOf(err) != kind {
			t.Errorf("%d: %v", code, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrAbsent) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestSealed: the agent of an engine may be asked, and nobody else.
func TestSealed(t *testing.T) {
	seal, err := sealed.New(sealed.Options{From: "--sealed"})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, Status{Agent: 1}) }))
	defer s.Close()
	address := s.Listener.Addr().String()
	c := NewClient(ClientOptions{Address: address, Plain: true, Seal: seal})
	defer c.Close()
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	if err := seal.Check("tcp", "127.0.0.1:1"); err == nil {
		t.Error("everything may be dialled")
	}
}
