package sealed

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func seal(t *testing.T, o Options) *Seal {
	t.Helper()
	o.From = "--sealed"
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// refused makes sure that err is what a Seal says of what.
func refused(t *testing.T, err error, what string) {
	t.Helper()
	if !fault.Is(Refusal(err), fault.Refused) || !errors.Is(err, ErrSealed) || fault.KindOf(err) != fault.Refused {
		t.Fatalf("error %v, want a refusal", err)
	}
	if s := Refusal(err).Error(); !strings.Contains(s, what) || !strings.Contains(s, "dogestry is sealed (--sealed)") {
		t.Errorf("it says %q, which lacks %q or who sealed it", s, what)
	}
	if !strings.Contains(fault.AdviceOf(err), "sealed-") {
		t.Errorf("advice %q", fault.AdviceOf(err))
	}
}

// TestDial: what is not on the list is not dialled, and so no name of it is looked up.
func TestDial(t *testing.T) {
	s := seal(t, Options{Allow: []string{"STS.example:443", "10.0.0.1:80", "[::1]:53"}})
	s.Admit("tcp", "bucket.example.:9000")
	s.Admit("unix", "/run/docker.sock")
	var dialled []string
	dial := s.Dial(func(_ context.Context, network, address string) (net.Conn, error) {
		dialled = append(dialled, network+" "+address)
		return nil, io.ErrClosedPipe
	})
	for _, allowed := range []string{
		"tcp sts.example:443", "tcp4 sts.example.:443", "tcp 10.0.0.1:80", "tcp [::ffff:10.0.0.1]:80", "tcp6 [0:0::1]:53", "tcp bucket.example:9000", "unix /run/docker.sock",
	} {
		network, address, _ := strings.Cut(allowed, " ")
		if _, err := dial(t.Context(), network, address); !errors.Is(err, io.ErrClosedPipe) || len(dialled) != 1 || dialled[0] != allowed {
			t.Errorf("%s: %v, dialled %v", allowed, err, dialled)
		}
		dialled = nil
	}
	for _, other := range []string{
		"tcp sts.example:80", "tcp sts.example.org:443", "tcp evil.sts.example:443", "tcp 10.0.0.2:80", "udp 10.0.0.1:80", "udp sts.example:443",
		"unix /run/other.sock", "tcp /run/docker.sock", "tcp sts.example", "tcp :443", "ip 10.0.0.1", "unix sts.example:443",
	} {
		network, address, _ := strings.Cut(other, " ")
		_, err := dial(t.Context(), network, address)
		refused(t, err, address+" was not contacted")
		if len(dialled) > 0 {
			t.Errorf("%s was dialled", other)
		}
	}
}

// TestNoSeal: nil changes nothing.
func TestNoSeal(t *testing.T) {
	var s *Seal
	s.Admit("tcp", "a:1")
	var called bool
	dial := s.Dial(func(context.Context, string, string) (net.Conn, error) { called = true; return nil, io.EOF })
	if _, err := dial(t.Context(), "tcp", "a:1"); !errors.Is(err, io.EOF) || !called {
		t.Error(err)
	}
	transport := &http.Transport{}
	s.Transport(transport)
	if transport.DialContext != nil || transport.Proxy != nil {
		t.Error("it changes a transport")
	}
	if err := errors.Join(s.Program("anything"), s.Command("any | thing"), s.Check("udp", "a:1")); err != nil {
		t.Error(err)
	}
}

// TestTransport: redirects, proxies and a transport's own ways to dial do not go around it.
func TestTransport(t *testing.T) {
	far := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the server that is not allowed was asked") }))
	defer far.Close()
	near := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.IsAbs() {
			io.WriteString(w, "by proxy") //nolint:errcheck
			return
		}
		http.Redirect(w, r, far.URL, http.StatusTemporaryRedirect)
	}))
	defer near.Close()
	address := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	get := func(s *Seal, to string, proxy *httptest.Server) (string, error) {
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		if proxy != nil {
			u, _ := url.Parse(proxy.URL)
			transport.Proxy = http.ProxyURL(u)
		}
		s.Transport(transport)
		answer, err := (&http.Client{Transport: transport}).Get(to)
		if err != nil {
			return "", err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		return string(body), err
	}
	_, err := get(seal(t, Options{Allow: []string{address(near)}}), near.URL, nil)
	refused(t, err, address(far)+" was not contacted")

	_, err = get(seal(t, Options{Allow: []string{address(near)}}), "http://remote.example/x", near)
	refused(t, err, "remote.example:80 was not contacted")
	_, err = get(seal(t, Options{Allow: []string{"remote.example:80"}}), "http://remote.example/x", far)
	refused(t, err, "remote.example:80 was not contacted by way of the proxy "+address(far))

	// A dialer that somebody else put there afterwards.
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	seal(t, Options{}).Transport(transport)
	transport.DialContext = new(net.Dialer).DialContext
	_, err = (&http.Client{Transport: transport}).Get(far.URL)
	refused(t, err, address(far)+" was not contacted")
	// A way to find a proxy that somebody else put there afterwards.
	transport = &http.Transport{}
	defer transport.CloseIdleConnections()
	seal(t, Options{}).Transport(transport)
	transport.Proxy = nil
	_, err = (&http.Client{Transport: transport}).Get(far.URL)
	refused(t, err, address(far)+" was not contacted")
	body, err := get(seal(t, Options{Allow: []string{"remote.example:80", address(near)}}), "http://remote.example/x", near)
	if body != "by proxy" || err != nil {
		t.Errorf("a proxy that is allowed: %q, %v", body, err)
	}
}

// TestPrograms are allowed by the names by which they are run, and no shell is a way around.
func TestPrograms(t *testing.T) {
	s := seal(t, Options{Programs: []string{"ssh", "/usr/bin/vault"}})
	for _, ok := range []string{"ssh", "/usr/bin/vault"} {
		if err := s.Program(ok); err != nil {
			t.Error(err)
		}
	}
	for _, other := range []string{"curl", "/tmp/ssh", "vault", "sshd", ""} {
		refused(t, s.Program(other), "was not run")
	}
	for _, ok := range []string{"ssh -l me host", "  /usr/bin/vault export", `"/usr/bin/vault" --format json`} {
		if err := s.Command(ok); err != nil {
			t.Error(err)
		}
	}
	for _, other := range []string{"", "curl x", "ssh a; curl b", "ssh $(curl x)", "ssh `x`", "ssh a | b", "ssh a && b", "ssh a\ncurl", "(curl)", "ssh <(curl)", "A=b ssh", "exec curl", `"ssh curl"`, `"ssh"curl`, `s"sh"`} {
		if err := s.Command(other); !errors.Is(err, ErrSealed) {
			t.Errorf("%q: %v", other, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, wrong := range []string{"", "host", ":443", "host:", "host:https", "host:0", "host:70000", "http://host:80", "*.example:443", "a@b:1", "host:1:2", "host /x:3"} {
		if _, err := New(Options{Allow: []string{wrong}}); !fault.Is(err, fault.Usage) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	for text, want := range map[string]string{
		"http://a": "a:80", "https://a/x": "a:443", "http://[::1]:5": "[::1]:5", "socks5://p": "p:1080", "https://A.b:9": "A.b:9",
	} {
		u, err := url.Parse(text)
		if err != nil || HostPort(u) != want {
			t.Errorf("%s: %s, %v", text, HostPort(u), err)
		}
	}
}

// TestRefusal of errors of others is none.
func TestRefusal(t *testing.T) {
	for _, err := range []error{nil, io.EOF, fault.New(fault.Refused, "no"), ErrSealed} {
		if Refusal(err) != nil {
			t.Error(err)
		}
	}
}
