package registrytest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Fault says what a Proxy does with one request. The zero value passes it on.
type Fault struct {
	Status int         // answer so, and pass nothing on
	Header http.Header // of that answer
	Body   string      // of that answer

	Lost        bool  // pass the request on, and close the connection instead of an answer
	CutRequest  int64 // close the connection when so many bytes of the request have passed
	CutResponse int64 // close the connection when so many bytes of the answer have passed

	StallResponse int64 // pass nothing more, when so many bytes of the answer have passed, until the client gives up
}

// Proxy stands before a registry, notes which requests come, and breaks what its
// rule says.
type Proxy struct {
	Host string // and port

	forward *httputil.ReverseProxy

	mu       sync.Mutex
	rule     func(*http.Request) Fault
	requests []string
}

// NewProxy stands before a registry without TLS until the test ends.
func NewProxy(t testing.TB, s *Server) *Proxy {
	t.Helper()
	p := &Proxy{rule: func(*http.Request) Fault { return Fault{} }}
	to := &url.URL{Scheme: "http", Host: s.Host}
	transport := &http.Transport{DisableCompression: true}
	p.forward = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // what the registry says leads here again
		},
		Transport:    transport,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     quiet(),
	}
	server := httptest.NewUnstartedServer(p)
	server.Config.ErrorLog = quiet()
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		transport.CloseIdleConnections()
	})
	p.Host = strings.TrimPrefix(server.URL, "http://")
	return p
}

// Rule replaces the rule and forgets the requests. It may be called by several
// goroutines; nil passes all on.
func (p *Proxy) Rule(rule func(*http.Request) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = nil
	if p.rule = rule; rule == nil {
		p.rule = func(*http.Request) Fault { return Fault{} }
	}
}

// Requests returns those that came since the rule was set, as "METHOD /path", without
// those that have none of the methods, where there are any.
func (p *Proxy) Requests(methods ...string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.requests), func(r string) bool {
		method, _, _ := strings.Cut(r, " ")
		return len(methods) > 0 && !slices.Contains(methods, method)
	})
}

// ServeHTTP passes a request on, or breaks it.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	p.mu.Lock()
	p.requests = append(p.requests, req.Method+" "+req.URL.Path)
	rule := p.rule
	p.mu.Unlock()
	f := rule(req)
	switch {
	case f.Status != 0:
		for key, values := range f.Header {
			w.Header()[key] = values
		}
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body)
	case f.Lost:
		p.forward.ServeHTTP(httptest.NewRecorder(), req)
		panic(http.ErrAbortHandler)
	case f.CutRequest > 0:
		req.Body = &cutReader{ReadCloser: req.Body, left: f.CutRequest}
		p.forward.ServeHTTP(w, req)
		panic(http.ErrAbortHandler)
	case f.CutResponse > 0:
		p.forward.ServeHTTP(&cutWriter{ResponseWriter: w, left: f.CutResponse}, req)
	case f.StallResponse > 0:
		p.forward.ServeHTTP(&cutWriter{ResponseWriter: w, left: f.StallResponse, wait: req.Context().Done()}, req)
	default:
		p.forward.ServeHTTP(w, req)
	}
}

// cutReader breaks off after some bytes.
type cutReader struct {
	io.ReadCloser
	left int64
}

func (c *cutReader) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	return n, err
}

// cutWriter breaks the connection off after some bytes.
type cutWriter struct {
	http.ResponseWriter
	left int64
	wait <-chan struct{} // before that; nil does not
}

func (c *cutWriter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b[:min(int64(len(b)), c.left)])
	if c.left -= int64(n); c.left <= 0 {
		if f, ok := c.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		if c.wait != nil {
			<-c.wait
		}
		panic(http.ErrAbortHandler)
	}
	return n, err
}
