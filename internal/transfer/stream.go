package transfer

import (
	"context"
	"errors"
	"io"
	"sync"
)

// A stream carries one layer from the goroutine that reads it to the one that
// writes it, so that both sides work at once. It holds at most a number of
// chunks of chunkSize bytes, made when they are needed.
type stream struct {
	full   chan []byte
	free   chan []byte
	gone   chan struct{} // closed when the reader goes away
	once   sync.Once
	err    error  // why no more comes; set before full is closed
	chunk  []byte // the reader's current chunk, and
	rest   []byte // what is left of it
	onGone func() // may be nil
}

const (
	chunkSize    = 1 << 20
	streamChunks = 8
)

var errReaderGone = errors.New("the reader has closed the stream")

func newStream(chunks int) *stream {
	s := &stream{
		full: make(chan []byte, chunks),
		free: make(chan []byte, chunks),
		gone: make(chan struct{}),
	}
	for range chunks {
		s.free <- nil
	}
	return s
}

// fill passes all of r on, then its error; it is called once. It returns nil
// when r ended well and everything is on its way, else r's error, ctx's, or
// errReaderGone.
func (s *stream) fill(ctx context.Context, r io.Reader, progress func(int)) (err error) {
	defer func() {
		s.err = err
		close(s.full)
	}()
	for {
		var b []byte
		select {
		case <-s.gone: // before what is free: select would choose by chance
			return errReaderGone
		default:
		}
		select {
		case b = <-s.free:
		case <-s.gone:
			return errReaderGone
		case <-ctx.Done():
			return ctx.Err()
		}
		if b == nil {
			b = make([]byte, chunkSize)
		}
		n, err := readFull(r, b[:chunkSize])
		if n > 0 {
			progress(n)
			s.full <- b[:n] // never blocks: there are no more chunks than places
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readFull reads until p is full or r ends, and returns the end as r says it:
// unlike io.ReadFull it leaves no doubt whether r itself ended unexpectedly.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for empty := 0; n < len(p) && err == nil; {
		var more int
		more, err = r.Read(p[n:])
		n += more
		if empty++; more > 0 {
			empty = 0
		} else if empty == 100 && err == nil {
			return n, io.ErrNoProgress
		}
	}
	return n, err
}

// Read returns what fill has read, then io.EOF or fill's error.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.chunk != nil {
			s.free <- s.chunk
			s.chunk = nil
		}
		b, ok := <-s.full
		if !ok {
			if s.err != nil {
				return 0, s.err
			}
			return 0, io.EOF
		}
		s.chunk, s.rest = b, b
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Close tells fill that nobody reads any more. It may be called again.
func (s *stream) Close() error {
	s.once.Do(func() {
		close(s.gone)
		if s.onGone != nil {
			s.onGone()
		}
	})
	return nil
}
