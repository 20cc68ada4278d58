package s3test

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Proxy is an address at which a server can be reached, and which breaks what passes on purpose. Host, path, query and
// headers pass unchanged, so that signatures stay valid; bodies pass as they come; connections are kept. When the server is
// gone, connections of the proxy are reset, as those of the server would be. Its methods may be called at any time from any
// goroutine.
type Proxy struct {
	// Endpoint is its address, http://127.0.0.1:port.
	Endpoint string

	target    *Server
	listener  *http.Server
	transport *http.Transport
	closed    chan struct{}
	working   sync.WaitGroup

	mu      sync.Mutex
	latency time.Duration
	rule    Rule
	records []*Record
}

// NewProxy starts a proxy in front of a server. The server may be killed and restarted behind it.
func NewProxy(target *Server) (*Proxy, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		Endpoint: "http://" + l.Addr().String(),
		target:   target,
		closed:   make(chan struct{}),
		transport: &http.Transport{
			DisableCompression:    true, // Accept-Encoding is the client's, and signed
			MaxIdleConnsPerHost:   100,
			ExpectContinueTimeout: 5 * time.Second,
		},
	}
	p.listener = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	p.working.Go(func() { _ = p.listener.Serve(l) }) // ends with Close
	return p, nil
}

// Close ends the proxy and all its connections, and returns when none is left.
func (p *Proxy) Close() {
	p.mu.Lock()
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	p.mu.Unlock()
	_ = p.listener.Close()
	p.working.Wait()
	p.transport.CloseIdleConnections()
}

// SetLatency lets each later request wait before anything is done with it.
func (p *Proxy) SetLatency(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency = d
}

// SetFault lets rule decide about each later request; nil passes all. Body and headers must be left alone.
func (p *Proxy) SetFault(rule Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rule = rule
}

// ServeHTTP is the proxy's work.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	select {
	case <-p.closed: // nobody waits for this one any more
		p.mu.Unlock()
		panic(http.ErrAbortHandler)
	default:
	}
	p.working.Add(1)
	latency, rule := p.latency, p.rule
	p.mu.Unlock()
	defer p.working.Done()

	// Servers may answer before they have the whole body. Without this, Go would read it first.
	_ = http.NewResponseController(w).EnableFullDuplex()
	x := &exchange{Proxy: p, w: w, r: r, record: p.begin(r)}
	if latency > 0 && !x.wait(time.After(latency)) {
		return
	}
	if rule != nil {
		x.Fault = rule(r)
	}
	x.note(func(r *Record) { r.Faulty = !x.none() })
	x.run()
}

// exchange is one request on its way.
type exchange struct {
	*Proxy
	Fault
	w      http.ResponseWriter
	r      *http.Request
	record *Record
}

func (x *exchange) run() {
	own := x.kind == answer || x.kind == drop || x.kind == stall // not the server's answer
	switch {
	case !own || x.done:
		resp, err := x.forward()
		if err != nil {
			x.hangUp(true) // also after ResetRequest: both sides see it break
			return
		}
		defer resp.Body.Close()
		if !own {
			x.pass(resp)
			return
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			x.hangUp(true)
			return
		}
	case x.kind == stall || x.r.Header.Get("Expect") == "":
		// The body is read, or the client's write could break, and what it then sees is a matter of luck.
		if _, err := io.Copy(io.Discard, x.body()); err != nil {
			return
		}
	}
	switch x.kind {
	case answer:
		x.answer()
	case drop:
		x.hangUp(false)
	case stall:
		x.wait(nil)
		x.hangUp(true)
	}
}

// forward makes the same request to the server, less what is to be ignored.
func (x *exchange) forward() (*http.Response, error) {
	out := x.r.Clone(x.r.Context())
	out.RequestURI = ""
	out.URL.Scheme, out.URL.Host = "http", strings.TrimPrefix(x.target.Endpoint, "http://")
	out.Close = false
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header.Set("User-Agent", "") // or Go sets its own
	}
	out.Body = http.NoBody
	if x.r.ContentLength != 0 {
		out.Body = io.NopCloser(x.body())
	}
	if len(x.ignore) > 0 {
		for _, name := range x.ignore {
			out.Header.Del(name)
		}
		x.target.resign(out)
	}
	return x.transport.RoundTrip(out)
}

// pass sends the server's answer to the client, or as much of it as the fault lets through.
func (x *exchange) pass(resp *http.Response) {
	resp.Header.Del("Connection")
	if x.edit != nil {
		x.edit(resp)
	}
	for name, values := range resp.Header {
		x.w.Header()[name] = values
	}
	x.apply(x.w.Header())
	x.note(func(r *Record) { r.Status = resp.StatusCode })
	x.w.WriteHeader(resp.StatusCode)

	limit := int64(math.MaxInt64)
	if x.kind == resetResponse || x.kind == truncateResponse || x.kind == stallResponse {
		limit = x.n
	}
	control := http.NewResponseController(x.w)
	buf := make([]byte, 64<<10)
	for limit > 0 {
		n, err := resp.Body.Read(buf[:min(limit, int64(len(buf)))])
		limit -= int64(n)
		x.note(func(r *Record) { r.Received += int64(n) })
		if _, err := x.w.Write(buf[:n]); err != nil {
			return // the client has gone
		}
		_ = control.Flush() // as they come
		if errors.Is(err, io.EOF) {
			if x.kind == resetResponse {
				x.hangUp(true)
			}
			return
		}
		if err != nil {
			x.hangUp(true)
			return
		}
	}
	_ = control.Flush() // the headers, where limit was 0
	if x.kind != resetResponse {
		if n, err := io.ReadFull(resp.Body, buf[:1]); n == 0 && errors.Is(err, io.EOF) {
			return // it has passed whole
		}
	}
	if x.kind == stallResponse {
		x.wait(nil)
	}
	x.hangUp(x.kind != truncateResponse)
}

// answer is the fault's own.
func (x *exchange) answer() {
	body := x.xml()
	h := x.w.Header()
	h.Set("Content-Type", "application/xml")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.apply(h)
	x.note(func(r *Record) { r.Status = x.status })
	x.w.WriteHeader(x.status)
	if x.r.Method != http.MethodHead {
		x.note(func(r *Record) { r.Received += int64(len(body)) })
		_, _ = io.WriteString(x.w, body)
	}
}

// hangUp closes the connection of the client: all that was written is sent and the end told, or it is reset.
func (x *exchange) hangUp(reset bool) {
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // closes it as well
	}
	if tcp, ok := conn.(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// wait returns true when c says so, and false when the client has gone or the proxy is closed.
func (x *exchange) wait(c <-chan time.Time) bool {
	select {
	case <-c:
		return true
	case <-x.r.Context().Done():
	case <-x.closed:
	}
	return false
}

// body is the request's, counted, and cut where the fault says so.
func (x *exchange) body() io.Reader {
	b := &requestBody{x: x, left: math.MaxInt64}
	if x.kind == resetRequest {
		b.left = x.n
	}
	return b
}

type requestBody struct {
	x    *exchange
	left int64
}

func (b *requestBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if b.left == 0 {
		if n, err := io.ReadFull(b.x.r.Body, p[:1]); n == 0 {
			return 0, err
		}
		return 0, errors.New("cut by the proxy")
	}
	n, err := b.x.r.Body.Read(p[:min(b.left, int64(len(p)))])
	b.left -= int64(n)
	b.x.note(func(r *Record) { r.Sent += int64(n) })
	return n, err
}
