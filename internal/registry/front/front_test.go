package front

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
)

func TestRoutes(t *testing.T) {
	for path, want := range map[string]route{
		"/":                               pageRoute,
		"/anything":                       pageRoute,
		"/v2x/a":                          pageRoute,
		"/healthz":                        healthRoute,
		"/metrics":                        metricsRoute,
		"/v2":                             baseRoute,
		"/v2/":                            baseRoute,
		"/v2/_catalog":                    catalogRoute,
		"/v2/a/tags/list":                 tagsRoute,
		"/v2/a/b/c/tags/list":             tagsRoute,
		"/v2/a/manifests/1":               manifestRoute,
		"/v2/a/b/manifests/sha256:0":      manifestRoute,
		"/v2/a/referrers/sha256:0":        referrersRoute,
		"/v2/a/blobs/sha256:0":            blobRoute,
		"/v2/a/blobs/uploads":             uploadRoute,
		"/v2/a/blobs/uploads/":            uploadRoute,
		"/v2/a/blobs/uploads/1":           uploadRoute,
		"/v2/blobs/uploads/blobs/uploads": uploadRoute,
		"/v2/manifests/1":                 otherRoute,
		"/v2/tags/list":                   otherRoute,
		"/v2/a/tags/lists":                otherRoute,
		"/v2/a":                           otherRoute,
		"/v2//":                           otherRoute,
	} {
		if got := routeOf(path); got != want {
			t.Errorf("%s is %s, not %s", path, got, want)
		}
	}
}

// TestMayListen: what decides is the address that is bound.
func TestMayListen(t *testing.T) {
	tls, login := Options{CertFile: "c", KeyFile: "k"}, Options{Tokens: "t"}
	both := Options{CertFile: "c", KeyFile: "k", Htpasswd: "h"}
	for _, c := range []struct {
		ip   string
		o    Options
		want string // what is missing, "" where it is allowed
	}{
		{"127.0.0.1", Options{}, ""},
		{"127.8.8.8", Options{}, ""},
		{"::1", Options{}, ""},
		{"::ffff:127.0.0.1", Options{}, ""},
		{"0.0.0.0", Options{}, "without TLS and without login"},
		{"::", Options{}, "without TLS and without login"},
		{"192.0.2.1", Options{}, "without TLS and without login"},
		{"192.0.2.1", tls, "without login"},
		{"192.0.2.1", login, "without TLS"},
		{"192.0.2.1", both, ""},
		{"0.0.0.0", Options{InsecureListen: true}, ""},
	} {
		err := mayListen("localhost:5000", &net.TCPAddr{IP: net.ParseIP(c.ip)}, c.o)
		switch {
		case c.want == "":
			if err != nil {
				t.Errorf("%s: %v", c.ip, err)
			}
		case err == nil || !strings.HasSuffix(err.Error(), "localhost:5000 can be reached from other machines, "+c.want) || !fault.Is(err, fault.Usage):
			t.Errorf("%s: error %v", c.ip, err)
		case strings.Contains(fault.AdviceOf(err), "--tls-cert") != (c.o.CertFile == "") || strings.Contains(fault.AdviceOf(err), "--htpasswd") != (c.o.Tokens == "" && c.o.Htpasswd == ""):
			t.Errorf("%s: advice %s", c.ip, fault.AdviceOf(err))
		}
	}
}

func TestCannotListen(t *testing.T) {
	s := start(t, Options{}, echo)
	taken := strings.TrimPrefix(s.url, "http://")
	for what, c := range map[string]struct {
		o    Options
		want string
		kind fault.Kind
	}{
		"taken":          {Options{Listen: []string{"127.0.0.1:0", taken}}, "cannot listen at " + taken, fault.Other},
		"no port":        {Options{Listen: []string{"127.0.0.1"}}, "cannot listen at 127.0.0.1", fault.Usage},
		"nothing":        {Options{}, "no address to listen on", fault.Usage},
		"half a TLS":     {Options{Listen: []string{"127.0.0.1:0"}, CertFile: "c"}, "needs its key", fault.Usage},
		"no certificate": {Options{Listen: []string{"127.0.0.1:0"}, CertFile: "/nowhere/c", KeyFile: "/nowhere/k"}, "/nowhere/c", fault.Other},
	} {
		err := Serve(t.Context(), http.HandlerFunc(echo), c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != c.kind {
			t.Errorf("%s: error %v (%s)", what, err, fault.KindOf(err))
		}
	}
}

// TestWhoAnswers: what is the registry's goes there, the rest is a page, or nothing.
func TestWhoAnswers(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "page ", r.URL.Path) })
	with, without := start(t, Options{Page: page}, echo), start(t, Options{}, echo)
	for path, want := range map[string][2]string{
		"/":                 {"page /", "404 page not found\n"},
		"/some/thing":       {"page /some/thing", "404 page not found\n"},
		"/v2/":              {"registry /v2/", "registry /v2/"},
		"/v2/a/manifests/1": {"registry /v2/a/manifests/1", "registry /v2/a/manifests/1"},
		"/v2":               {"registry /v2", "registry /v2"},
		"/healthz":          {"ok\n", "ok\n"},
	} {
		for i, s := range []*served{with, without} {
			if got := s.get(t, path); got.body != want[i] {
				t.Errorf("%s: %q, not %q", path, got.body, want[i])
			}
		}
	}
	for _, path := range []string{"/healthz", "/metrics"} {
		if got := with.do(t, with.request(t, http.MethodPost, path, nil)); got.code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %+v", path, got)
		}
	}
}

// TestBrowsersDoNotWrite: a page of somebody else may send a browser here, which is
// logged in, or inside the network.
func TestBrowsersDoNotWrite(t *testing.T) {
	s := start(t, Options{}, echo)
	for _, h := range []string{"Origin", "Sec-Fetch-Site"} {
		for method, want := range map[string]int{http.MethodGet: 200, http.MethodHead: 200, http.MethodPost: 403, http.MethodPut: 403, http.MethodDelete: 403} {
			r := s.request(t, method, "/v2/a/manifests/1", nil)
			r.Header.Set(h, "null")
			if got := s.do(t, r); got.code != want {
				t.Errorf("%s with %s: %+v", method, h, got)
			}
		}
	}
}

// TestShutdown: what is on its way may end; new connections are refused meanwhile.
func TestShutdown(t *testing.T) {
	goOn := make(chan struct{})
	s := start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "first ")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-goOn:
			fmt.Fprint(w, "last")
		case <-r.Context().Done():
		}
	})
	resp, err := s.client.Do(s.request(t, http.MethodGet, "/v2/a/blobs/sha256:0", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, len("first "))
	if _, err := io.ReadFull(resp.Body, first); err != nil {
		t.Fatal(err)
	}
	s.stop()
	soon, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for { // the listener is closed soon
		conn, err := new(net.Dialer).DialContext(soon, "tcp", strings.TrimPrefix(s.url, "http://"))
		if soon.Err() != nil {
			t.Error("new connections are taken")
		}
		if err != nil {
			break
		}
		conn.Close()
	}
	select {
	case err := <-s.done:
		t.Fatalf("it ended before the transfer: %v", err)
	default:
	}
	close(goOn)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "last" {
		t.Errorf("%q, %v", rest, err)
	}
	if err := s.ended(); err != nil {
		t.Error(err)
	}
}

// TestShutdownCutsOff: what does not end in time is cut off, and Serve does not return
// before the handler.
func TestShutdownCutsOff(t *testing.T) {
	ended := make(chan struct{})
	s := start(t, Options{Grace: time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	// With a large body that nobody reads, the end of the connection is not noticed.
	resp, err := s.client.Do(s.request(t, http.MethodPut, "/v2/a/blobs/uploads/1", io.LimitReader(zero{}, 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	s.stop()
	if err := s.ended(); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	default:
		t.Error("Serve has returned before the handler")
	}
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("half an answer seems whole: %q", body)
	}
	if !strings.Contains(s.logged.String(), "cut off") {
		t.Error("the log does not tell")
	}
}

// TestSilentConnectionsAreClosed: those on which nothing was asked, also such as come late.
func TestSilentConnectionsAreClosed(t *testing.T) {
	var s silent
	closed := func(state http.ConnState) bool {
		t.Helper()
		ours, theirs := net.Pipe()
		defer theirs.Close()
		s.state(ours, http.StateNew)
		if state != http.StateNew {
			s.state(ours, state)
		}
		s.close()
		err := ours.SetDeadline(time.Time{}) // only a closed one fails
		ours.Close()
		return err != nil
	}
	if closed(http.StateActive) {
		t.Error("one that was asked on is closed")
	}
	s.closed, s.conns = false, nil
	if !closed(http.StateNew) {
		t.Error("a silent one stays open")
	}
	if !closed(http.StateNew) { // s is closed by now
		t.Error("one that came late stays open")
	}
}

// TestRunningIsWaitedFor: none begins once it was waited for.
func TestRunningIsWaitedFor(t *testing.T) {
	var r running
	if first, second := r.begin(), r.begin(); !first || !second {
		t.Fatal("none may begin")
	}
	waited := make(chan struct{})
	go func() {
		r.wait()
		close(waited)
	}()
	r.end()
	for r.begin() { // until wait has begun
		r.end()
	}
	select {
	case <-waited:
		t.Error("one is left")
	default:
	}
	r.end()
	<-waited
}

// TestBrokenOff: a handler that breaks an answer off breaks the connection, and is counted.
func TestBrokenOff(t *testing.T) {
	s := start(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		fmt.Fprint(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	resp, err := s.client.Do(s.request(t, http.MethodGet, "/v2/a/blobs/sha256:0", nil))
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("half an answer seems whole")
	}
	s.stop()
	if err := s.ended(); err != nil {
		t.Error(err)
	}
	if n := s.counted(t, "dogestry_requests_aborted_total"); n != "1" {
		t.Errorf("%s are counted", n)
	}
	if n := s.counted(t, "dogestry_requests_in_flight"); n != "0" {
		t.Errorf("%s seem on their way", n)
	}
	if !strings.Contains(s.logged.String(), "aborted=true") {
		t.Errorf("log: %s", s.logged)
	}
}

// TestServeEndsWithItsContext also before a request came.
func TestServeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ready := func([]string) { cancel() }
	if err := Serve(ctx, http.HandlerFunc(echo), Options{Listen: []string{"127.0.0.1:0"}, Ready: ready}); err != nil {
		t.Error(err)
	}
}
