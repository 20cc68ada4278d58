package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/web/webtest"
)

func read(t *testing.T, s *Store, key string, offset, length int64) ([]byte, error) {
	t.Helper()
	r, err := s.Get(t.Context(), key, offset, length)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

var content = bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB

// breaking serves content and breaks each connection off after some bytes.
type breaking struct {
	after    int
	requests atomic.Int64
	etag     func(request int64) string
	ranges   bool
}

func (b *breaking) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := b.requests.Add(1)
	if tag := b.etag(n); tag != "" {
		w.Header().Set("ETag", tag)
	}
	var first, last int
	body := content
	if spec := r.Header.Get("Range"); b.ranges && spec != "" && (r.Header.Get("If-Range") == "" || r.Header.Get("If-Range") == b.etag(n)) {
		last = len(content) - 1
		fmt.Sscanf(spec, "bytes=%d-%d", &first, &last) //nolint:errcheck // "bytes=5-" has no last one
		body = content[first : last+1]
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(content)))
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	}
	if len(body) > b.after {
		w.Write(body[:b.after])               //nolint:errcheck
		http.NewResponseController(w).Flush() //nolint:errcheck
		panic(http.ErrAbortHandler)
	}
	w.Write(body) //nolint:errcheck
}

// TestBroken: a download goes on where it broke, by ranges or by throwing away what came
// before, as long as the object is the same.
func TestBroken(t *testing.T) {
	same := func(int64) string { return `"1"` }
	for name, c := range map[string]struct {
		server *breaking
		want   error // nil: all of it
	}{
		"ranges":         {&breaking{after: 300_000, etag: same, ranges: true}, nil},
		"no validator":   {&breaking{after: 300_000, etag: func(int64) string { return "" }, ranges: true}, io.ErrUnexpectedEOF},
		"weak validator": {&breaking{after: 300_000, etag: func(int64) string { return `W/"1"` }, ranges: true}, io.ErrUnexpectedEOF},
		"no progress":    {&breaking{after: 300_000, etag: same}, io.ErrUnexpectedEOF},
		"replaced":       {&breaking{after: 300_000, etag: func(n int64) string { return fmt.Sprintf(`"%d"`, n) }, ranges: true}, storage.ErrChanged},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, serve(t, c.server))
			got, err := read(t, s, "key", 0, -1)
			switch {
			case c.want == nil && (err != nil || !bytes.Equal(got, content)):
				t.Errorf("%d bytes, %v", len(got), err)
			case c.want != nil && !errors.Is(err, c.want):
				t.Errorf("%d bytes, %v, want %v", len(got), err, c.want)
			}
			if !bytes.HasPrefix(content, got) {
				t.Error("wrong bytes")
			}
			if n := c.server.requests.Load(); n > 20 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// TestRetries: what may pass is asked for again, what will not is told at once.
func TestRetries(t *testing.T) {
	for _, c := range []struct {
		code     int
		requests int64
		is       error
		kind     fault.Kind
	}{
		{503, 6, nil, fault.Other},
		{500, 6, nil, fault.Other},
		{404, 1, storage.ErrNotFound, fault.Other},
		{410, 1, storage.ErrNotFound, fault.Other},
		{401, 1, storage.ErrPermission, fault.Refused},
		{403, 1, storage.ErrPermission, fault.Refused},
		{418, 1, nil, fault.Other},
	} {
		var requests atomic.Int64
		s := open(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			w.WriteHeader(c.code)
		})))
		_, err := read(t, s, "key", 0, -1)
		if err == nil || c.is != nil && !errors.Is(err, c.is) || fault.KindOf(err) != c.kind || requests.Load() != c.requests {
			t.Errorf("%d: %v after %d requests", c.code, err, requests.Load())
		}
		if errors.Is(err, storage.ErrNotFound) != (c.is == storage.ErrNotFound) {
			t.Errorf("%d: %v", c.code, err)
		}
	}
	// An answer that comes at the third try is one.
	var requests atomic.Int64
	s := open(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) < 3 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		io.WriteString(w, "late") //nolint:errcheck
	})))
	if got, err := read(t, s, "key", 0, -1); string(got) != "late" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestStall: a server that goes silent is no reason to wait for ever.
func TestStall(t *testing.T) {
	stop := make(chan struct{})
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "12345")            //nolint:errcheck
		http.NewResponseController(w).Flush() //nolint:errcheck
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}))
	s := openWith(t, url, func(o *Options) { o.Stall = 500 * time.Millisecond }) // what comes at once comes within that
	got, err := read(t, s, "key", 0, -1)
	close(stop)
	if string(got) != "12345" || !errors.Is(err, errStalled) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestLyingLength: an object of fewer bytes than it is said to have is no whole one.
func TestLyingLength(t *testing.T) {
	s := open(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "12345") //nolint:errcheck
	})))
	if got, err := read(t, s, "key", 0, -1); string(got) != "12345" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestOddAnswers: what cannot be the object is not taken for it.
func TestOddAnswers(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"encoded": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, "x") //nolint:errcheck
		},
		"another range": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-3/10")
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, "0123") //nolint:errcheck
		},
		"no range": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, "0123") //nolint:errcheck
		},
		"redirects for ever": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
		},
		"redirect with a password": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://user:geheim@"+r.Host+"/y", http.StatusFound)
		},
	} {
		s := open(t, serve(t, handler))
		got, err := read(t, s, "key", 5, 4)
		if err == nil || len(got) > 0 || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestListings: what a hostile server lists becomes no key that is none, and no endless work.
func TestListings(t *testing.T) {
	for text, want := range map[string]string{
		`[{"name":"a","type":"file","size":3,"mtime":"Tue, 15 Nov 2022 08:29:54 GMT"},{"name":"b","type":"directory"}]`:                                                                            "a 3 false|b 0 true",
		`[{"name":"b/","size":1,"is_dir":true,"mod_time":"2022-11-15T08:29:54.5Z"},{"name":"a","size":4,"is_dir":false}]`:                                                                          "a 4 false|b 1 true",
		`[{"name":"../a","type":"file"},{"name":".a","type":"file"},{"name":"a/b","type":"file"},{"name":"","type":"file"},{"name":"a\u0000","type":"file"},{"name":"a","type":"file","size":-1}]`: "",
		`[{"name":"a","type":"file"},{"name":"a","type":"file"}]`:                                                                                                                                  "a 0 false",
		`[{"name":"a","type":"other"}]`: "",
		`[]`:                            "",
		`{}`:                            "error",
		`[{"name":"a"}]`:                "error",
		`<html>`:                        "error",
		`[{"name":1}]`:                  "error",
	} {
		entries, err := parseListing([]byte(text), "dir")
		var got []string
		for _, e := range entries {
			got = append(got, fmt.Sprint(e.name, " ", e.size, " ", e.directory))
		}
		said := strings.Join(got, "|")
		if err != nil {
			said = "error"
		}
		if said != want {
			t.Errorf("%s: %q, %v, want %q", text, said, err, want)
		}
	}
}

func FuzzListing(f *testing.F) {
	f.Add([]byte(`[{"name":"a","type":"file","size":3,"mtime":"Tue, 15 Nov 2022 08:29:54 GMT"}]`))
	f.Add([]byte(`[{"name":"b/","size":1,"is_dir":true,"mod_time":"2022-11-15T08:29:54.5Z"}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, _ := parseListing(b, "dir")
		for _, e := range entries {
			if storage.ValidKey("dir/"+e.name) != nil || strings.Contains(e.name, "/") || e.size < 0 {
				t.Errorf("%+v", e)
			}
		}
	})
}

// TestCredentials: those of ~/.netrc go to the server they are for, encrypted, and nowhere else.
func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, "key", []byte("x"))
	server := webtest.Start(t, dir, webtest.Options{Basic: true})
	netrc := filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(netrc, []byte("machine other.example login a password b\nmachine 127.0.0.1\n  login dogestry\n  password "+webtest.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := openWith(t, server.URL(), func(o *Options) { o.NetRC = netrc })
	if got, err := read(t, with, "key", 0, -1); string(got) != "x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	_, err := read(t, open(t, server.URL()), "key", 0, -1)
	if !fault.Is(err, fault.Refused) || !strings.Contains(fault.AdviceOf(err), "netrc") {
		t.Errorf("without: %v", err)
	}
	t.Setenv("NETRC", netrc)
	if got, err := read(t, openWith(t, server.URL(), func(o *Options) { o.NetRC = "" }), "key", 0, -1); string(got) != "x" || err != nil {
		t.Errorf("by NETRC: %q, %v", got, err)
	}
	// Not without TLS.
	plain := openWith(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("credentials without TLS")
		}
	})), func(o *Options) { o.NetRC = netrc })
	if _, err := read(t, plain, "key", 0, -1); err != nil {
		t.Error(err)
	}
}

// TestRedirects: objects may lie elsewhere. Credentials do not go there, and nothing goes to
// what is not encrypted.
func TestRedirects(t *testing.T) {
	var authorized atomic.Int64
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Referer") != "" {
			authorized.Add(1)
		}
		io.WriteString(w, "elsewhere") //nolint:errcheck
	}))
	defer elsewhere.Close()
	plain := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { authorized.Add(1) }))
	to := elsewhere.URL + "/object"
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			t.Error("no credentials where they belong")
		}
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
	}))
	defer front.Close()
	trust := front.Client().Transport.(*http.Transport).TLSClientConfig
	opened := func(seal *sealed.Seal) *Store {
		s := openWith(t, front.URL, func(o *Options) { o.Seal = seal })
		s.transport.TLSClientConfig = trust
		s.credentials = &credentials{"user", "geheim"}
		return s
	}
	if got, err := read(t, opened(nil), "key", 0, -1); string(got) != "elsewhere" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	seal, err := sealed.New(sealed.Options{From: "a test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read(t, opened(seal), "key", 0, -1); !errors.Is(err, sealed.ErrSealed) || !fault.Is(err, fault.Refused) {
		t.Errorf("sealed: %v", err)
	}
	to = plain
	if got, err := read(t, opened(nil), "key", 0, -1); err == nil {
		t.Errorf("redirected to HTTP: %q", got)
	}
	if authorized.Load() > 0 {
		t.Error("credentials were carried elsewhere, or something went to HTTP")
	}
}

// TestUntrusted: a certificate that nobody vouches for is refused, and its server gets no request.
func TestUntrusted(t *testing.T) {
	server := webtest.Start(t, t.TempDir(), webtest.Options{})
	_, err := read(t, open(t, "https://"+server.Host), "key", 0, -1)
	if !fault.Is(err, fault.Refused) || !strings.Contains(fault.AdviceOf(err), "ca-file") {
		t.Error(err)
	}
	_, err = read(t, open(t, "http://"+server.Host), "key", 0, -1)
	if err == nil {
		t.Error("plain HTTP to a server of TLS works")
	}
}

func TestParse(t *testing.T) {
	for name, want := range map[string]string{
		"https://host/images":                    "https://host/images",
		"https://Host:8443/a/../b/":              "https://host:8443/b",
		"https://host":                           "https://host",
		"http://127.0.0.1:8080/x":                "http://127.0.0.1:8080/x",
		"http://[::1]:8080/x":                    "http://[::1]:8080/x",
		"http://host/x?plain-http=true":          "http://host/x",
		"https://host/x?ca-file=%2Fetc%2Fca.pem": "https://host/x",
		"https://host/sp%20ace":                  "https://host/sp%20ace",
		"http://host/x":                          "",
		"http://host/x?plain-http=false":         "",
		"http://localhost.example/x":             "",
		"https://user:geheim@host/x":             "",
		"https://geheim@host/x":                  "",
		"https://host/x?token=geheim":            "",
		"https://host/x?ca-file=":                "",
		"https://host/x?cert-file=a":             "",
		"https://host/x#y":                       "",
		"https:///x":                             "",
		"https://host:99999/x":                   "",
		"ftp://host/x":                           "",
	} {
		o, err := Parse(name)
		if want == "" {
			if !fault.Is(err, fault.Usage) || strings.Contains(err.Error()+fault.AdviceOf(err), "geheim") {
				t.Errorf("%s: %v, %v", name, o.Base, err)
			}
			continue
		}
		if err != nil || o.url() != want {
			t.Errorf("%s: %v, %v", name, o.Base, err)
		}
	}
}

func TestNetRC(t *testing.T) {
	for text, want := range map[string]string{
		"machine host login a password b":                                                            "a b",
		"machine other login x password y machine host login a password b":                           "a b",
		"machine host\n\tlogin a\n\tpassword b\nmachine other login c":                               "a b",
		"# machine host login x\nmachine HOST password b login a":                                    "a b",
		"macdef init\nmachine host login x password y\n\nmachine host login a password b":            "a b",
		"default login x password y":                                                                 "",
		"machine host.example login x password y":                                                    "",
		"machine other login x password y default login q":                                           "",
		"machine host login a password b default login c":                                            "a b",
		"machine\nhost\nlogin\na\r\npassword\r\nb\r\n":                                               "a b",
		"machine other login x account q password y machine host account machine login a password b": "a b",
		"machine host login a password #b # not login c":                                             "a #b",
		"machine other macdef x\r\nmachine host login x\r\n\r\nmachine host login a password b":      "a b",
		"machine":            "",
		"machine host login": " ",
		"":                   "",
	} {
		got := ""
		if c := parseNetRC(text, "host"); c != nil {
			got = c.user + " " + c.password
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestDeepListing: the lists that a server gives cannot fill the memory, however deep its directories are.
func TestDeepListing(t *testing.T) {
	var asked atomic.Int64
	s := open(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `[{"name":"d","type":"directory","mtime":""}%s]`, strings.Repeat(" ", 1000))
	})))
	s.mostListed = 10_000
	var failed error
	for _, err := range s.List(t.Context(), "") {
		failed = err
	}
	if failed == nil || !strings.Contains(failed.Error(), "too long") || asked.Load() > 12 {
		t.Errorf("after %d lists: %v", asked.Load(), failed)
	}
}
