package s3test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// setup is a server, a proxy in front of it, a client of each, and the path of an object.
func setup(t *testing.T) (p *Proxy, direct, through *client, path string) {
	s := For(t)
	p = s.ProxyFor(t)
	return p, newClient(t, s.Account, s.Endpoint), newClient(t, s.Account, p.Endpoint), "/" + s.Bucket(t) + "/dir/k"
}

func TestProxyPasses(t *testing.T) {
	p, direct, c, path := setup(t)
	big := strings.Repeat("0123456789abcdef", 200<<10) // more than any buffer on the way
	c.do(200, "PUT", path, big, "X-Amz-Meta-Note", "a note")
	direct.holds(path, big)
	c.holds(path, big)
	if r := c.do(206, "GET", path, "", "Range", "bytes=16-31"); r.body != big[:16] || r.header.Get("X-Amz-Meta-Note") != "a note" {
		t.Errorf("range: %q, %v", r.body, r.header)
	}
	if r := c.do(200, "HEAD", path, ""); r.header.Get("Content-Length") != "3276800" {
		t.Errorf("head: %v", r.header)
	}
	c.do(404, "GET", path+"%20/a+b/%253A", "")
	c.do(412, "PUT", path, "other", "If-None-Match", "*")
	c.do(204, "DELETE", path, "")

	want := []string{
		"PutObject 200", "GetObject 200", "GetObject 206", "HeadObject 200", "GetObject 404", "PutObject 412", "DeleteObject 204",
	}
	records := p.Requests()
	got := []string{}
	for _, r := range records {
		got = append(got, r.Op+" "+strconv.Itoa(r.Status))
		if r.Header.Get("Authorization") != "" || r.Faulty {
			t.Errorf("record: %+v", r)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("records: %q, want %q", got, want)
	}
	if r := records[0]; r.Sent != int64(len(big)) || r.Path != path || r.Header.Get("X-Amz-Meta-Note") != "a note" {
		t.Errorf("record of the upload: %+v", r)
	}
	if r := records[1]; r.Received != int64(len(big)) {
		t.Errorf("record of the download: %+v", r)
	}
	if n := p.Count("GetObject", "HeadObject"); n != 4 || p.Count() != len(want) {
		t.Errorf("counted %d and %d", n, p.Count())
	}
	p.Reset()
	if p.Count() != 0 {
		t.Error("requests after Reset")
	}
}

func TestProxyKeepsConnections(t *testing.T) {
	_, _, c, path := setup(t)
	var fresh atomic.Int32
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if !i.Reused {
			fresh.Add(1)
		}
	}})
	for range 10 {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, c.endpoint+path, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		c.Sign(req, []byte("x"))
		resp, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if n := fresh.Load(); n != 1 {
		t.Errorf("%d connections for ten requests", n)
	}
}

func TestProxyAnswers(t *testing.T) {
	p, direct, c, path := setup(t)
	for _, test := range []struct {
		status int
		code   string
	}{
		{503, "SlowDown"}, {500, "InternalError"}, {403, "RequestTimeTooSkewed"}, {400, "ExpiredToken"}, {501, "NotImplemented"}, {200, "InternalError"},
	} {
		for _, after := range []bool{false, true} {
			fault := Answer(test.status, test.code)
			if after {
				fault = fault.AfterDone()
			}
			p.SetFault(Times(1, Is("PutObject"), fault))
			r := c.do(test.status, "PUT", path, strings.Repeat("new", 1<<20))
			if !strings.Contains(r.body, "<Code>"+test.code+"</Code>") {
				t.Errorf("answer: %s", r.body)
			}
			want := 404
			if after {
				want = 200
			}
			direct.do(want, "HEAD", path, "")
			c.do(200, "PUT", path, "only once")
			direct.do(204, "DELETE", path, "")
		}
	}
	p.SetFault(Always(Any, Redirect("eu-north-1")))
	if r := c.do(301, "HEAD", path, ""); r.header.Get("X-Amz-Bucket-Region") != "eu-north-1" || r.body != "" {
		t.Errorf("redirect: %v", r.header)
	}
	p.SetFault(nil)
	c.do(404, "HEAD", path, "")
	for _, r := range p.Requests()[:1] {
		if !r.Faulty || r.Status != 503 || r.Sent != 3<<20 {
			t.Errorf("record: %+v", r)
		}
	}
}

func TestProxyDrops(t *testing.T) {
	p, direct, c, path := setup(t)
	p.SetFault(Rules(Nth(1, Is("PutObject"), Drop()), Nth(2, Is("PutObject"), Lost())))
	for i, want := range []int{404, 200} {
		if r, err := c.try("PUT", path, "body"); !errors.Is(err, io.EOF) {
			t.Errorf("drop %d: %+v, %v, want EOF", i, r, err)
		}
		direct.do(want, "GET", path, "")
	}
	if records := p.Requests(); records[1].Status != 0 || !records[1].Faulty {
		t.Errorf("record of a lost answer: %+v", records[1])
	}
}

func TestProxyBreaksAnswers(t *testing.T) {
	p, direct, c, path := setup(t)
	content := strings.Repeat("x", 1<<20)
	direct.do(200, "PUT", path, content)
	for _, n := range []int64{0, 1, 100_000, 1<<20 - 1} {
		p.SetFault(Times(1, Is("GetObject"), ResetResponse(n)))
		r, err := c.try("GET", path, "")
		if err != nil || !errors.Is(r.err, syscall.ECONNRESET) || int64(len(r.body)) > n {
			t.Errorf("reset after %d: %v, %v, %d bytes", n, err, r.err, len(r.body))
		}
		p.SetFault(Times(1, Is("GetObject"), TruncateResponse(n)))
		r, err = c.try("GET", path, "")
		if err != nil || !errors.Is(r.err, io.ErrUnexpectedEOF) || int64(len(r.body)) != n {
			t.Errorf("truncated after %d: %v, %v, %d bytes", n, err, r.err, len(r.body))
		}
		p.SetFault(Always(Is("GetObject"), StallResponse(n)))
		r, err = impatient(c).try("GET", path, "")
		if err != nil || !errors.Is(r.err, context.DeadlineExceeded) || int64(len(r.body)) != n {
			t.Errorf("stalled after %d: %v, %v, %d bytes", n, err, r.err, len(r.body))
		}
	}
	for _, f := range []Fault{TruncateResponse(1 << 20), StallResponse(1 << 20)} {
		p.SetFault(Always(Any, f))
		c.holds(path, content)
	}
	p.SetFault(Always(Any, TruncateResponse(10)))
	if r, err := c.try("GET", path[:strings.Index(path, "/dir")]+"?list-type=2", ""); err != nil || len(r.body) != 10 || r.err == nil {
		t.Errorf("a list of 10 bytes: %+v, %v", r, err)
	}
}

// impatient is the client with little time.
func impatient(c *client) *client {
	hasty := *c.http
	hasty.Timeout = time.Second
	return &client{c.T, c.Account, c.endpoint, &hasty}
}

func TestProxyBreaksRequests(t *testing.T) {
	p, direct, c, path := setup(t)
	content := strings.Repeat("x", 8<<20)
	for _, n := range []int64{0, 1, 1 << 20} {
		p.Reset()
		p.SetFault(Always(Is("PutObject"), ResetRequest(n)))
		if r, err := c.try("PUT", path, content); err == nil {
			t.Errorf("reset after %d: %d", n, r.status)
		}
		direct.do(404, "GET", path, "")
		if sent := p.Requests()[0].Sent; sent != n {
			t.Errorf("reset after %d bytes, not %d", sent, n)
		}
	}
	p.SetFault(Always(Is("PutObject"), ResetRequest(int64(len(content)))))
	c.do(200, "PUT", path, content)
	direct.holds(path, content)
}

func TestProxyStalls(t *testing.T) {
	p, direct, c, path := setup(t)
	for _, after := range []bool{false, true} {
		fault, want := Stall(), 404
		if after {
			fault, want = Stall().AfterDone(), 200
		}
		p.SetFault(Always(Is("PutObject"), fault))
		if _, err := impatient(c).try("PUT", path, "body"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stall: %v", err)
		}
		direct.do(want, "GET", path, "")
	}
	// Close does not wait for a client that does.
	failed := make(chan error, 1)
	go func() {
		_, err := c.try("PUT", path, "body")
		failed <- err
	}()
	for p.Count() < 3 {
		time.Sleep(time.Millisecond)
	}
	p.Close()
	if err := <-failed; err == nil {
		t.Error("an answer came from a closed proxy")
	}
	p.Close()
	if _, err := c.try("GET", path, ""); err == nil {
		t.Error("a closed proxy answers")
	}
}

func TestProxyIgnores(t *testing.T) {
	p, direct, c, path := setup(t)
	direct.do(200, "PUT", path, "0123456789")
	p.SetFault(Always(Any, Ignore("If-None-Match", "If-Match").Ignore("Range")))
	c.do(200, "PUT", path, "9876543210", "If-None-Match", "*")
	c.do(200, "PUT", path, "abcdefghij", "If-Match", `"stale"`)
	if r := c.do(200, "GET", path, "", "Range", "bytes=5-"); r.body != "abcdefghij" {
		t.Errorf("range: %q", r.body)
	}
	if r := p.Requests()[0]; r.Header.Get("If-None-Match") != "*" {
		t.Errorf("the record has not what the client sent: %v", r.Header)
	}
}

func TestProxyEdits(t *testing.T) {
	p, _, c, path := setup(t)
	c.do(200, "PUT", path, "body")
	p.SetFault(Rules(
		Always(Is("HeadObject"), Fault{}.With("ETag", "").With("X-Amz-Meta-New", "yes")),
		Always(On("dir/none", "GetObject"), Edit(func(r *http.Response) { r.StatusCode = http.StatusForbidden })),
	))
	if r := c.do(200, "HEAD", path, ""); r.header.Get("Etag") != "" || r.header.Get("X-Amz-Meta-New") != "yes" {
		t.Errorf("headers: %v", r.header)
	}
	c.do(403, "GET", path[:len(path)-1]+"none", "")
	c.holds(path, "body")
}

func TestProxyWaits(t *testing.T) {
	p, _, c, path := setup(t)
	p.SetLatency(80 * time.Millisecond)
	begin := time.Now()
	c.do(404, "GET", path, "")
	if d := time.Since(begin); d < 80*time.Millisecond {
		t.Errorf("answered after %v", d)
	}
	p.SetLatency(time.Hour)
	if _, err := impatient(c).try("GET", path, ""); err == nil {
		t.Error("answered at once")
	}
}

func TestProxyBeforeKilledServer(t *testing.T) {
	s := StartFor(t, Options{})
	p := s.ProxyFor(t)
	c := newClient(t, s.Account, p.Endpoint)
	path := "/" + s.Bucket(t) + "/k"
	c.do(200, "PUT", path, "body")
	s.Kill()
	if r, err := c.try("GET", path, ""); err == nil {
		t.Errorf("answered %d for a killed server", r.status)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.holds(path, "body")
}

// TestProxyStreams sends a body piece by piece to a server that gives each piece back: the next one goes when the last one
// has come.
func TestProxyStreams(t *testing.T) {
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		for buf := make([]byte, 1); ; {
			if _, err := r.Body.Read(buf); err != nil {
				return
			}
			_, _ = w.Write(buf)
			_ = control.Flush()
		}
	}))
	defer echo.Close()
	p, err := NewProxy(&Server{Endpoint: echo.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	body, feed := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, p.Endpoint+"/b/k", body)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	go func() { _, _ = feed.Write([]byte("a")) }()
	resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, want := range []string{"a", "b", "c"} {
		if want != "a" {
			_, _ = feed.Write([]byte(want))
		}
		got := make([]byte, 1)
		if _, err := resp.Body.Read(got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	feed.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("in the end: %q, %v", rest, err)
	}
}

func TestOp(t *testing.T) {
	for request, want := range map[string]string{
		"GET /":                            "ListBuckets",
		"HEAD /b":                          "HeadBucket",
		"PUT /b/":                          "CreateBucket",
		"GET /b?list-type=2&prefix=x":      "ListObjectsV2",
		"GET /b?uploads=":                  "ListMultipartUploads",
		"GET /b?location":                  "GetBucketLocation",
		"POST /b?delete=":                  "DeleteObjects",
		"GET /b?policy":                    "GET /b",
		"GET /b/k":                         "GetObject",
		"HEAD /b/k/l":                      "HeadObject",
		"PUT /b/k":                         "PutObject",
		"DELETE /b/k":                      "DeleteObject",
		"POST /b/k?uploads":                "CreateMultipartUpload",
		"PUT /b/k?partNumber=1&uploadId=u": "UploadPart",
		"POST /b/k?uploadId=u":             "CompleteMultipartUpload",
		"DELETE /b/k?uploadId=u":           "AbortMultipartUpload",
		"GET /b/k?uploadId=u":              "ListParts",
		"POST /b/k":                        "POST /b/k",
	} {
		method, path, _ := strings.Cut(request, " ")
		r, err := http.NewRequestWithContext(t.Context(), method, "http://s"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := Op(r); got != want {
			t.Errorf("%s is %s, want %s", request, got, want)
		}
	}
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://s/b/k", bytes.NewReader(nil))
	r.Header.Set("X-Amz-Copy-Source", "/b/l")
	if got := Op(r); got != "CopyObject" {
		t.Errorf("a copy is %s", got)
	}
}

func TestRules(t *testing.T) {
	count := func(rule Rule) (hits []int) {
		for i := range 6 {
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://s/b/dir/k", nil)
			if !rule(r).none() {
				hits = append(hits, i+1)
			}
		}
		return hits
	}
	for name, test := range map[string]struct {
		rule Rule
		want []int
	}{
		"times":     {Times(2, Any, Drop()), []int{1, 2}},
		"nth":       {Nth(3, Any, Drop()), []int{3}},
		"between":   {Between(2, 3, Any, Drop()), []int{2, 3}},
		"always":    {Always(On("dir/", "GetObject"), Drop()), []int{1, 2, 3, 4, 5, 6}},
		"other op":  {Always(On("dir/", "PutObject"), Drop()), nil},
		"other key": {Always(On("k"), Drop()), nil},
		"rules":     {Rules(Nth(1, Any, Drop()), Nth(5, Any, Lost())), []int{1, 5}},
	} {
		if got := count(test.rule); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
