package delta

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/dogestry/dogestry/internal/chunk"
)

const (
	// heldMost bounds the reads of frames that are held at once, on their way or waiting for their frames' turn, in
	// bytes; of a read of less than heldLeast that much is counted. Reads are mostly of a frame or two: over a link where
	// an answer takes long, many have to be on their way.
	heldMost  = 16 << 20
	heldLeast = 1 << 20
	readers   = heldMost / heldLeast
	// aheadMost bounds the frames that are put together ahead of who reads, in bytes; of a frame
	// of less than frameLeast that much is counted.
	aheadMost  = 16 << 20
	frameLeast = 64 << 10
	// workersLeast is for disks that are faster when asked for several things.
	workersLeast = 4
	// mendShare is the part of the stored layer that may be fetched because local layers turn out not to have what
	// they had to, mendLeast bytes in any case. With more, the whole layer is cheaper.
	mendShare = 4
	mendLeast = 1 << 20
)

// assembly puts frames together, several at once, and hands them out in their order.
type assembly struct {
	plan   *Plan
	open   chunk.Reader
	ctx    context.Context
	cancel context.CancelFunc

	order   chan *job           // closed behind the last frame
	room    *semaphore.Weighted // of frames ahead, bytes
	held    *semaphore.Weighted // of reads of frames, bytes
	workers chan struct{}       // a token for each frame that is worked on
	arrived []*arrival          // of each frame; nil for those that are not fetched
	tars    []Tar
	running sync.WaitGroup
	closing sync.Once

	fetched, local, mended atomic.Int64
	failed                 atomic.Bool
}

// job is a frame on its way.
type job struct {
	frame int
	raw   []byte
	keeps []*kept // of each chunk; nil for those that are not kept
	uses  []*kept // the same for those that are taken from what was kept
	err   error
	ready chan struct{} // closed once raw or err is there
}

// kept is a chunk that comes again.
type kept struct {
	ready <-chan struct{} // of the frame that has it
	bytes []byte          // nil where that failed
}

// arrival is a frame as it is stored.
type arrival struct {
	bytes []byte
	err   error
	ready chan struct{} // closed once they are there
	done  func()        // they are no longer needed
}

// assemble starts putting a layer together.
func (p *Plan) assemble(ctx context.Context, open chunk.Reader) *assembly {
	ctx, cancel := context.WithCancel(ctx)
	a := &assembly{
		plan: p, open: open, ctx: ctx, cancel: cancel,
		order:   make(chan *job, aheadMost/frameLeast),
		room:    semaphore.NewWeighted(aheadMost),
		held:    semaphore.NewWeighted(heldMost),
		workers: make(chan struct{}, max(runtime.GOMAXPROCS(0), workersLeast)),
	}
	a.running.Go(a.run)
	return a
}

// run opens the local layers, plans without those that cannot be opened, and starts a job for each frame.
func (a *assembly) run() {
	defer close(a.order)
	a.openLocals()
	a.arrived = make([]*arrival, len(a.plan.parts))
	for _, r := range a.plan.frames {
		left := new(atomic.Int64)
		left.Store(int64(len(r)))
		for _, piece := range r {
			a.arrived[piece.number] = &arrival{ready: make(chan struct{}), done: func() {
				if left.Add(-1) == 0 {
					a.held.Release(r.weight())
				}
			}}
		}
	}
	a.running.Go(a.fetch)
	literals := a.newLiterals()
	keeping := map[chunk.Identity]*kept{}
	for i, f := range a.plan.index.Frames {
		if a.room.Acquire(a.ctx, weight(int64(f.Size))) != nil {
			return
		}
		j := &job{frame: i, ready: make(chan struct{})}
		j.raw = make([]byte, f.Size)
		a.keep(j, keeping)
		part := a.plan.parts[i]
		var err error
		if !part.fetched {
			err = literals.fill(j.raw, part, f.Tar)
		}
		a.order <- j // has room for as many as there are
		if err != nil {
			j.err = err
			close(j.ready)
			return
		}
		a.running.Go(func() {
			defer close(j.ready)
			j.err = a.make(j)
		})
	}
}

func weight(size int64) int64 { return max(size, frameLeast) }

// release says that a frame has been handed out.
func (a *assembly) release(j *job) {
	if j != nil {
		a.room.Release(weight(int64(a.plan.index.Frames[j.frame].Size)))
	}
}

// close ends all goroutines, waits for them, and closes the local layers.
func (a *assembly) close() {
	a.closing.Do(func() {
		a.cancel()
		a.running.Wait()
		for _, tar := range a.tars {
			_ = tar.Close() // what was read of it is proved
		}
	})
}

// openLocals opens the local layers that are needed.
func (a *assembly) openLocals() {
	needed := make([]bool, len(a.plan.locals))
	for _, part := range a.plan.parts {
		for i := part.chunk; i < part.end && !part.fetched; i++ {
			if l := a.plan.sources[i].local; l != none {
				needed[l] = true
			}
		}
	}
	// Several at once: each takes time in proportion to its files, and nothing is fetched until it is known what is there.
	tars := make([]Tar, len(needed))
	var opening sync.WaitGroup
	for l, local := range a.plan.locals {
		if !needed[l] || a.work() != nil {
			continue
		}
		opening.Go(func() {
			defer a.rest()
			if tar, err := local.Open(a.ctx); err == nil { // else it has gone meanwhile
				tars[l] = tar
			}
		})
	}
	opening.Wait()
	var locals []Local
	for l, tar := range tars {
		if tar != nil {
			locals, a.tars = append(locals, a.plan.locals[l]), append(a.tars, tar)
		}
	}
	if len(locals) < len(needed) {
		a.plan = NewPlan(a.plan.index, locals)
	}
}

// keep notes which chunks of a frame are kept, and which are taken from what was kept.
func (a *assembly) keep(j *job, keeping map[chunk.Identity]*kept) {
	part := a.plan.parts[j.frame]
	j.keeps, j.uses = make([]*kept, part.end-part.chunk), make([]*kept, part.end-part.chunk)
	for i := range j.keeps {
		s := a.plan.sources[part.chunk+i]
		if s.local != none {
			continue
		}
		id := a.plan.index.Chunks[part.chunk+i].Identity()
		if !part.fetched {
			j.uses[i] = keeping[id]
		}
		if s.keep {
			j.keeps[i] = &kept{ready: j.ready}
			keeping[id] = j.keeps[i]
		}
		if s.drop {
			delete(keeping, id)
		}
	}
}

// make fills in the bytes of a frame.
func (a *assembly) make(j *job) error {
	if a.plan.parts[j.frame].fetched {
		return a.decode(j)
	}
	for _, k := range j.uses {
		if k == nil {
			continue
		}
		select {
		case <-k.ready:
		case <-a.ctx.Done():
			return a.ctx.Err()
		}
	}
	if err := a.work(); err != nil {
		return err
	}
	defer a.rest()
	for i, k := range j.uses {
		if k == nil {
			continue
		}
		if k.bytes == nil {
			return errors.New("a chunk that comes again is missing") // its frame tells more
		}
		a.scatter(j, i, k.bytes)
	}
	switch ok, err := a.collect(j); {
	case err != nil || ok:
		return err
	default:
		return a.mend(j)
	}
}

// work waits for a turn; rest ends it.
func (a *assembly) work() error {
	select {
	case a.workers <- struct{}{}:
		return nil
	case <-a.ctx.Done():
		return a.ctx.Err()
	}
}

func (a *assembly) rest() { <-a.workers }

// collect reads a frame's chunks from local layers. It reports whether all were there.
func (a *assembly) collect(j *job) (bool, error) {
	part := a.plan.parts[j.frame]
	var buffer []byte
	n := int64(0)
	for i := part.chunk; i < part.end; i++ {
		s, c := a.plan.sources[i], a.plan.index.Chunks[i]
		if s.local == none {
			continue
		}
		if err := a.ctx.Err(); err != nil {
			return false, err
		}
		if cap(buffer) < int(c.Size) {
			buffer = make([]byte, c.Size)
		}
		buffer = buffer[:c.Size]
		local := a.plan.locals[s.local].Index
		left := buffer
		for r := range local.Content(local.Chunks[s.chunk].At, int64(c.Size)) {
			if k, _ := a.tars[s.local].ReadAt(left[:r.Size], r.Tar); int64(k) < r.Size {
				return false, nil
			}
			left = left[r.Size:]
		}
		if chunk.SumOf(buffer) != c.Sum {
			return false, nil
		}
		a.scatter(j, i-part.chunk, buffer)
		n += int64(c.Size)
	}
	a.local.Add(n)
	return true, nil
}

// scatter puts a chunk where it belongs in its frame.
func (a *assembly) scatter(j *job, number int, b []byte) {
	x := a.plan.index
	c := x.Chunks[a.plan.parts[j.frame].chunk+number]
	for r := range x.Content(c.At, int64(c.Size)) {
		b = b[copy(j.raw[r.Tar-x.Frames[j.frame].Tar:][:r.Size], b):]
	}
}

// gather is the reverse of scatter, and uses buffer for that.
func (a *assembly) gather(j *job, number int, buffer []byte) []byte {
	x := a.plan.index
	c := x.Chunks[a.plan.parts[j.frame].chunk+number]
	buffer = buffer[:0]
	for r := range x.Content(c.At, int64(c.Size)) {
		buffer = append(buffer, j.raw[r.Tar-x.Frames[j.frame].Tar:][:r.Size]...)
	}
	return buffer
}
