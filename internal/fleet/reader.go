package fleet

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// reader is a layer on its way to one engine: out of a cast as long as it keeps up,
// else by itself.
type reader struct {
	ctx   context.Context
	m     *member
	key   castKey
	layer remote.Layer

	cast  *cast // nil where it never had one
	next  int   // the number of the chunk that it takes next; guarded by the fan's lock
	waits bool  // for that; the same

	taken *chunk       // the one before it
	rest  []byte       // of that
	had   int64        // bytes that it has got of the cast
	sum   image.Digest // of them

	alone bool
	body  io.ReadCloser // its own, once it is
}

// errLost says that a chunk is not there any more.
var errLost = errors.New("the others have gone on")

// Read implements io.Reader. Its error is the remote's, or that of the context.
func (r *reader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.alone || r.cast == nil {
			return r.readAlone(p)
		}
		err := r.take()
		if err == errLost {
			r.alone = true
			continue
		}
		if err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// take waits for the next chunk, now that it has finished the one before. It returns
// io.EOF at the end of the layer.
func (r *reader) take() error {
	f, c := r.m.fan, r.cast
	f.mu.Lock()
	defer f.mu.Unlock()
	r.finish()
	for {
		switch at := r.next - c.base; {
		case r.ctx.Err() != nil:
			return r.ctx.Err()
		case at < 0: // also where it comes too late
			r.part()
			return errLost
		case at < len(c.chunks):
			r.taken = c.chunks[at]
			r.taken.readers++
			r.rest, r.sum = r.taken.bytes, r.taken.sum
			r.had += int64(len(r.rest))
			r.next++
			f.settle()
			return nil
		case c.over && c.err != nil:
			return c.err
		case c.over:
			return io.EOF
		}
		changed := f.changed
		r.waits = true
		r.m.reading++
		f.mu.Unlock()
		select {
		case <-changed:
		case <-r.ctx.Done():
		}
		f.mu.Lock()
		r.waits = false
		r.m.reading--
	}
}

// finish gives back the chunk that it has read to its end. The fan is locked. It is for
// Read alone: a chunk in which a reader is closed is not used again.
func (r *reader) finish() {
	if r.taken != nil {
		r.taken.readers--
		r.m.fan.recycle(r.taken)
		r.taken = nil
	}
}

// part takes it out of its cast, which may end then. The fan is locked.
func (r *reader) part() {
	if c := r.cast; c != nil {
		c.readers = slices.DeleteFunc(c.readers, func(other *reader) bool { return other == r })
		r.m.fan.settle()
	}
}

// readAlone reads from the remote.
func (r *reader) readAlone(p []byte) (n int, err error) {
	f := r.m.fan
	f.mu.Lock()
	f.direct++
	r.m.reading++
	f.mu.Unlock()
	var skipped int64
	if r.body == nil {
		skipped, err = r.openAlone()
	}
	if err == nil {
		n, err = r.body.Read(p)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.direct--
	r.m.reading--
	if r.m.alone {
		r.m.own += skipped + int64(n)
	}
	return n, err
}

// openAlone opens the layer and passes over what the cast has given. That was proved
// at the end of the cast, which this reader does not see: so it has to be the same.
func (r *reader) openAlone() (skipped int64, err error) {
	if r.body, err = r.key.from.from.Open(r.ctx, r.layer); err != nil {
		r.body = io.NopCloser(failing{err})
		return 0, err
	}
	if r.had == 0 {
		return 0, nil
	}
	sum := sha256.New()
	skipped, err = io.CopyN(sum, r.body, r.had)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && image.Digest(sum.Sum(nil)) != r.sum {
		err = fault.New(fault.Damaged, "layer %s: the remote has sent other bytes than before", r.layer.Digest.Short())
	}
	if err != nil {
		err = errors.Join(err, r.body.Close())
		r.body = io.NopCloser(failing{err})
	}
	return skipped, err
}

// Close ends it. The others go on.
func (r *reader) Close() error {
	f := r.m.fan
	f.mu.Lock()
	r.part()
	f.mu.Unlock()
	if r.body != nil {
		return r.body.Close()
	}
	return nil
}

// failing is a reader that gives an error alone.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
