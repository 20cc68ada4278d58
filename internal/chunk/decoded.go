package chunk

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
)

// keptMost bounds the decoded frames that a Tar keeps, in bytes. Who puts a layer together asks for the contents of
// one frame several times, and of neighbours at once.
const keptMost = 4 << 20

// Tar is the tar of a stored layer, read at any offset: it decodes the frames that are asked for, and keeps the last
// ones, 4 MiB at most. It proves nothing: an index that lies, and a file that has been replaced, give wrong bytes or an
// error. It is safe for concurrent use.
type Tar struct {
	index  *Index
	open   Reader
	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex
	kept []*decoded // those that were asked for last are last
	size int64      // bytes of all of them
}

// decoded is a frame that was asked for.
type decoded struct {
	number int
	ready  chan struct{} // closed once the rest is there
	raw    []byte
	err    error
}

// NewTar returns the tar of the layer with that index, of which open reads the file. Its reads end with ctx. The caller
// closes it.
func NewTar(ctx context.Context, x *Index, open Reader) *Tar {
	t := &Tar{index: x, open: open}
	t.ctx, t.cancel = context.WithCancel(ctx)
	return t
}

// ReadAt implements io.ReaderAt.
func (t *Tar) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("chunk: no byte %d", off)
	}
	for n < len(p) {
		at := off + int64(n)
		if at >= t.index.Size {
			return n, io.EOF
		}
		number, _ := t.index.FramesOf(Range{at, 1})
		raw, err := t.frame(number)
		if err != nil {
			return n, err
		}
		n += copy(p[n:], raw[at-t.index.Frames[number].Tar:])
	}
	return n, nil
}

// Close ends reads that are on their way.
func (t *Tar) Close() error {
	t.cancel()
	return nil
}

// frame returns a decoded frame. Of those who ask for one at once, one decodes it.
func (t *Tar) frame(number int) ([]byte, error) {
	t.mu.Lock()
	i := slices.IndexFunc(t.kept, func(d *decoded) bool { return d.number == number })
	if i < 0 {
		d := &decoded{number: number, ready: make(chan struct{})}
		t.kept = append(t.kept, d)
		t.size += int64(t.index.Frames[number].Size)
		for len(t.kept) > 1 && t.size > keptMost {
			t.size -= int64(t.index.Frames[t.kept[0].number].Size)
			t.kept = slices.Delete(t.kept, 0, 1)
		}
		t.mu.Unlock()
		defer close(d.ready)
		d.raw, d.err = t.decode(t.index.Frames[number])
		return d.raw, d.err
	}
	d := t.kept[i]
	t.kept = append(slices.Delete(t.kept, i, i+1), d)
	t.mu.Unlock()
	select {
	case <-d.ready:
		return d.raw, d.err
	case <-t.ctx.Done():
		return nil, t.ctx.Err()
	}
}

// decode reads a frame.
func (t *Tar) decode(f Frame) ([]byte, error) {
	if int64(f.Stored) > 2*frameMost { // no codec makes so much of it
		return nil, fmt.Errorf("%w: a frame of %d bytes is stored in %d", ErrDamaged, f.Size, f.Stored)
	}
	stored, err := readPart(t.ctx, t.open, f.At, int64(f.Stored))
	if err != nil {
		return nil, err
	}
	return t.index.Codec.AppendDecoded(make([]byte, 0, f.Size), stored, int(f.Size))
}
