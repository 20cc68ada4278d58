package rsync

import (
	"context"
	"errors"
	"sync"
	"time"
)

// gatherer lets one run do what several ask for at once: what is asked while a run
// is on its way waits, and goes together in the next one. Whoever asks gets the
// answer, or the error, of the run that had its question.
type gatherer[Q any] struct {
	most   int                                      // questions of one run
	weight func(Q) int64                            // nil: they have none
	bound  int64                                    // of the weights of one run
	run    func(ctx context.Context, ask []Q) error // puts answers into the questions

	mu      sync.Mutex
	waiting []*question[Q]
	running bool
}

type question[Q any] struct {
	q     Q
	alone bool
	since time.Time
	done  chan struct{}
	err   error  // is to be read when done is closed
	in    *group // of the run that has it, nil while it waits
}

// group is those whose questions are in one run.
type group struct {
	left   int // who still waits for it
	cancel context.CancelFunc
}

var (
	// errTogether says that a run of several has failed: which of them was the reason is
	// found out by asking alone.
	errTogether = errors.New("one of several failed")
	// errStale says that a question has waited so long that what allowed it has to be asked again.
	errStale = errors.New("waited too long")
)

// patience is how long a question may wait without errStale.
const patience = 5 * time.Second

// ask waits for the answer to q. When ctx ends, a run that nobody else waits for is
// ended, and has ended when this returns.
func (g *gatherer[Q]) ask(ctx context.Context, q Q, alone bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	mine := &question[Q]{q: q, alone: alone, since: time.Now(), done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, mine)
	if !g.running {
		g.running = true
		go g.work(context.WithoutCancel(ctx)) // it ends with the last question
	}
	g.mu.Unlock()
	select {
	case <-mine.done:
	case <-ctx.Done():
		if g.leave(mine) {
			<-mine.done
		}
		return ctx.Err()
	}
	return mine.err
}

// leave gives up a question, and reports whether its run has to be waited for.
func (g *gatherer[Q]) leave(mine *question[Q]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if mine.in == nil {
		for i, w := range g.waiting {
			if w == mine {
				g.waiting = append(g.waiting[:i], g.waiting[i+1:]...)
				break
			}
		}
		return false
	}
	mine.in.left--
	if mine.in.left > 0 {
		return false
	}
	mine.in.cancel()
	return true
}

// work makes runs until nothing waits.
func (g *gatherer[Q]) work(ctx context.Context) {
	for {
		g.mu.Lock()
		next, stale := g.next()
		if len(next) == 0 && !stale {
			g.running = false
			g.mu.Unlock()
			return
		}
		if len(next) == 0 { // those who ask again are to go together
			g.mu.Unlock()
			time.Sleep(20 * time.Millisecond)
			continue
		}
		runCtx, cancel := context.WithCancel(ctx)
		in := &group{left: len(next), cancel: cancel}
		asked := make([]Q, len(next))
		for i, n := range next {
			n.in, asked[i] = in, n.q
		}
		g.mu.Unlock()
		err := g.run(runCtx, asked)
		cancel()
		if err != nil && len(next) > 1 && !passing(err) {
			err = errTogether
		}
		for _, n := range next {
			n.err = err
			close(n.done)
		}
	}
}

// next takes the questions of the next run, and sends those back that are stale. g.mu is held.
func (g *gatherer[Q]) next() (next []*question[Q], stale bool) {
	total := int64(0)
	for len(g.waiting) > 0 && len(next) < g.most {
		first := g.waiting[0]
		if g.weight != nil {
			total += g.weight(first.q)
		}
		if len(next) > 0 && (first.alone || total > g.bound) {
			break
		}
		g.waiting = g.waiting[1:]
		if time.Since(first.since) > patience {
			first.err, stale = errStale, true
			close(first.done)
			continue
		}
		next = append(next, first)
		if first.alone {
			break
		}
	}
	return next, stale
}
