package ssh

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/pkg/sftp"

	"github.com/dogestry/dogestry/internal/storage"
)

// A stream is cut into pieces, some of which are on their way at once: as much as ssh's
// own window (2 MiB) lets travel. Packets are of the size that every server takes.
const (
	packet    = 32 << 10
	pieceSize = 256 << 10
	ahead     = 8

	streamSize = 4 << 20 // from which on a read is worth a connection of its own
)

// Get implements storage.Store. The reader holds some 2 MiB at most, and uses a connection
// that others may use too. An object that is replaced gives its old bytes to the end. A
// connection that breaks in the middle is an error: the caller may open the rest again.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := storage.ValidKey(key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fmt.Errorf("%s: negative offset %d", s.name(key), offset)
	}
	var d *download
	err := s.try(ctx, func(c *session) (err error) {
		if d, err = s.begin(ctx, c, key, offset, length); err != nil || d.end-d.at < streamSize {
			return err
		}
		stream, release, err := s.session(ctx, true)
		if err != nil {
			d.giveUp()
			return err
		}
		if stream != c {
			d.giveUp()
			if d, err = s.begin(ctx, stream, key, offset, length); err != nil {
				release()
				return err
			}
		}
		d.release = release
		return nil
	})
	if err != nil {
		return nil, s.failed(ctx, key, err)
	}
	d.start(ctx)
	return d, nil
}

// begin opens the file and reads its first bytes: of a small one all.
func (s *Store) begin(ctx context.Context, c *session, key string, offset, length int64) (*download, error) {
	d := &download{store: s, key: key, session: c, ctx: ctx, release: func() {}, cancel: func() {}}
	err := c.do(ctx, func() (err error) {
		d.file, err = c.client.Open(s.path(key))
		return err
	})
	if err != nil {
		return nil, err
	}
	first := make([]byte, packet)
	if length >= 0 {
		first = first[:min(length, packet)]
	}
	n := 0
	var reading sync.WaitGroup
	var readErr error
	if len(first) > 0 {
		reading.Go(func() {
			readErr = c.do(ctx, func() (err error) {
				if n, err = d.file.ReadAt(first, offset); err == io.EOF {
					return nil
				}
				return err
			})
		})
	}
	var fi fs.FileInfo
	err = c.do(ctx, func() (err error) {
		fi, err = d.file.Stat()
		return err
	})
	reading.Wait()
	switch {
	case err == nil && !fi.Mode().IsRegular():
		err = fs.ErrNotExist
	case err == nil:
		err = readErr
	}
	if err != nil {
		d.giveUp()
		return nil, err
	}
	d.rest, d.at, d.end = first[:n], offset+int64(n), fi.Size()
	if length >= 0 && offset <= d.end-length { // no sum of the two, which may be too large
		d.end = offset + length
	}
	return d, nil
}

// download is an object, or a part of it, on its way. Pieces come in any order and
// are handed out in theirs.
type download struct {
	store   *Store
	key     string
	session *session
	file    *sftp.File
	at, end int64 // what has not been asked for yet

	ctx     context.Context
	cancel  context.CancelFunc
	release func()        // gives the connection back
	order   chan *piece   // in the order of their bytes; nil where all is in rest
	slots   chan struct{} // taken by pieces that are not read yet

	rest   []byte // Read's alone, as what follows
	held   bool   // rest is a piece's
	closed bool
	err    error
}

// piece is bytes on their way to memory.
type piece struct {
	data []byte
	err  error // why it is not whole
	done chan struct{}
}

// giveUp closes the file. Nobody waits for that.
func (d *download) giveUp() { d.store.afterwards(func() { _ = d.file.Close() }) }

// start begins to read ahead.
func (d *download) start(ctx context.Context) {
	if d.at >= d.end {
		d.giveUp()
		d.release()
		return
	}
	d.ctx, d.cancel = context.WithCancel(ctx)
	d.order, d.slots = make(chan *piece, ahead), make(chan struct{}, ahead)
	d.store.afterwards(func() {
		var reading sync.WaitGroup
		for d.at < d.end && d.room() {
			p := &piece{data: make([]byte, min(pieceSize, d.end-d.at)), done: make(chan struct{})}
			d.order <- p
			from := d.at
			d.at += int64(len(p.data))
			reading.Go(func() { d.fetch(p, from) })
		}
		close(d.order)
		reading.Wait()
		d.release()
		_ = d.file.Close()
	})
}

// room waits until a further piece may be on its way, and reports whether it may.
func (d *download) room() bool {
	select {
	case d.slots <- struct{}{}:
		return d.ctx.Err() == nil
	case <-d.ctx.Done():
		return false
	}
}

// fetch fills p. It is not broken off with the context: its answer comes anyway.
func (d *download) fetch(p *piece, from int64) {
	defer close(p.done)
	err := d.session.do(context.WithoutCancel(d.ctx), func() error {
		n, err := d.file.ReadAt(p.data, from)
		if n == len(p.data) || err == io.EOF {
			p.data = p.data[:n]
			return nil
		}
		return err
	})
	if p.err = err; err == nil && len(p.data) < cap(p.data) {
		p.err = io.ErrUnexpectedEOF // somebody has cut the file off
	}
}

// Read implements io.Reader.
func (d *download) Read(b []byte) (int, error) {
	if d.closed {
		return 0, fmt.Errorf("%s: read after Close", d.store.name(d.key))
	}
	if err := d.ctx.Err(); err != nil {
		return 0, fmt.Errorf("%s: %w", d.store.name(d.key), err)
	}
	for len(d.rest) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		d.next()
	}
	n := copy(b, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// next waits for the next piece.
func (d *download) next() {
	if d.held {
		d.held = false
		<-d.slots
	}
	if d.order == nil {
		d.err = io.EOF
		return
	}
	p, more := <-d.order
	if !more {
		d.err = io.EOF
		if err := d.ctx.Err(); err != nil {
			d.err = fmt.Errorf("%s: %w", d.store.name(d.key), err)
		}
		return
	}
	select {
	case <-p.done:
	case <-d.ctx.Done():
		d.err = fmt.Errorf("%s: %w", d.store.name(d.key), d.ctx.Err())
		return
	}
	if d.rest, d.held = p.data, true; p.err != nil {
		d.rest, d.err = nil, d.store.failed(d.ctx, d.key, p.err)
	}
}

// Close ends the reading. It waits for nothing.
func (d *download) Close() error {
	d.closed = true
	d.cancel()
	return nil
}
