package front

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
)

// serve answers on listeners, which it closes, until ctx ends.
func (f *front) serve(ctx context.Context, listeners []net.Listener, cert *certificate) error {
	// What is on its way outlives ctx, for a while.
	handling, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	// Of HTTP there is version 1 alone: a transfer has a connection of its own, so that
	// a slow reader holds up no other, and its stall is that of the connection.
	only1 := new(http.Protocols)
	only1.SetHTTP1(true)
	server := &http.Server{
		Handler:           f,
		ReadHeaderTimeout: f.o.headers,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		Protocols:         only1,
		BaseContext:       func(net.Listener) context.Context { return handling },
		ConnState:         f.silent.state,
		ErrorLog:          slog.NewLogLogger(f.o.Log.Handler(), slog.LevelDebug),
	}
	if cert != nil {
		server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert.get}
	}
	if f.o.Ready != nil {
		f.o.Ready(urls(listeners, cert != nil))
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		g.Go(func() error {
			var err error
			if cert != nil {
				err = server.ServeTLS(l, "", "")
			} else {
				err = server.Serve(l)
			}
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return fault.Wrap(fault.Other, err, "cannot go on listening on %s", l.Addr())
		})
	}
	g.Go(func() error {
		<-gctx.Done() // ctx, or a listener that failed
		f.stop(server, cut)
		return nil
	})
	return g.Wait()
}

// stop ends what runs: by itself within the grace, else cut off. It returns when
// every handler has returned, so that nothing uses the remote any more.
func (f *front) stop(server *http.Server, cut context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), f.o.Grace)
	defer cancel()
	f.silent.close()
	if server.Shutdown(ctx) != nil {
		f.o.Log.Warn("requests that did not end in time are cut off", "requests", f.o.Metrics.inFlight())
	}
	cut()
	_ = server.Close() // of connections alone: the listeners are closed
	f.running.wait()
}

// silent are connections on which nothing was asked yet. Shutdown would wait five
// seconds for each, and clients open some that they do not use.
type silent struct {
	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// state is for http.Server.
func (s *silent) state(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(s.conns, c)
	case s.closed:
		_ = c.Close()
	default:
		if s.conns == nil {
			s.conns = map[net.Conn]struct{}{}
		}
		s.conns[c] = struct{}{}
	}
}

// close closes them, and from now on those that come.
func (s *silent) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close()
	}
}

// running counts handlers. Unlike a sync.WaitGroup it may be waited for while others begin.
type running struct {
	mu      sync.Mutex
	n       int
	stopped bool
	none    chan struct{} // closed when stopped and n is 0
}

// begin reports whether one more may run.
func (r *running) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return false
	}
	r.n++
	return true
}

func (r *running) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n--; r.stopped && r.n == 0 {
		close(r.none)
	}
}

// wait lets none begin any more, and returns when none is left. It is called once.
func (r *running) wait() {
	r.mu.Lock()
	r.stopped, r.none = true, make(chan struct{})
	if r.n == 0 {
		close(r.none)
	}
	r.mu.Unlock()
	<-r.none
}
