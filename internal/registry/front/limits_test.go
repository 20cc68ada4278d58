package front

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

// TestTurns: who finds no turn in time is told when to come again; health is told always.
func TestTurns(t *testing.T) {
	began, goOn := make(chan string), make(chan struct{})
	hold := func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "held") {
			select {
			case began <- r.Method:
			case <-r.Context().Done():
				return
			}
			select {
			case <-goOn:
			case <-r.Context().Done():
			}
		}
		echo(w, r)
	}
	for what, c := range map[string]struct {
		o           Options
		method      string
		held, other string
		code        int
		reason      string
	}{
		"requests":                 {Options{MaxRequests: 1}, http.MethodGet, "/v2/held/tags/list", "/v2/", 503, "requests"},
		"uploads":                  {Options{MaxUploads: 1}, http.MethodPatch, "/v2/held/blobs/uploads/1", "/v2/a/blobs/uploads/2", 503, "uploads"},
		"an upload without a turn": {Options{MaxRequests: 1, MaxUploads: 1}, http.MethodGet, "/v2/held/tags/list", "/v2/a/blobs/uploads/2", 503, "requests"},
		"reads beside uploads":     {Options{MaxUploads: 1}, http.MethodPatch, "/v2/held/blobs/uploads/1", "/v2/a/tags/list", 200, ""},
		"begins beside uploads":    {Options{MaxUploads: 1}, http.MethodPatch, "/v2/held/blobs/uploads/1", "/v2/a/blobs/uploads/", 200, ""},
	} {
		t.Run(what, func(t *testing.T) {
			c.o.Wait = time.Millisecond
			s := start(t, c.o, hold)
			first := make(chan answer, 1)
			go func() { first <- s.do(t, s.request(t, c.method, c.held, bodyFor(c.held))) }()
			<-began
			method := http.MethodGet
			if strings.Contains(c.other, "uploads") {
				method = http.MethodPost
			}
			got := s.do(t, s.request(t, method, c.other, bodyFor(c.other)))
			if got.code != c.code {
				t.Errorf("%+v", got)
			}
			if c.code == http.StatusServiceUnavailable {
				if got.header.Get("Retry-After") != comeAgain || !strings.Contains(got.body, `"code":"UNAVAILABLE"`) {
					t.Errorf("%+v", got)
				}
				if n := s.counted(t, `dogestry_refused_total{reason="`+c.reason+`"}`); n != "1" {
					t.Errorf("%s are counted", n)
				}
			}
			if got := s.get(t, "/healthz"); got.code != http.StatusOK {
				t.Errorf("health: %+v", got)
			}
			goOn <- struct{}{}
			if got := <-first; got.code != http.StatusOK {
				t.Errorf("the first: %+v", got)
			}
			// Turns are given back.
			if got := s.do(t, s.request(t, method, c.other, bodyFor(c.other))); got.code != http.StatusOK {
				t.Errorf("afterwards: %+v", got)
			}
		})
	}
	t.Run("an empty end beside uploads", func(t *testing.T) {
		s := start(t, Options{MaxUploads: 1, Wait: time.Millisecond}, hold)
		first := make(chan answer, 1)
		go func() {
			first <- s.do(t, s.request(t, http.MethodPatch, "/v2/held/blobs/uploads/1", strings.NewReader("bytes")))
		}()
		<-began
		end := func() int { return s.do(t, s.request(t, http.MethodPut, "/v2/a/blobs/uploads/2?digest=1", nil)).code }
		if code := end(); code != http.StatusServiceUnavailable {
			t.Errorf("%d", code)
		}
		goOn <- struct{}{}
		<-first
		if code := end(); code != http.StatusOK {
			t.Errorf("afterwards: %d", code)
		}
	})
	t.Run("a turn in time", func(t *testing.T) {
		s := start(t, Options{MaxRequests: 1}, hold)
		first, second := make(chan answer, 1), make(chan answer, 1)
		go func() { first <- s.get(t, "/v2/held/tags/list") }()
		<-began
		go func() { second <- s.get(t, "/v2/held/tags/list") }()
		goOn <- struct{}{}
		<-began
		goOn <- struct{}{}
		if a, b := <-first, <-second; a.code != 200 || b.code != 200 {
			t.Errorf("%+v, %+v", a, b)
		}
	})
}

func bodyFor(path string) io.Reader {
	if strings.Contains(path, "/uploads/") && !strings.HasSuffix(path, "/") {
		return strings.NewReader("bytes")
	}
	return nil
}

// TestBodiesAreBounded: by what the client says, and else by what it sends.
func TestBodiesAreBounded(t *testing.T) {
	s := start(t, Options{MaxBlob: 1000}, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	zeros := func(n int64) io.Reader { return io.LimitReader(zero{}, n) }
	for what, c := range map[string]struct {
		path  string
		size  int64
		says  bool // the client says how large it is
		chunk string
		code  int
	}{
		"manifest":                        {"/v2/a/manifests/1", image.MaxDocument, true, "", 200},
		"manifest, too large":             {"/v2/a/manifests/1", image.MaxDocument + 1, true, "", 413},
		"manifest, too large, not said":   {"/v2/a/manifests/1", image.MaxDocument + 1, false, "", 418},
		"blob":                            {"/v2/a/blobs/uploads/1", 1000, true, "", 200},
		"blob, not said":                  {"/v2/a/blobs/uploads/1", 1000, false, "", 200},
		"blob, too large":                 {"/v2/a/blobs/uploads/1", 1001, true, "", 413},
		"blob, too large, not said":       {"/v2/a/blobs/uploads/1", 1001, false, "", 418},
		"last chunk":                      {"/v2/a/blobs/uploads/1", 100, true, "900-999", 200},
		"a chunk too many":                {"/v2/a/blobs/uploads/1", 100, true, "901-1000", 413},
		"a chunk too many, as HTTP says":  {"/v2/a/blobs/uploads/1", 100, true, "bytes 901-1000/5000", 413},
		"where none is expected":          {"/v2/a/tags/list", maxOther + 1, true, "", 413},
		"where none is expected, at all":  {"/page", maxOther + 1, true, "", 413},
		"a manifest that seems an upload": {"/v2/a/blobs/uploads/manifests/1", 1001, true, "", 200},
	} {
		r := s.request(t, http.MethodPut, c.path, zeros(c.size))
		r.ContentLength = -1
		if c.says {
			r.ContentLength = c.size
		}
		if c.chunk != "" {
			r.Header.Set("Content-Range", c.chunk)
		}
		resp, err := s.client.Do(r)
		if err != nil {
			// The server need not read on, and the client may notice that first.
			if c.code == http.StatusOK {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != c.code {
			t.Errorf("%s: %d, not %d", what, resp.StatusCode, c.code)
		}
	}
	for s, want := range map[string]int64{"0-99": 100, "bytes 0-99/100": 100, "": 0, "x": 0, "5-": 0, "0-9223372036854775807": math.MaxInt64, "0--5": 0} {
		if got := rangeEnd(s); got != want {
			t.Errorf("%q ends at %d, not %d", s, got, want)
		}
	}
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestStalls: a client that takes nothing, gives nothing, or never ends its headers,
// is cut off; others are not.
func TestStalls(t *testing.T) {
	dial := func(t *testing.T, s *served, request string) net.Conn {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	failed := make(chan error, 1)
	t.Run("takes nothing", func(t *testing.T) {
		s := start(t, Options{Stall: 50 * time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
			_, err := io.Copy(w, zero{})
			failed <- err
		})
		dial(t, s, "GET /v2/a/blobs/sha256:1 HTTP/1.1\r\nHost: a\r\n\r\n")
		if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		s.stop()
		if err := s.ended(); err != nil {
			t.Error(err)
		}
		if n := s.counted(t, `dogestry_refused_total{reason="stalled"}`); n != "1" {
			t.Errorf("%s are counted", n)
		}
	})
	t.Run("gives nothing", func(t *testing.T) {
		s := start(t, Options{Stall: 50 * time.Millisecond}, func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			failed <- err
		})
		conn := dial(t, s, "PATCH /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx")
		if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil { // until it is closed
			t.Error(err)
		}
	})
	t.Run("gives nothing that anybody reads", func(t *testing.T) {
		s := start(t, Options{Stall: 50 * time.Millisecond}, echo)
		conn := dial(t, s, "PATCH /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx")
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Error(err)
		}
	})
	t.Run("never ends its headers", func(t *testing.T) {
		s := start(t, Options{headers: 50 * time.Millisecond}, echo)
		conn := dial(t, s, "GET /v2/ HTTP/1.1\r\nHost: a\r\nX-")
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Error(err)
		}
	})
	t.Run("endless headers", func(t *testing.T) {
		s := start(t, Options{}, echo)
		conn := dial(t, s, "GET /v2/ HTTP/1.1\r\nHost: a\r\n")
		go func() {
			line := "X-A: " + strings.Repeat("a", 1000) + "\r\n"
			for range 100 {
				if _, err := io.WriteString(conn, line); err != nil {
					return
				}
			}
		}()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%d", resp.StatusCode)
		}
	})
	// The registry may take longer than the stall, before it answers and after all
	// of the body has come.
	t.Run("a slow registry", func(t *testing.T) {
		const stall = 5 * time.Second
		s := start(t, Options{Stall: stall}, func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				t.Error(err)
			}
			if r.Method == http.MethodGet {
				fmt.Fprint(w, "not sent at once")
			}
			select {
			case <-time.After(stall + stall/10):
			case <-r.Context().Done():
				t.Errorf("%s: given up: %v", r.Method, r.Context().Err())
			}
		})
		var both sync.WaitGroup
		defer both.Wait()
		ask := func(method string, body io.Reader) {
			r, err := http.NewRequestWithContext(t.Context(), method, s.url+"/v2/a/blobs/uploads/1", body)
			if err != nil {
				t.Error(err)
				return
			}
			res, err := s.client.Do(r)
			if err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
			if err != nil || res.StatusCode != http.StatusOK {
				t.Errorf("%s: %v, %v", method, res, err)
			}
		}
		both.Go(func() { ask(http.MethodGet, nil) })
		both.Go(func() { ask(http.MethodPut, strings.NewReader("bytes")) })
	})
}

// TestPace: what trickles is told from what is slow.
func TestPace(t *testing.T) {
	for what, c := range map[string]struct {
		n     int
		every time.Duration
		slow  bool
	}{
		"a byte a minute":           {1, 59 * time.Second, true},
		"a byte a second":           {1, time.Second, true},
		"a modem":                   {3000, time.Second, false},
		"a registry that is slower": {1, 0, false},
	} {
		p, slow := pace{stall: time.Minute}, false
		for range 200 {
			slow = slow || p.tooSlow(c.n, c.every)
		}
		if slow != c.slow {
			t.Errorf("%s is too slow: %v", what, slow)
		}
	}
}

// TestTrickle: a body that comes too slowly fails where it is read.
func TestTrickle(t *testing.T) {
	f := &front{o: Options{Stall: time.Nanosecond}.withDefaults()}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPatch, "/v2/a/blobs/uploads/1", trickle{})
	x := f.exchange(httptest.NewRecorder(), r)
	if _, err := io.Copy(io.Discard, x.request.Body); err != errSlow || !x.stalled {
		t.Errorf("error %v, stalled: %v", err, x.stalled)
	}
}

type trickle struct{}

func (trickle) Read(p []byte) (int, error) {
	<-time.After(20 * time.Millisecond) // at least
	return 1, nil
}
