package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// defaultStall is how long a connection may carry nothing while one of its two
// sides waits.
const defaultStall = 30 * time.Second

// assembly is how much longer a server may take to put an object together from
// its parts: some copy all of them.
const assembly = 20

// stalls is an HTTP client that ends requests whose connection has gone silent.
// A reader that takes its time is no stall.
type stalls struct {
	client    aws.HTTPClient
	limit     time.Duration
	piece     int          // bytes of a body that are on their way to the connection at most
	contacted *atomic.Bool // set once the server has answered
}

// stalled is the error of a silent connection.
type stalled struct{ limit time.Duration }

func (e *stalled) Error() string { return fmt.Sprintf("no byte for %s", e.limit) }

// Timeout says that it may be tried again.
func (e *stalled) Timeout() bool { return true }

// Do implements aws.HTTPClient.
func (s *stalls) Do(r *http.Request) (*http.Response, error) {
	limit := s.limit
	if r.Method == http.MethodPost && r.URL.Query().Has("uploadId") {
		limit *= assembly
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	w := &watch{ctx: ctx, cancel: cancel, limit: limit}
	w.timer = time.AfterFunc(limit, func() { cancel(&stalled{limit}) })
	r = r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &sent{ReadCloser: r.Body, watch: w, piece: s.piece}
	}
	answer, err := s.client.Do(r)
	w.answered.Store(true)
	w.timer.Stop()
	if err != nil {
		err = w.blame(err)
		cancel(nil)
		return nil, err
	}
	s.contacted.Store(true)
	answer.Body = &received{ReadCloser: answer.Body, watch: w}
	return answer, nil
}

// watch ends one request when nobody has wound it up in time.
type watch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration

	answered atomic.Bool // what is sent of the request's body no longer counts
}

// blame returns the stall where that is why the request ended.
func (w *watch) blame(err error) error {
	var s *stalled
	if errors.As(context.Cause(w.ctx), &s) {
		return s
	}
	return err
}

// sent is a request's body: while it is read, the connection takes bytes. It is
// read in small pieces where a limit makes each of them wait for its share.
type sent struct {
	io.ReadCloser
	watch *watch
	piece int
}

func (s *sent) Read(p []byte) (int, error) {
	if !s.watch.answered.Load() {
		s.watch.timer.Reset(s.watch.limit)
	}
	return s.ReadCloser.Read(p[:min(len(p), s.piece)])
}

// received is an answer's body: it stalls only while somebody waits for it.
type received struct {
	io.ReadCloser
	watch *watch
}

func (r *received) Read(p []byte) (int, error) {
	r.watch.timer.Reset(r.watch.limit)
	n, err := r.ReadCloser.Read(p)
	r.watch.timer.Stop()
	if err != nil && err != io.EOF {
		err = r.watch.blame(err)
	}
	return n, err
}

func (r *received) Close() error {
	r.watch.timer.Stop()
	err := r.ReadCloser.Close()
	r.watch.cancel(nil)
	return err
}
