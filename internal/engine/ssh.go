package engine

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/docker/cli/cli/connhelper"
	"github.com/moby/moby/client"
)

// sshDialer runs ssh as docker does, and knows why it ended.
type sshDialer struct {
	run  func(ctx context.Context, network, address string) (net.Conn, error)
	last atomic.Pointer[sshFailure] // of the one that was dialled last, or one beside it
}

// sshFailure is how ssh ended, with what it said.
type sshFailure struct{ error }

// dialSSH is how the engine at host is dialled where that is behind ssh, else nil.
func dialSSH(host string) (*sshDialer, error) {
	if !strings.HasPrefix(host, "ssh://") {
		return nil, nil
	}
	helper, err := connhelper.GetConnectionHelper(host)
	if err != nil {
		return nil, err
	}
	return &sshDialer{run: helper.Dialer}, nil
}

// options come behind the endpoint's.
func (d *sshDialer) options() []client.Opt {
	if d == nil {
		return nil
	}
	return []client.Opt{client.WithDialContext(d.dial)}
}

func (d *sshDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d.last.Store(nil)
	c, err := d.run(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &sshConn{Conn: c, dialer: d}, nil
}

// why is err, by which a connection failed, with what ssh said. Docker's client drops
// that where it takes it for words about a socket of this machine ("dial unix …").
func (d *sshDialer) why(err error) error {
	if d == nil {
		return err
	}
	if f := d.last.Load(); f != nil {
		return f
	}
	return err
}

// sshConn is what ssh passes on. Docker's own says why ssh ended where a read finds
// that it has; a write that comes first fails with "broken pipe", and that is all.
type sshConn struct {
	net.Conn
	dialer *sshDialer

	reading sync.Mutex // held by who reads; guards what follows
	ahead   []byte     // what Write has read
	end     error      // of reading
}

func (c *sshConn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	return c.read(p)
}

// Write fails with what ssh said, if that has ended. It may also take no more, and
// pass on an answer.
func (c *sshConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err == nil {
		return n, nil
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if len(c.ahead) == 0 && c.end == nil {
		one := make([]byte, 1)
		got, _ := c.read(one)
		c.ahead = one[:got]
	}
	if f, ok := errors.AsType[*sshFailure](c.end); ok {
		return n, f
	}
	return n, err
}

// read is called with reading held.
func (c *sshConn) read(p []byte) (int, error) {
	if c.end != nil {
		return 0, c.end
	}
	n, err := c.Conn.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, fs.ErrClosed) {
		said := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\r", "") // ssh ends its lines so
		f := &sshFailure{errors.New(said)}
		c.dialer.last.Store(f)
		err = f
	}
	c.end = err
	return n, err
}
