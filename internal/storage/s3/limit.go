package s3

import (
	"context"
	"net"

	"golang.org/x/time/rate"
)

// limits bounds what all connections of a store carry together.
type limits struct {
	up, down *rate.Limiter // nil: no bound
}

func newLimits(o Options) limits {
	return limits{up: limiter(o.UploadLimit), down: limiter(o.DownloadLimit)}
}

// limiter allows so many bytes a second, in pieces of a tenth of a second, so
// that a slow link stays usable for others.
func limiter(bytes int64) *rate.Limiter {
	if bytes <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytes), int(max(4<<10, min(bytes/10, 256<<10))))
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// dial wraps the connections of another dialer.
func (l limits) dial(inner dialer) dialer {
	if l.up == nil && l.down == nil {
		return inner
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := inner(ctx, network, address)
		if err != nil {
			return nil, err
		}
		// Not ctx: it is about the dialling. A closed connection ends the wait.
		l := &limited{Conn: c, limits: l}
		l.open, l.shut = context.WithCancel(context.Background())
		return l, nil
	}
}

// limited is a connection that waits for its share.
type limited struct {
	net.Conn
	limits
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
