package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/dogestry/dogestry/internal/throttle"
)

// A server may stop in the middle and keep the connection. What is sent is watched
// on the connection, below limits of bandwidth: a write ends when nothing moves for
// so long. What is received is watched in the bodies of answers, since a connection
// is always read, also while it is idle: a reader that takes its time is no stall.
// How long an answer may take to begin is the transport's to say.

// stalled is the error of a silent connection.
type stalled struct{ limit time.Duration }

func (e *stalled) Error() string { return fmt.Sprintf("nothing has moved for %s", e.limit) }

// Timeout says that it may be tried again.
func (e *stalled) Timeout() bool { return true }

// watchWrites wraps the connections of a dialer.
func watchWrites(dial throttle.Dialer, limit time.Duration) throttle.Dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &watched{Conn: c, limit: limit}, nil
	}
}

// watched is a connection that fails when a write stalls.
type watched struct {
	net.Conn
	limit time.Duration
}

// written bounds what has to move within the limit.
const written = 32 << 10

func (w *watched) Write(b []byte) (int, error) {
	done := 0
	for {
		piece := b[done:min(len(b), done+written)]
		if err := w.SetWriteDeadline(time.Now().Add(w.limit)); err != nil {
			return done, err
		}
		n, err := w.Conn.Write(piece)
		if done += n; errors.Is(err, os.ErrDeadlineExceeded) {
			w.Conn.Close() // whatever follows would not fit
			err = &stalled{w.limit}
		}
		if err != nil || done == len(b) {
			return done, err
		}
	}
}

// watching ends requests whose answers stall.
type watching struct {
	next  http.RoundTripper
	limit time.Duration
}

// RoundTrip implements http.RoundTripper.
func (w *watching) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := w.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Request = req
	timer := time.AfterFunc(w.limit, func() { cancel(&stalled{w.limit}) })
	timer.Stop()
	resp.Body = &received{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, timer: timer, limit: w.limit}
	return resp, nil
}

// received is an answer's body: it stalls only while somebody waits for it.
type received struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

func (r *received) Read(b []byte) (int, error) {
	r.timer.Reset(r.limit)
	n, err := r.ReadCloser.Read(b)
	r.timer.Stop()
	var why *stalled
	if err != nil && err != io.EOF && errors.As(context.Cause(r.ctx), &why) {
		err = why
	}
	return n, err
}

// Close ends the request.
func (r *received) Close() error {
	r.timer.Stop()
	err := r.ReadCloser.Close()
	r.cancel(nil)
	return err
}
