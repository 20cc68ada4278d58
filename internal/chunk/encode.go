package chunk

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	"github.com/dogestry/dogestry/internal/codec"
)

// targets are from how many bytes on a frame ends. Smaller ones cost room, larger ones cost who needs a part
// of one: lz4 looks back no further than 64 KiB anyway, zstd would.
var targets = map[codec.Codec]int{codec.LZ4: 128 << 10, codec.Zstd: 448 << 10}

// workersMost bounds the cores of one stream, and so its memory.
const workersMost = 8

// Encode returns a reader of src's bytes, encoded as frames, with an index behind them where the layer is large
// enough for one. Decoded it is src again. Of codec.None it is c.Encode. The bytes depend on those of src alone,
// neither on how it hands them out nor on the machine.
//
// As there, an error of src comes out of Read unchanged, goroutines read ahead, and Close waits for a Read of src
// in progress, so that src is the caller's again when it returns. Close may be called while Read runs, and again.
// What came before an error may be whole frames: only size and digest tell that something is missing. At most some
// 24 MiB are held, with zstd 56 MiB, and the index, which is some fiftieth of a layer and 64 MiB at most; at its end several times.
func Encode(c codec.Codec, src io.Reader) io.ReadCloser {
	target, ok := targets[c]
	if !ok {
		return c.Encode(src)
	}
	return newEncoder(c, src, target, Least)
}

// newEncoder returns one that makes frames of some target bytes, and an index where these are stored in least bytes.
func newEncoder(c codec.Codec, src io.Reader, target int, least int64) *encoder {
	workers := min(runtime.GOMAXPROCS(0), workersMost)
	e := &encoder{
		codec: c, index: newBuilder(c, least),
		split: newSplitter(src, target),
		slots: make(chan *job, workers+2),
		order: make(chan *job, workers+3),
		work:  make(chan *job, workers+2),
		stop:  make(chan struct{}),
	}
	for range cap(e.slots) {
		e.slots <- &job{}
	}
	e.running.Go(e.produce)
	for range workers {
		e.running.Go(func() {
			framer, hash := c.NewFramer(), new(Hash)
			for j := range e.work {
				j.pack(framer, hash)
			}
		})
	}
	return e
}

// job is a frame on its way.
type job struct {
	buffer []byte
	frame
	err    error         // behind it
	sums   []Sum         // of its chunks
	packed []byte        // encoded
	ready  chan struct{} // closed once the last two are there
}

// pack encodes a frame.
func (j *job) pack(framer *codec.Framer, hash *Hash) {
	j.packed, j.sums = j.packed[:0], j.sums[:0]
	if len(j.raw) > 0 {
		j.packed = framer.Append(j.packed, j.raw)
	}
	cut, left := 0, 0
	if len(j.cuts) > 0 {
		left = j.cuts[0]
	}
	at := 0
	for _, s := range j.spans {
		at += int(s.literal)
		for n := int(s.content); n > 0; {
			k := min(n, left)
			hash.Write(j.raw[at : at+k])
			if left -= k; left == 0 {
				j.sums = append(j.sums, hash.Sum())
				if cut++; cut < len(j.cuts) {
					left = j.cuts[cut]
				}
			}
			at, n = at+k, n-k
		}
	}
	close(j.ready)
}

// encoder is a stream of frames that are made ahead of it, in the order of the tar.
type encoder struct {
	codec codec.Codec
	index *builder
	split *splitter

	slots   chan *job // free ones
	work    chan *job
	order   chan *job // in the order of their bytes; closed by produce, last
	stop    chan struct{}
	close   sync.Once
	running sync.WaitGroup

	current *job   // only Read uses these
	rest    []byte // of current
	err     error
}

// produce cuts the tar in frames until it ends.
func (e *encoder) produce() {
	defer close(e.order)
	defer close(e.work)
	for {
		var j *job
		select {
		case <-e.stop:
			return
		case j = <-e.slots:
		}
		if j.buffer == nil {
			j.buffer = make([]byte, frameMost)
		}
		j.ready = make(chan struct{})
		j.frame, j.err = e.split.next(j.buffer)
		if j.err == nil || j.err == io.EOF {
			e.work <- j
		} else {
			close(j.ready)
		}
		e.order <- j
		if j.err != nil {
			return
		}
	}
}

// Read returns the next bytes of one frame, or of the index.
func (e *encoder) Read(p []byte) (int, error) {
	select {
	case <-e.stop:
		return 0, errClosed
	default:
	}
	for len(e.rest) == 0 && len(p) > 0 {
		if e.err != nil {
			return 0, e.err
		}
		e.next()
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// next takes the next frame. Behind the last one is the index.
func (e *encoder) next() {
	if e.current != nil {
		if e.err = e.current.err; e.err == io.EOF {
			e.current, e.rest = nil, e.index.end()
			if e.index.size == 0 { // nothing at all is no stream
				e.rest = e.codec.NewFramer().Append(nil, nil)
			}
			return
		}
		e.slots <- e.current
	}
	j, ok := <-e.order
	if !ok {
		e.err = errClosed
		return
	}
	<-j.ready
	if j.err != nil && j.err != io.EOF {
		e.err = j.err
		return
	}
	e.current, e.rest = j, j.packed
	if len(j.raw) > 0 {
		e.index.add(j.frame, j.sums, len(j.packed))
	}
}

// errClosed is what Read returns after Close.
var errClosed = fmt.Errorf("chunk: %w", os.ErrClosed)

// Close ends the goroutines and waits for them. It always returns nil.
func (e *encoder) Close() error {
	e.close.Do(func() { close(e.stop) })
	e.running.Wait()
	return nil
}
