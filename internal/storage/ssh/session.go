package ssh

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"sync"
	"time"

	"github.com/pkg/sftp"

	"github.com/dogestry/dogestry/internal/fault"
)

// session is one connection: an ssh that runs, and the protocol on it. Requests of
// several goroutines are on their way at once.
type session struct {
	client  *sftp.Client
	process *process
	bulk    int // streams that use it; the pool's lock is for it

	mu     sync.Mutex
	failed bool // it answers no more
}

// connect runs ssh and waits for the other side. Its errors are the explained ones.
func (s *Store) connect(ctx context.Context, o Options) (*session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var p *process
	wire, err := s.limits.Dial(func(context.Context, string, string) (net.Conn, error) {
		var err error
		if p, err = o.start(); err != nil {
			return nil, err // and no interface with nil in it
		}
		return p, nil
	})(ctx, "pipe", o.Host)
	if err != nil {
		return nil, s.cannotRun(err)
	}
	stop := context.AfterFunc(ctx, p.kill)
	client, err := sftp.NewClientPipe(wire, wire, sftp.UseConcurrentWrites(true), sftp.MaxConcurrentRequestsPerFile(pieceSize/packet))
	if !stop() && err == nil {
		_ = client.Close()
		err = ctx.Err()
	}
	if err != nil {
		p.await(ctx, 5*time.Second) // for its last words
		_ = wire.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, s.explain(p, err)
	}
	return &session{client: client, process: p}, nil
}

// close ends the connection.
func (c *session) close() {
	c.fail()
	_ = c.process.Close()
	_ = c.client.Close()
}

func (c *session) fail() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = true
}

// works reports whether the connection can be used.
func (c *session) works() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.process.ended:
		c.failed = true
	default:
	}
	return !c.failed
}

// patience is how long a request may go on after its context has ended: what is
// answered is cleaned up on the same connection.
const patience = 2 * time.Second

// do makes a request. When ctx ends it waits for the answer a little longer, and then
// ends the connection. Its error is an answer of the server (see isAnswer), that of
// ctx, or errLost.
func (c *session) do(ctx context.Context, request func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-done:
		case <-time.After(patience):
			c.fail()
			c.process.kill()
		}
	})
	err := request()
	close(done)
	stop()
	if err == nil || isAnswer(err) {
		return err
	}
	c.fail()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &lost{c, err}
}

// lost is the error of a connection that broke.
type lost struct {
	session *session
	cause   error
}

func (e *lost) Error() string { return "the connection broke: " + e.cause.Error() }
func (e *lost) Unwrap() error { return e.cause }

// isAnswer reports whether an error is what the server said.
func isAnswer(err error) bool {
	var status *sftp.StatusError
	return errors.As(err, &status) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

// connections bounds how many there are at once. sshd takes ten at a time that have not
// logged in yet (MaxStartups).
const connections = 4

// pool is the connections of a Store.
type pool struct {
	mu      sync.Mutex
	live    []*session
	most    int      // that there may be
	opening int      // that are being made, first apart
	first   *attempt // of making one where there is none; nil while nobody tries
}

// attempt is one that others wait for.
type attempt struct {
	done chan struct{}
	err  error
}

// session returns a connection, and what gives it back. For a stream it is one that no
// other stream uses, as long as there may be more.
func (s *Store) session(ctx context.Context, stream bool) (*session, func(), error) {
	for {
		s.pool.mu.Lock()
		best := s.pool.best()
		more := len(s.pool.live)+s.pool.opening < s.pool.most
		switch {
		case best != nil && (!stream || best.bulk == 0 || !more):
			return best, s.take(best, stream), nil
		case best != nil:
			s.pool.opening++
			s.pool.mu.Unlock()
			o := s.o
			o.Ask = false // nobody wants to be asked again
			c, err := s.connect(ctx, o)
			s.pool.mu.Lock()
			s.pool.opening--
			if err == nil {
				s.pool.live = append(s.pool.live, c)
				return c, s.take(c, stream), nil
			}
			if ctx.Err() == nil {
				s.o.log().Debug("no further connection", "error", err)
				s.pool.most = max(1, len(s.pool.live)) // the server may count them
			}
			s.pool.mu.Unlock()
			if ctx.Err() != nil {
				return nil, nil, ctx.Err()
			}
		case s.pool.first == nil:
			a := &attempt{done: make(chan struct{})}
			s.pool.first = a
			s.pool.mu.Unlock()
			c, err := s.connectPatiently(ctx)
			s.pool.mu.Lock()
			s.pool.first = nil
			if a.err = err; err == nil {
				s.pool.live = append(s.pool.live, c)
			}
			close(a.done)
			s.pool.mu.Unlock()
			if err != nil {
				return nil, nil, err
			}
		default:
			a := s.pool.first
			s.pool.mu.Unlock()
			select {
			case <-a.done:
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			}
			if a.err != nil && !fault.Interrupted(a.err) { // that was the other one's context
				return nil, nil, a.err
			}
		}
	}
}

// best returns the connection with the fewest streams, nil where there is none, and
// forgets those that broke.
func (p *pool) best() (best *session) {
	live := p.live[:0]
	for _, c := range p.live {
		if !c.works() {
			go c.close()
			continue
		}
		live = append(live, c)
		if best == nil || c.bulk < best.bulk {
			best = c
		}
	}
	clear(p.live[len(live):])
	p.live = live
	return best
}

// take counts a use. It gives up the lock, and returns what gives the connection back.
func (s *Store) take(c *session, stream bool) func() {
	if stream {
		c.bulk++
	}
	s.pool.mu.Unlock()
	return sync.OnceFunc(func() {
		if stream {
			s.pool.mu.Lock()
			defer s.pool.mu.Unlock()
			c.bulk--
		}
	})
}

// attempts bounds how often something is tried whose connection broke.
const attempts = 4

// connectPatiently tries again where the server may only be busy, or where it has
// answered before.
func (s *Store) connectPatiently(ctx context.Context) (*session, error) {
	o := s.o
	o.Ask = o.Ask && !s.contacted.Load() // it has been answered once: an interrupted command asks nothing
	for attempt := 0; ; attempt++ {
		c, err := s.connect(ctx, o)
		if err == nil {
			s.contacted.Store(true)
			return c, nil
		}
		var failure *unreachable
		if ctx.Err() != nil || attempt+1 == attempts || !errors.As(err, &failure) || !failure.busy && !s.contacted.Load() {
			return nil, err
		}
		if err := s.pause(ctx, attempt, err); err != nil {
			return nil, err
		}
	}
}

// pause waits before a retry, and says why.
func (s *Store) pause(ctx context.Context, attempt int, why error) error {
	d := s.o.backoff(attempt)
	s.o.notify(s.o.Host + " does not answer as it should (" + why.Error() + "), trying again in " + d.Round(100*time.Millisecond).String())
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// try makes requests that may be made again, on another connection where the one broke.
func (s *Store) try(ctx context.Context, requests func(*session) error) error {
	for attempt := 0; ; attempt++ {
		c, release, err := s.session(ctx, false)
		if err != nil {
			return err
		}
		err = requests(c)
		release()
		var broke *lost
		if !errors.As(err, &broke) || ctx.Err() != nil {
			return err
		}
		err = s.broken(ctx, broke)
		if attempt+1 == attempts {
			return err
		}
		if err := s.pause(ctx, attempt, err); err != nil {
			return err
		}
	}
}
