package sealed

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Gate is an HTTP proxy (RFC 9110, section 9.3.6; RFC 9112, section 3.2.2) that is
// an engine's only way out, and lets through what its Seal allows alone. All else is
// refused at once, in words that engines show to their users. Close ends what was let
// through. It is safe for concurrent use.
type Gate struct {
	seal  *Seal
	log   *slog.Logger
	plain *httputil.ReverseProxy
	dial  DialFunc

	mu      sync.Mutex
	closed  bool
	tunnels map[net.Conn]bool
	running sync.WaitGroup
}

// NewGate returns one that lets through what seal allows. Refusals are logged.
func NewGate(seal *Seal, log *slog.Logger) *Gate {
	g := &Gate{seal: seal, log: log, dial: seal.Dial((&net.Dialer{Timeout: gateTime}).DialContext), tunnels: map[net.Conn]bool{}}
	transport := &http.Transport{DialContext: g.dial, TLSHandshakeTimeout: gateTime, IdleConnTimeout: time.Minute}
	g.plain = &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.Host = r.In.Host },
		Transport: transport,
		ErrorLog:  slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			log.Warn("what is allowed does not answer", "address", HostPort(r.URL), "error", err)
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	return g
}

// gateTime is how long an allowed address may take to answer.
const gateTime = 30 * time.Second

// ServeHTTP answers what a client asks of a proxy.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	address := r.Host
	switch {
	case r.Method == http.MethodConnect:
	case r.URL.IsAbs() && r.URL.Scheme == "http":
		address = HostPort(r.URL)
	default:
		refuse(w, r, Refused("this is no registry, but the way out, which is closed"))
		return
	}
	switch {
	case g.seal.Check("tcp", address) != nil:
		g.log.Warn("refused", "address", address, "client", r.RemoteAddr)
		refuse(w, r, Refused(hostOf(address)+" is not contacted. Have the image in the remote first: dogestry copy"))
	case r.Method == http.MethodConnect:
		g.connect(w, r, address)
	default:
		g.plain.ServeHTTP(w, r)
	}
}

// Refused is the text of a refusal; it names the mode.
func Refused(why string) string { return ErrSealed.Error() + ": " + why }

// hostOf is what a client asked for as it may stand in a line of text.
func hostOf(address string) string {
	if host, port, err := net.SplitHostPort(address); err == nil && port == "443" {
		address = host
	}
	address = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '?'
		}
		return r
	}, address)
	return address[:min(len(address), 255)]
}

// refuse says why in the status line, which is what clients show of a refused
// CONNECT, and in a body that clients of registries show (OCI distribution
// specification, "Error codes").
func refuse(w http.ResponseWriter, r *http.Request, why string) {
	body := fmt.Sprintf(`{"errors":[{"code":"DENIED","message":%q}]}`+"\n", why)
	connection, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil { // HTTP/2, or a test
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, body) //nolint:errcheck // the client has gone
		return
	}
	defer connection.Close()
	if r.Method == http.MethodHead {
		body = ""
	}
	_ = connection.SetDeadline(time.Now().Add(gateTime))
	fmt.Fprintf(buffered, "HTTP/1.1 403 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", why, len(body), body)
	_ = buffered.Flush() // else the client has gone
}

// connect passes bytes in both directions until one side has ended.
func (g *Gate) connect(w http.ResponseWriter, r *http.Request, address string) {
	far, err := g.dial(r.Context(), "tcp", address)
	if err != nil {
		g.plain.ErrorHandler(w, &http.Request{URL: &url.URL{Scheme: "https", Host: address}}, err)
		return
	}
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		far.Close()
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if !g.open(near, far) {
		return
	}
	defer g.running.Done()
	defer g.end(near, far)
	_ = near.SetDeadline(time.Time{}) // the server's are for requests
	if _, err := io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	up := make(chan struct{})
	go func() {
		defer close(up)
		pass(far, buffered.Reader)
	}()
	pass(near, far)
	g.end(near, far) // the other direction, too
	<-up
}

// pass copies what comes, and ends the direction when it has ended.
func pass(to net.Conn, from io.Reader) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// open notes connections that Close is to close. It reports false, and has closed them, when that was called.
func (g *Gate) open(connections ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		for _, c := range connections {
			c.Close()
		}
		return false
	}
	for _, c := range connections {
		g.tunnels[c] = true
	}
	g.running.Add(1)
	return true
}

func (g *Gate) end(connections ...net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range connections {
		c.Close()
		delete(g.tunnels, c)
	}
}

// Close ends all that was let through, and returns when it has ended. Its server
// is the caller's to close, before.
func (g *Gate) Close() {
	g.mu.Lock()
	g.closed = true
	for c := range g.tunnels {
		c.Close()
	}
	g.mu.Unlock()
	g.running.Wait()
	g.plain.Transport.(*http.Transport).CloseIdleConnections()
}

// Serve answers at l until ctx ends, and closes l.
func (g *Gate) Serve(ctx context.Context, l net.Listener) error {
	s := &http.Server{Handler: g, ReadHeaderTimeout: gateTime, IdleTimeout: time.Minute, ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	err := s.Serve(l)
	stop()
	s.Close()
	g.Close()
	if ctx.Err() != nil {
		return nil
	}
	return err
}
