package codec

import (
	"io"
	"sync"
)

// blockSize is how many bytes goroutines hand to one another at once, and how
// many of a layer an lz4 block holds. Blocks of 4 MiB would compress 0.1 % better.
const blockSize = 1 << 20

// headroom is what an lz4 block needs before its bytes.
const headroom = 4

// buffers are of headroom + blockSize bytes.
var buffers = sync.Pool{New: func() any { return new([headroom + blockSize]byte) }}

type buffer = [headroom + blockSize]byte

// block is a piece of a stream on its way from the producer to the reader.
type block struct {
	raw     *buffer       // what the producer fills
	packed  *buffer       // raw encoded; nil where that is not done by block
	n       int           // how much of raw is used, headroom not counted
	out     []byte        // what the reader gets; in raw, in packed, or constant
	ready   chan struct{} // closed once out is set; nil when it is from the start
	counted bool          // takes one of the stream's slots
}

// stream is a reader of blocks that a producer makes ahead of it, at most a
// fixed number at once.
type stream struct {
	order   chan *block   // in the order of their bytes; closed by the producer, last
	slots   chan struct{} // full when no block may be made
	stop    chan struct{} // closed by Close
	close   sync.Once
	running sync.WaitGroup
	failure error // the producer's end; to be read after order is closed

	current *block // only Read uses these
	rest    []byte // of current
	err     error
}

// newStream returns a stream of at most slots blocks at once. produce runs in
// its own goroutine, and returns io.EOF when all is produced.
func newStream(slots int, produce func(*stream) error) *stream {
	s := emptyStream(slots, make(chan struct{}))
	s.running.Go(func() { s.end(produce(s)) })
	return s
}

// emptyStream returns a stream without a producer, which stop ends.
func emptyStream(slots int, stop chan struct{}) *stream {
	return &stream{
		order: make(chan *block, slots+constants),
		slots: make(chan struct{}, slots),
		stop:  stop,
	}
}

// end says that the producer is done, and why.
func (s *stream) end(why error) {
	s.failure = why
	close(s.order)
}

// constants is how many blocks a producer may emit without take.
const constants = 2

// take waits until a block may be made. It returns nil once the stream is closed.
func (s *stream) take() *block {
	select {
	case <-s.stop:
		return nil
	case s.slots <- struct{}{}:
		return &block{raw: buffers.Get().(*buffer), counted: true}
	}
}

// emit appends b to the stream. It does not block.
func (s *stream) emit(b *block) { s.order <- b }

// release lets another block take b's place.
func (s *stream) release(b *block) {
	if b == nil || !b.counted {
		return
	}
	buffers.Put(b.raw)
	if b.packed != nil {
		buffers.Put(b.packed)
	}
	<-s.slots
}

// fill reads r into b until it is full or r ends, as r says itself: unlike
// io.ReadFull it lets an end be told from an io.ErrUnexpectedEOF of r.
func (b *block) fill(r io.Reader) error {
	p := b.raw[headroom:]
	for empty := 0; b.n < len(p); {
		n, err := r.Read(p[b.n:])
		b.n += n
		if err != nil {
			return err
		}
		if empty++; n > 0 {
			empty = 0
		} else if empty == 100 {
			return io.ErrNoProgress
		}
	}
	return nil
}

// ahead produces what r returns.
func (s *stream) ahead(r io.Reader) error {
	for {
		b := s.take()
		if b == nil {
			return errClosed
		}
		err := b.fill(r)
		b.out = b.raw[headroom : headroom+b.n]
		s.emit(b)
		if err != nil {
			return err
		}
	}
}

// Read returns the next bytes of one block.
func (s *stream) Read(p []byte) (int, error) {
	select {
	case <-s.stop:
		return 0, errClosed
	default:
	}
	for len(s.rest) == 0 && len(p) > 0 {
		if s.err != nil {
			return 0, s.err
		}
		s.next()
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *stream) next() {
	s.release(s.current)
	b, ok := <-s.order
	if s.current = b; !ok {
		s.running.Wait()
		s.err = s.failure
		return
	}
	if b.ready != nil {
		<-b.ready
	}
	s.rest = b.out
}

// Close ends the goroutines and waits for them. It always returns nil.
func (s *stream) Close() error {
	s.close.Do(func() { close(s.stop) })
	s.running.Wait()
	return nil
}
