// Package throttle bounds how many bytes a second connections carry together.
package throttle

import (
	"context"
	"net"

	"golang.org/x/time/rate"
)

// Limits bounds what all connections that it wraps carry together. It is safe for
// concurrent use. The zero value bounds nothing.
type Limits struct {
	up, down *rate.Limiter // nil: no bound
}

// New returns limits of so many bytes a second, sent and received; 0 is no bound.
func New(up, down int64) Limits {
	return Limits{up: limiter(up), down: limiter(down)}
}

// limiter allows so many bytes a second, in pieces of a tenth of a second, so
// that a slow link stays usable for others.
func limiter(bytes int64) *rate.Limiter {
	if bytes <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytes), int(max(4<<10, min(bytes/10, 256<<10))))
}

// Piece returns how many bytes may be sent at once, at most most: what is in a
// larger buffer would wait there as a whole.
func (l Limits) Piece(most int) int {
	if l.up == nil {
		return most
	}
	return min(most, l.up.Burst())
}

// Dialer is DialContext of net.Dialer, or what stands in for it.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Dial wraps the connections of another dialer. A connection that is closed waits
// no more.
func (l Limits) Dial(inner Dialer) Dialer {
	if l.up == nil && l.down == nil {
		return inner
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := inner(ctx, network, address)
		if err != nil {
			return nil, err
		}
		// Not ctx: it is about the dialling. A closed connection ends the wait.
		l := &limited{Conn: c, Limits: l}
		l.open, l.shut = context.WithCancel(context.Background())
		return l, nil
	}
}

// limited is a connection that waits for its share.
type limited struct {
	net.Conn
	Limits
	open context.Context // ends with Close
	shut context.CancelFunc
}

func (c *limited) Read(p []byte) (int, error) {
	if c.down == nil {
		return c.Conn.Read(p)
	}
	n, err := c.Conn.Read(p[:min(len(p), c.down.Burst())])
	if n > 0 && c.down.WaitN(c.open, n) != nil && err == nil {
		err = net.ErrClosed
	}
	return n, err
}

func (c *limited) Write(p []byte) (written int, err error) {
	if c.up == nil {
		return c.Conn.Write(p)
	}
	for len(p) > 0 && err == nil {
		piece := p[:min(len(p), c.up.Burst())]
		if c.up.WaitN(c.open, len(piece)) != nil {
			return written, net.ErrClosed
		}
		var n int
		n, err = c.Conn.Write(piece)
		written += n
		p = p[n:]
	}
	return written, err
}

func (c *limited) Close() error {
	c.shut()
	return c.Conn.Close()
}
