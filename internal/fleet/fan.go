package fleet

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Bounds of what several engines are fed with from one read of the remote.
const (
	chunkSize = 1 << 20 // bytes

	// windowLeast is how many chunks each layer may have in memory at any rate, so that
	// none waits for another's; windowMost how many of one layer, and windowAll of all.
	windowLeast = 2
	windowMost  = 32
	windowAll   = 96

	// patience is how long an engine may hold the others back, in all, before it is
	// let go and reads for itself.
	patience = 15 * time.Second
	tick     = 100 * time.Millisecond

	// forgiven is how much longer than it held the others back it has to be in step
	// until that is forgotten.
	forgiven = 10
)

// fan reads each layer that several engines lack once, and hands it to all of them.
// What was read stays in memory until the last of them has taken it, within bounds:
// so they go at one pace, until one has held up the others for too long.
//
// One lock guards all of it. A chunk is a mebibyte, so it is taken rarely.
type fan struct {
	ctx      context.Context // ends all reading
	patience time.Duration
	running  sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change: who waits looks again
	seen    chan struct{} // what that was when watch looked last
	members []*member
	casts   map[castKey]*cast
	chunks  int      // in the windows
	free    [][]byte // what was chunks
	direct  int      // what waits for the remote without a cast
}

// member is an engine that is fed.
type member struct {
	fan     *fan
	planned int                   // of how many images it is known what it lacks
	wants   map[image.Digest]bool // of the last of these, those layers that it has not opened yet
	reading int                   // its readers that wait for bytes, and what else waits for the remote
	behind  time.Duration         // for how long it has held others back
	alone   bool                  // it reads for itself
	over    bool
	own     int64 // bytes that it has read for itself since
}

// castKey is a layer in a remote, or in one repository of a registry.
type castKey struct {
	from  *shared
	layer image.Digest
}

func newFan(ctx context.Context) *fan {
	return &fan{ctx: ctx, patience: patience, changed: make(chan struct{}), casts: map[castKey]*cast{}}
}

// run watches over the pace until ctx ends, and waits for the end of all reading.
func (f *fan) run(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			f.watch()
		case <-ctx.Done():
			f.running.Wait()
			return
		}
	}
}

// join adds an engine. What is read from now on is kept for it until it has said
// whether it lacks it.
func (f *fan) join() *member {
	m := &member{fan: f, wants: map[image.Digest]bool{}}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = append(f.members, m)
	return m
}

// lacks says what the engine lacks of the image with that index, and is about to open.
func (m *member) lacks(index int, layers []remote.Layer) {
	m.fan.mu.Lock()
	defer m.fan.mu.Unlock()
	m.planned = max(m.planned, index+1)
	clear(m.wants)
	for _, l := range layers {
		m.wants[l.Digest] = true
	}
	m.fan.settle()
}

// await says that the engine waits for the remote, though not as one of its readers, until over is called.
func (m *member) await() (over func()) {
	add := func(n int) {
		m.fan.mu.Lock()
		defer m.fan.mu.Unlock()
		m.reading += n
		m.fan.direct += n
	}
	add(1)
	return func() { add(-1) }
}

// leave says that the engine opens nothing any more. It returns how many bytes it has
// read for itself, because it had fallen behind.
func (m *member) leave() (alone int64) {
	m.fan.mu.Lock()
	defer m.fan.mu.Unlock()
	m.over = true
	m.fan.settle()
	return m.own
}

// settle drops what nobody needs any more, and wakes all who wait.
func (f *fan) settle() {
	for key, c := range f.casts {
		c.trim()
		if len(c.readers) == 0 && !f.awaited(c) {
			c.stop()
			delete(f.casts, key)
		}
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// recycle keeps a chunk's memory for another one, once nobody reads it.
func (f *fan) recycle(ch *chunk) {
	if ch.gone && ch.readers == 0 && len(f.free) < windowAll {
		f.free = append(f.free, ch.bytes[:chunkSize])
		ch.bytes = nil
	}
}

// awaited reports whether an engine may still open c from its beginning.
func (f *fan) awaited(c *cast) bool {
	for _, m := range f.members {
		if c.mayOpen(m) {
			return true
		}
	}
	return false
}

// watch finds out who holds others back, and lets go who has done so for too long.
// An engine that waits for the remote itself, for an earlier layer, holds nobody back.
func (f *fan) watch() {
	f.mu.Lock()
	defer f.mu.Unlock()
	starving, moving := []*cast{}, f.direct > 0 || f.changed != f.seen
	f.seen = f.changed
	for _, c := range f.casts {
		moving = moving || !c.over && !c.full()
		if c.full() && c.starves() {
			starving = append(starving, c)
		}
	}
	blamed := map[*member]bool{}
	for _, c := range starving {
		for _, m := range c.holders() {
			if m.reading == 0 {
				blamed[m] = true
			}
		}
	}
	if len(blamed) == 0 && len(starving) > 0 && !moving { // they wait for one another
		for _, m := range starving[0].holders() {
			m.behind = f.patience
			blamed[m] = true
		}
	}
	let := false
	for _, m := range f.members {
		if !blamed[m] {
			m.behind = max(0, m.behind-tick/forgiven)
			continue
		}
		m.behind += tick
		if m.behind >= f.patience && !m.alone {
			m.alone, let = true, true
		}
	}
	if let {
		f.settle()
	}
}

// open returns a layer of the remote, for one engine.
func (m *member) open(ctx context.Context, from *shared, layer remote.Layer) (io.ReadCloser, error) {
	f := m.fan
	f.mu.Lock()
	defer f.mu.Unlock()
	key := castKey{from, layer.Digest}
	wanted := m.wants[layer.Digest]
	delete(m.wants, layer.Digest)
	c := f.casts[key]
	switch {
	case m.alone:
		f.settle()
		return &reader{ctx: ctx, m: m, key: key, layer: layer}, nil
	case c == nil:
		c = newCast(f, layer, m.planned-1)
		if !wanted || !f.awaited(c) { // nobody else would read it
			f.settle()
			return &reader{ctx: ctx, m: m, key: key, layer: layer}, nil
		}
		f.casts[key] = c
		own, cancel := context.WithCancel(f.ctx)
		c.stop = cancel
		f.running.Go(func() {
			defer cancel()
			c.pump(own, from.from)
		})
	}
	r := &reader{ctx: ctx, m: m, key: key, layer: layer, cast: c}
	c.readers = append(c.readers, r)
	f.settle()
	return r, nil
}
