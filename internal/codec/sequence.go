package codec

import (
	"bytes"
	"io"
	"slices"
	"sync"
)

const (
	// batchSize is, in stored bytes, what becomes a block of what compresses well.
	batchSize = 256 << 10

	// batchFrames is how many frames a batch has at most: they may become much.
	batchFrames = 16

	// batchSlots is how many blocks of a batch are decoded before its turn comes, and
	// held from then on: however much a batch becomes, this is what it takes.
	batchSlots = 2

	// decodeWorkers bounds the cores of one stream, and so its memory. Three decode
	// zstd faster than one computes the digest.
	decodeWorkers = 3

	// spareTurns are for parts that are read, or wait to be.
	spareTurns = 2
)

// frameFormat is how frames of a codec are told apart, and decoded.
type frameFormat struct {
	codec Codec
	batch int // stored bytes that one goroutine decodes at once, or somewhat more

	// extent returns how long the frame is that begins with b, if b is no longer
	// than that. Otherwise more is needed to tell: as many bytes of it as are
	// returned, all of which belong to it. It is 0 for a frame that is none, or not to
	// be decoded apart from what follows.
	extent func(b []byte) int

	open func() (frameReader, error)
}

// frameReader decodes a stream of frames in the goroutine that reads it.
type frameReader interface {
	io.Reader
	Reset(src io.Reader) error
	Close()
}

// sequence is a reader of streams that follow one another, and are decoded at the
// same time.
type sequence struct {
	workers int
	parts   chan *stream  // in the order of their bytes; closed by the producer, last
	turns   chan struct{} // full when there may be no more parts
	stop    chan struct{} // closed by Close, or when reading has failed
	halt    func()        // closes stop
	running sync.WaitGroup
	failure error // the producer's end; to be read after parts is closed

	current *stream // only Read uses these
	err     error
}

// newSequence returns a sequence that so many workers decode. Its producer runs in its own
// goroutine, and returns io.EOF when all is produced.
func newSequence(workers int, produce func(*sequence) error) *sequence {
	turns := workers + spareTurns
	q := &sequence{workers: workers, parts: make(chan *stream, turns), turns: make(chan struct{}, turns), stop: make(chan struct{})}
	q.halt = sync.OnceFunc(func() { close(q.stop) })
	q.running.Go(func() {
		q.failure = produce(q)
		close(q.parts)
	})
	return q
}

// part waits until there may be another part, and appends it. It returns nil once the
// sequence is to stop.
func (q *sequence) part(slots int) *stream {
	select {
	case <-q.stop:
		return nil
	case q.turns <- struct{}{}:
		s := emptyStream(slots, q.stop)
		q.parts <- s
		return s
	}
}

// batch is whole frames, and what they become.
type batch struct {
	stored []byte
	part   *stream
}

// decode produces what src holds. Frames that stand apart are gathered to batches,
// which several goroutines decode. From the first one on that does not, or is not whole,
// the rest is decoded here, as it comes: so is a stream of one large frame, and so the
// library has the say about all that is wrong. The last frames are among the rest too:
// most layers are small.
func (q *sequence) decode(src io.Reader, format frameFormat) error {
	from := &source{reader: src}
	var begun []byte
	if q.workers > 1 {
		var err error
		if begun, err = q.batches(from, format); err != nil {
			return err
		}
	}
	part := q.part(3)
	if part == nil {
		return errClosed
	}
	rest := &source{reader: io.MultiReader(bytes.NewReader(begun), from), read: from.read - int64(len(begun))}
	r, err := format.open()
	if err == nil {
		defer r.Close()
		err = part.unpack(r, rest, format.codec)
	}
	part.end(err)
	return err
}

// batches has all decoded that comes in batches, and returns what it has read behind them.
func (q *sequence) batches(from *source, format frameFormat) (begun []byte, err error) {
	workers := q.workers
	work := make(chan batch, cap(q.turns))
	defer close(work)
	used := make(chan []byte, cap(q.turns)+1) // to be filled again; all there are
	for {
		var whole bool
		if begun, whole = format.gather(begun[:0], from); !whole {
			return begun, nil
		}
		part := q.part(batchSlots)
		if part == nil {
			return nil, errClosed
		}
		if workers > 0 {
			workers--
			q.running.Go(func() { unpack(work, used, format) })
		}
		work <- batch{begun, part}
		select {
		case begun = <-used:
		default:
			begun = nil
		}
	}
}

// gather appends whole frames to b until they are a batch. Otherwise what it returns
// ends with what has been read of a frame that cannot be in one, or does not come.
func (f frameFormat) gather(b []byte, from *source) (_ []byte, whole bool) {
	for start, frames := 0, 0; ; {
		n := f.extent(b[start:])
		switch missing := n - (len(b) - start); {
		case n == 0 || n > mostApart:
			return b, false
		case missing > 0:
			b = slices.Grow(b, missing)
			got, err := io.ReadFull(from, b[len(b):len(b)+missing])
			if b = b[:len(b)+got]; err != nil {
				return b, false
			}
		default:
			start = len(b)
			if frames++; start >= f.batch || frames == batchFrames {
				return b, true
			}
		}
	}
}

// unpack decodes batches until there are no more. One that takes more than its slots
// waits for its turn; those before it are done by then, or in the hands of others.
func unpack(work <-chan batch, used chan<- []byte, format frameFormat) {
	r, err := format.open()
	if err == nil {
		defer r.Close()
	}
	for b := range work {
		why := err
		if err == nil {
			why = b.part.unpack(r, &source{reader: bytes.NewReader(b.stored)}, format.codec)
		}
		used <- b.stored
		b.part.end(why)
	}
}

// unpack produces what from holds.
func (s *stream) unpack(r frameReader, from *source, c Codec) error {
	if err := r.Reset(from); err != nil {
		return from.blame(c, err)
	}
	return from.blame(c, s.ahead(r))
}

// Read returns the next bytes of one block.
func (q *sequence) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if q.err != nil {
			return 0, q.err
		}
		if q.current == nil {
			var more bool
			if q.current, more = <-q.parts; !more {
				q.running.Wait()
				q.err = q.failure
				continue
			}
		}
		n, err := q.current.Read(p)
		switch err {
		case nil:
			return n, nil
		case io.EOF:
			q.current = nil
			<-q.turns
		default:
			q.err = err
			q.halt()
		}
	}
	return 0, nil
}

// Close ends the goroutines and waits for them. It always returns nil.
func (q *sequence) Close() error {
	q.halt()
	q.running.Wait()
	return nil
}
