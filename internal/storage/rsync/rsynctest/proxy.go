package rsynctest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Proxy stands before a server, counts the bytes that pass, and can break connections off.
type Proxy struct {
	Addr string // host:port

	target      string
	listener    net.Listener
	up, down    atomic.Int64
	connections atomic.Int64
	cut         atomic.Int64 // bytes that still may pass up; negative: any

	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
	all    sync.WaitGroup
}

// NewProxy starts a proxy before host:port. Whoever starts one calls Close.
func NewProxy(target string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: listener.Addr().String(), target: target, listener: listener, open: map[net.Conn]bool{}}
	p.cut.Store(-1)
	p.all.Go(p.accept)
	return p, nil
}

// URL names a directory of a module by way of the proxy.
func (p *Proxy) URL(module string) string { return "rsync://" + p.Addr + "/" + module }

// Bytes returns how many have passed, to the server and back.
func (p *Proxy) Bytes() (up, down int64) { return p.up.Load(), p.down.Load() }

// Connections returns how many there were.
func (p *Proxy) Connections() int64 { return p.connections.Load() }

// Forget sets all counts to nothing.
func (p *Proxy) Forget() {
	p.up.Store(0)
	p.down.Store(0)
	p.connections.Store(0)
}

// CutAfter lets n more bytes pass to the server; then all connections are broken off,
// and new ones too, until it is called again. Negative lets all pass.
func (p *Proxy) CutAfter(n int64) { p.cut.Store(n) }

// Cut breaks off what is open.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		_ = c.Close()
		delete(p.open, c)
	}
}

// Close breaks all off, and returns when nothing passes any more.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for c := range p.open {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.all.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.connections.Add(1)
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !p.keep(client, server) {
			return
		}
		p.all.Go(func() { p.copy(server, client, &p.up, &p.cut) })
		p.all.Go(func() { p.copy(client, server, &p.down, nil) })
	}
}

// keep notes connections, so that Close finds them.
func (p *Proxy) keep(client, server net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[client], p.open[server] = true, true
	if p.closed {
		_, _ = client.Close(), server.Close()
	}
	return !p.closed
}

func (p *Proxy) drop(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(p.open, c)
	}
}

// copy lets bytes pass until one side ends, or no more may.
func (p *Proxy) copy(to, from net.Conn, count, left *atomic.Int64) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if left != nil && left.Load() >= 0 && left.Add(-int64(n)) <= 0 {
			left.Store(0)
			p.drop(to, from)
			return
		}
		count.Add(int64(n))
		if _, writeErr := to.Write(buffer[:n]); err == nil {
			err = writeErr
		}
		if err == io.EOF {
			_ = to.(*net.TCPConn).CloseWrite()
			return
		}
		if err != nil {
			p.drop(to, from)
			return
		}
	}
}
