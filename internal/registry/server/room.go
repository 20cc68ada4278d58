package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// room bounds the memory of what is on its way at once. Who finds none waits for a
// while, and is then told to come again. It is safe for concurrent use.
type room struct {
	most   int64 // bytes
	free   *semaphore.Weighted
	seats  *semaphore.Weighted // of those who hold room while they wait for more: half of it
	wait   time.Duration
	window time.Duration // over which a pace is measured

	waits   atomic.Int64 // that have ever begun
	waiting atomic.Int64 // that have not ended
}

func newRoom(most int64, wait time.Duration) *room {
	return &room{most: most, free: semaphore.NewWeighted(most), seats: semaphore.NewWeighted(most / 2), wait: wait, window: paceWindow}
}

// comeAgain is when to ask again where there was no room, in seconds.
const comeAgain = 5

// take takes so many bytes; of what is more than all it takes all. The caller calls
// release, once or more, unless there is an error.
func (r *room) take(ctx context.Context, memory int64) (release func(), err error) {
	memory = min(memory, r.most)
	return r.from(ctx, r.free, memory)
}

// sit is take for a client, who holds it until he has his answer: however many there
// are, they leave half of the room to what is read for them.
func (r *room) sit(ctx context.Context, memory int64) (release func(), err error) {
	stand, err := r.from(ctx, r.seats, min(memory, r.most/2))
	if err != nil {
		return nil, err
	}
	leave, err := r.take(ctx, memory)
	if err != nil {
		stand()
		return nil, err
	}
	return func() { leave(); stand() }, nil
}

func (r *room) from(ctx context.Context, free *semaphore.Weighted, memory int64) (release func(), err error) {
	if !free.TryAcquire(memory) {
		r.waits.Add(1)
		r.waiting.Add(1)
		defer r.waiting.Add(-1)
		waiting, cancel := context.WithTimeout(ctx, r.wait)
		defer cancel()
		if err := free.Acquire(waiting, memory); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, &failure{status: http.StatusServiceUnavailable, code: codeUnavailable, message: "too many layers are on their way at once; ask again in a while", retry: comeAgain}
		}
	}
	return sync.OnceFunc(func() { free.Release(memory) }), nil
}

// What a client takes or gives at least while others wait for its room, in bytes a
// second, and over how long that is measured. Uplinks are slow, and one is shared by
// the layers of a push.
const (
	leastTaken = 64 << 10
	leastGiven = 16 << 10
	paceWindow = 15 * time.Second
)

// pace tells whether a client that has room leaves others to wait for it.
type pace struct {
	room   *room
	least  float64 // bytes a second
	bytes  int64
	waited time.Duration // for the client alone
	seen   int64         // waits of the room that had begun before
}

func (r *room) pace(least float64) pace { return pace{room: r, least: least, seen: r.waits.Load()} }

// tooSlow counts n bytes for which the client was waited for.
func (p *pace) tooSlow(n int, waited time.Duration) bool {
	p.bytes += int64(n)
	p.waited += waited
	if p.waited < p.room.window {
		return false
	}
	slow := float64(p.bytes) < p.least*p.waited.Seconds()
	waits := p.room.waits.Load()
	crowded := waits != p.seen || p.room.waiting.Load() > 0
	p.bytes, p.waited, p.seen = 0, 0, waits
	return slow && crowded
}

// errSlow says that a client was too slow while others waited.
var errSlow = errors.New("the client is too slow, and others wait")

// paced is a body that fails where it comes too slowly while others wait.
type paced struct {
	r    io.Reader
	pace pace
}

func (p *paced) Read(b []byte) (int, error) {
	began := time.Now()
	n, err := p.r.Read(b)
	if p.pace.tooSlow(n, time.Since(began)) && err == nil {
		err = errSlow
	}
	return n, err
}
