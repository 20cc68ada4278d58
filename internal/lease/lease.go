package lease

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/storage"
)

// maxLease bounds a lease, in bytes: some 60,000 ids.
const maxLease = 4 << 20

// leaseDoc is the content of a lease.
type leaseDoc struct {
	IDs []image.Digest `json:"ids"` // all that the push relies on
}

// Options of a Lease.
type Options struct {
	Times Times
	Log   *slog.Logger // nil logs nothing
	// NoWait makes Rely fail with ErrSwept where it would wait for a sweep.
	NoWait bool
	// Waiting is told, again and again, that a sweep is being waited for, and when
	// it is not any more with an empty text. May be nil.
	Waiting func(what string)
}

// Lease is what one push relies on. While it is there, no collection deletes
// that. It is safe for concurrent use. Whoever takes it calls Release.
type Lease struct {
	store storage.Store
	o     Options

	turn chan struct{} // of one place, taken for requests: one at a time
	// What follows is for whoever has the turn.
	ids  map[image.Digest]bool
	here *presence // nil until something is relied on, and once it is lost
	lost bool      // it was not renewed in time
	sent moment    // when the renewal was sent that was last answered

	renewing sync.WaitGroup
	stop     context.CancelFunc // of the renewals; nil until there are some
}

// ErrSwept says that a sweep which has not ended means to delete what is to be relied on.
var ErrSwept = errors.New("a garbage collection is about to delete")

// New returns a lease on nothing. It does no I/O.
func New(store storage.Store, o Options) *Lease {
	o.Times = o.Times.withDefaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Waiting == nil {
		o.Waiting = func(string) {}
	}
	return &Lease{store: store, o: o, turn: make(chan struct{}, 1), ids: map[image.Digest]bool{}}
}

// take waits for the turn. The caller gives it back.
func (l *Lease) take(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Lease) giveBack() { <-l.turn }

// Rely adds ids to the lease, and waits while a sweep means to delete one of
// them, or, where that was asked for, returns ErrSwept. Only what is asked or written after it has returned may be relied on.
// fresh says that an id was not in the lease before, or that the lease had been
// lost and is a new one: what was found out before says nothing then.
func (l *Lease) Rely(ctx context.Context, ids ...image.Digest) (fresh bool, err error) {
	if err := l.take(ctx); err != nil {
		return false, err
	}
	defer l.giveBack()
	more := maps.Clone(l.ids)
	for _, id := range ids {
		more[id] = true
	}
	if l.here != nil && !l.lost && len(more) == len(l.ids) {
		return false, nil
	}
	before := l.ids
	l.ids = more
	if err = l.publish(ctx); err == nil {
		err = l.waitForSweep(ctx)
	}
	if err != nil {
		l.ids = before // whoever asks for the same at once, or again, is not told that all is well
	}
	return true, err
}

// moment is a time by both clocks of this machine, either of which may have stopped
// meanwhile or been set.
type moment struct{ at time.Time }

func rightNow() moment { return moment{time.Now()} }

// lasts is how long what was found out is good for.
const lasts = 5 * time.Second

func (m moment) recent() bool {
	now := time.Now()
	return !m.at.IsZero() && now.Sub(m.at) < lasts && now.Round(0).Sub(m.at.Round(0)).Abs() < lasts
}

// publish writes a lease with all ids and removes the one before. Should that one
// have been lost, the new one begins anew.
func (l *Lease) publish(ctx context.Context) error {
	body, err := json.Marshal(leaseDoc{slices.SortedFunc(maps.Keys(l.ids), func(a, b image.Digest) int { return bytes.Compare(a[:], b[:]) })})
	if err != nil {
		return err
	}
	if len(body) > maxLease {
		return fmt.Errorf("%d ids are too many for a lease", len(l.ids))
	}
	before := l.here
	now := rightNow()
	here, err := appear(ctx, l.store, leases+random(), body)
	if err != nil {
		return fmt.Errorf("cannot write a lease: %w", err)
	}
	l.lost = before != nil && !l.lost && here.seen.Sub(before.seen) > l.o.Times.Gap // told by the next Check, or Rely
	l.here, l.sent = here, now
	if before != nil {
		if err := before.leave(ctx); err != nil {
			l.o.Log.Warn("a lease stays until it is dead", "key", before.key, "error", err)
		}
	}
	if l.stop == nil {
		renewals, stop := context.WithCancel(context.WithoutCancel(ctx))
		l.stop = stop
		l.renewing.Go(func() { l.renewEvery(renewals) })
	}
	return nil
}

func random() string { return fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64()) }

// renewEvery renews the lease until ctx ends. A failure is told by Check.
func (l *Lease) renewEvery(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(l.o.Times.Renew):
		}
		if err := l.Check(ctx); err != nil && ctx.Err() == nil {
			l.o.Log.Warn("the lease could not be renewed", "error", err)
		}
	}
}

// Check renews the lease. ErrLost where it has not been renewed in time, by the
// store's clock, or others have removed it: then the next Rely, with any id or
// none, begins a new one. It is what allows a tag to be written.
func (l *Lease) Check(ctx context.Context) error {
	if err := l.take(ctx); err != nil {
		return err
	}
	defer l.giveBack()
	if l.lost {
		return ErrLost
	}
	if l.here == nil {
		return errors.New("nothing is relied on") // a mistake of the caller
	}
	err := l.renew(ctx)
	l.lost = errors.Is(err, ErrLost)
	return err
}

// renew renews the lease that there is. ErrLost where that comes too late.
func (l *Lease) renew(ctx context.Context) error {
	before, now := l.here.seen, rightNow()
	err := l.here.renew(ctx)
	if errors.Is(err, storage.ErrNotFound) || err == nil && l.here.seen.Sub(before) > l.o.Times.Gap {
		return ErrLost
	}
	if err == nil {
		l.sent = now
	}
	return err
}

// Alive is Check, unless one has succeeded in these seconds. It is the guard of
// what a push lets an image name.
func (l *Lease) Alive(ctx context.Context) error {
	if err := l.take(ctx); err != nil {
		return err
	}
	fresh := !l.lost && l.here != nil && l.sent.recent()
	l.giveBack()
	if fresh {
		return nil
	}
	return l.Check(ctx)
}

// Release ends the lease, also after ctx has ended.
func (l *Lease) Release(ctx context.Context) {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	if l.take(late) != nil {
		return // somebody still uses it
	}
	defer l.giveBack()
	if l.stop != nil {
		l.stop()
		l.renewing.Wait()
		l.stop = nil
	}
	if l.here == nil {
		return
	}
	if err := l.here.leave(late); err != nil {
		l.o.Log.Warn("a lease stays until it is dead", "key", l.here.key, "error", err)
	}
	l.here = nil
}

// releaseTime is how long the removal of a lease may take.
const releaseTime = 10 * time.Second

// waitForSweep waits until no sweep means to delete what l relies on.
func (l *Lease) waitForSweep(ctx context.Context) error {
	told := false
	for waited := time.Duration(0); ; waited += l.o.Times.Poll {
		doomed, err := l.doomed(ctx)
		if told && (err != nil || doomed == 0) {
			l.o.Waiting("")
		}
		if err != nil || doomed == 0 {
			return err
		}
		if l.o.NoWait {
			return fmt.Errorf("%w %d of the objects that are needed", ErrSwept, doomed)
		}
		told = true
		l.o.Waiting(fmt.Sprintf("waiting for a garbage collection to end, which is about to delete %d of the objects that are needed", doomed))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(l.o.Times.Poll):
		}
		if waited < l.o.Times.Renew {
			continue
		}
		waited = 0
		err = l.renew(ctx)
		if errors.Is(err, ErrLost) {
			err = l.publish(ctx) // and look at the register again
		}
		if err != nil {
			return err
		}
	}
}

// doomed returns how many ids of l a sweep lists that has not ended.
func (l *Lease) doomed(ctx context.Context) (n int, err error) {
	missing := ""
	for {
		r, _, err := readRegister(ctx, l.store)
		if err != nil || r.State != listed {
			return 0, err
		}
		if missing == r.Generation {
			return 0, fmt.Errorf("the list of the garbage collection %s is missing", r.Generation)
		}
		over, err := r.over(ctx, l.store, l.here.seen, l.o.Times)
		if err != nil || over {
			return 0, err // it deletes nothing any more
		}
		ids, err := readList(ctx, l.store, r.Generation)
		if errors.Is(err, storage.ErrNotFound) { // unless it has just ended
			missing = r.Generation
			continue
		}
		if err != nil {
			return 0, err
		}
		for _, id := range ids {
			if l.ids[id] {
				n++
			}
		}
		return n, nil
	}
}

// put writes a small object.
func put(ctx context.Context, store storage.Store, key string, body []byte) error {
	return store.Put(ctx, key, bytes.NewReader(body))
}
