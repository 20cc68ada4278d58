package delta

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/dogestry/dogestry/internal/chunk"
)

// Options is what a layer is put together with.
type Options struct {
	// Read reads the stored layer. It is called by several goroutines at once.
	Read chunk.Reader

	// Whole opens the layer, decoded, from its beginning. It is called once at most. What it opens is read until
	// its context ends, which is no later than Close.
	Whole func(ctx context.Context) (io.ReadCloser, error)

	// Note, if set, is told why the layer is read whole after all; once at most, in Read.
	Note func(cause error)
}

// Stats is what a Reader has done so far. What Whole opened is not counted.
type Stats struct {
	Fetched int64 // bytes of the stored layer that were read, needed or not
	Local   int64 // content bytes that came from local layers, and were what they had to be
	Whole   bool  // the layer was opened whole
}

// Reader is a layer's tar that is put together while it is read.
type Reader struct {
	ctx    context.Context // of the caller
	all    context.Context // of everything, until Close
	cancel context.CancelFunc
	whole  func(context.Context) (io.ReadCloser, error)
	note   func(error)

	assembly *assembly

	reading sync.Mutex // held by Read: all below is its
	current *job       // whose bytes rest is of
	rest    []byte
	at      int64         // bytes handed out
	rescue  io.ReadCloser // the whole layer
	err     error         // that ended it
}

// Open returns a reader of the layer's tar, in its order. It puts the layer together ahead of who reads, in
// at most some 80 MiB, and falls back to the whole layer, once, where anything is not as the plan has it: a read that
// fails, frames that do not decode, chunks and literal blocks that are damaged. A local chunk that is not there, or is not
// what its sum says, is fetched.
//
// It proves nothing of the whole: the caller reads it through image.Verify. Read fails with the context's error when that
// ends. The caller closes it; Close may be called during a Read, which then fails, and waits for it and all
// goroutines, so that neither Read nor the local layers are used after it.
func (p *Plan) Open(ctx context.Context, o Options) *Reader {
	all, cancel := context.WithCancel(ctx)
	return &Reader{ctx: ctx, all: all, cancel: cancel, whole: o.Whole, note: o.Note, assembly: p.assemble(all, o.Read)}
}

// Stats may be called at any time, by several goroutines at once.
func (r *Reader) Stats() Stats {
	a := r.assembly
	return Stats{Fetched: a.fetched.Load(), Local: a.local.Load(), Whole: a.failed.Load()}
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	for len(p) > 0 && r.err == nil {
		switch {
		case r.all.Err() != nil:
			r.err = r.ended()
		case len(r.rest) > 0:
			n := copy(p, r.rest)
			r.rest, r.at = r.rest[n:], r.at+int64(n)
			return n, nil
		case r.rescue != nil:
			n, err := r.rescue.Read(p)
			if r.err = err; err != nil && err != io.EOF && r.all.Err() != nil {
				r.err = r.ended()
			}
			return n, r.err
		default:
			r.next()
		}
	}
	return 0, r.err
}

// ended is why there is nothing more to read.
func (r *Reader) ended() error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	return fmt.Errorf("delta: %w", os.ErrClosed)
}

// next takes the next frame, or falls back.
func (r *Reader) next() {
	a := r.assembly
	a.release(r.current)
	r.current = nil
	var err error
	select {
	case <-r.all.Done():
		return
	case j, more := <-a.order:
		if !more {
			if r.err = io.EOF; r.at != a.plan.index.Size {
				r.err = r.ended()
			}
			return
		}
		select {
		case <-r.all.Done():
			return
		case <-j.ready:
		}
		if r.current, r.rest, err = j, j.raw, j.err; err == nil {
			return
		}
	}
	r.current, r.rest = nil, nil
	if r.all.Err() == nil {
		r.err = r.fallBack(err)
	}
}

// fallBack opens the whole layer and passes over what was handed out.
func (r *Reader) fallBack(cause error) error {
	r.assembly.failed.Store(true)
	if r.note != nil {
		r.note(cause)
	}
	r.assembly.close()
	whole, err := r.whole(r.all)
	if err != nil {
		return r.blame(err)
	}
	r.rescue = whole
	if _, err := io.CopyN(io.Discard, whole, r.at); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return r.blame(err)
	}
	return nil
}

// blame returns the context's error instead of one that it may be the cause of.
func (r *Reader) blame(err error) error {
	if r.all.Err() != nil {
		return r.ended()
	}
	return err
}

// Close implements io.Closer. It returns what closing the whole layer returned, where that was opened.
func (r *Reader) Close() error {
	r.cancel()
	r.reading.Lock()
	defer r.reading.Unlock()
	r.assembly.close()
	r.current, r.rest = nil, nil
	if r.err == nil || r.err == io.EOF {
		r.err = r.ended()
	}
	rescue := r.rescue
	if r.rescue = nil; rescue != nil {
		return rescue.Close()
	}
	return nil
}
