package fleet

import (
	"context"
	"crypto/sha256"
	"io"
	"slices"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// cast is a layer that is read once for several engines. Its fields are guarded by
// the fan's lock.
type cast struct {
	fan     *fan
	layer   remote.Layer
	index   int // of the image that its first reader was at
	stop    context.CancelFunc
	readers []*reader

	chunks   []*chunk // the window: what not all have taken yet
	base     int      // the number of its first one
	fetching bool     // the next one is awaited from the remote
	over     bool     // no more come
	err      error    // why; nil at the end of the layer
}

// chunk is a piece of a layer. It is not changed before it is out of the window and all
// readers have finished it, also those that were let go: its memory is used again then.
type chunk struct {
	bytes   []byte
	sum     image.Digest // of the layer up to its end
	readers int          // that have taken it, and not finished
	gone    bool         // out of the window
}

func newCast(f *fan, layer remote.Layer, index int) *cast {
	return &cast{fan: f, layer: layer, index: index}
}

// mayOpen reports whether an engine may still come for the layer: it has not said yet
// what it lacks, or it lacks this.
func (c *cast) mayOpen(m *member) bool {
	if m.over || m.alone || c.base > 0 || slices.ContainsFunc(c.readers, func(r *reader) bool { return r.m == m }) {
		return false
	}
	return m.planned <= c.index || m.planned == c.index+1 && m.wants[c.layer.Digest]
}

// holders are the engines for which the first chunk is kept.
func (c *cast) holders() (all []*member) {
	for _, r := range c.readers {
		if !r.m.alone && r.next == c.base {
			all = append(all, r.m)
		}
	}
	for _, m := range c.fan.members {
		if c.mayOpen(m) {
			all = append(all, m)
		}
	}
	return all
}

// starves reports whether a reader waits for what cannot be fetched yet.
func (c *cast) starves() bool {
	return slices.ContainsFunc(c.readers, func(r *reader) bool { return r.waits && r.next == c.base+len(c.chunks) })
}

// full reports whether nothing is fetched before something is taken.
func (c *cast) full() bool {
	if c.over || c.fetching {
		return false
	}
	n := len(c.chunks)
	return n >= windowMost || n >= windowLeast && c.fan.chunks >= windowAll
}

// trim drops the chunks that all have taken.
func (c *cast) trim() {
	for len(c.chunks) > 0 && len(c.holders()) == 0 {
		c.chunks[0].gone = true
		c.fan.recycle(c.chunks[0])
		c.chunks[0] = nil
		c.chunks = c.chunks[1:]
		c.base++
		c.fan.chunks--
	}
}

// pump reads the layer into the window until its end, or ctx's.
func (c *cast) pump(ctx context.Context, from remote.Source) {
	body, err := from.Open(ctx, c.layer)
	if err == nil {
		err = c.copy(ctx, body)
		body.Close()
	}
	if err == io.EOF {
		err = nil
	}
	c.fan.mu.Lock()
	defer c.fan.mu.Unlock()
	c.fetching, c.over, c.err = false, true, err
	c.trim() // it may be no cast of the fan any more
	c.fan.settle()
}

func (c *cast) copy(ctx context.Context, body io.Reader) error {
	sum := sha256.New()
	for {
		b, err := c.room(ctx)
		if err != nil {
			return err
		}
		n, err := readFull(body, b)
		sum.Write(b[:n])
		c.fan.mu.Lock()
		c.fetching = false
		if n > 0 {
			c.chunks = append(c.chunks, &chunk{bytes: b[:n], sum: image.Digest(sum.Sum(nil))})
		} else {
			c.fan.chunks--
			c.fan.free = append(c.fan.free, b)
		}
		if err == nil {
			c.fan.settle()
		}
		c.fan.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// room waits until the window has a place, takes it, and returns the memory for it.
func (c *cast) room(ctx context.Context) ([]byte, error) {
	f := c.fan
	f.mu.Lock()
	defer f.mu.Unlock()
	for c.full() {
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		f.mu.Lock()
		if ctx.Err() != nil {
			break
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.fetching = true
	f.chunks++
	if last := len(f.free) - 1; last >= 0 {
		b := f.free[last]
		f.free = f.free[:last]
		return b, nil
	}
	return make([]byte, chunkSize), nil
}

// readFull reads until p is full or r ends, and returns the end as r says it.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for idle := 0; n < len(p) && err == nil; idle++ {
		var more int
		more, err = r.Read(p[n:])
		n += more
		if more > 0 {
			idle = 0
		} else if idle == 100 && err == nil {
			return n, io.ErrNoProgress
		}
	}
	return n, err
}
