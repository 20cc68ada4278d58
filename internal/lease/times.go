// Package lease lets pushes and garbage collection of one remote run side by side
// without a lock (docs/format.md, "Garbage collection"): a push holds a *lease* on
// all that it relies on, and a collection publishes in a *register*, the sweep,
// what it means to delete. It knows objects and ids, and nothing of images.
package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
)

// Keys of the objects (docs/format.md, "The two objects").
const (
	leases   = "run/leases/"
	register = "run/sweep"
	lists    = "run/lists/"      // <generation>: the ids of a sweep
	clocks   = "run/collectors/" // <generation>: what a collection tells the time by, and is held by
)

// Times bound how long processes may pause (docs/format.md, "Times"). All are
// told by the store's clock. The zero value means the format's.
type Times struct {
	Renew time.Duration // between two renewals of a lease
	Gap   time.Duration // at most between two renewals that the store has seen
	Dead  time.Duration // from when on a lease that is not renewed counts for nothing
	Sweep time.Duration // how long a sweep deletes at most
	Over  time.Duration // from when on a sweep may be taken over
	Poll  time.Duration // between two looks whether a sweep has ended
}

func (t Times) withDefaults() Times {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&t.Renew, time.Minute)
	set(&t.Gap, 5*time.Minute)
	set(&t.Dead, 30*time.Minute)
	set(&t.Sweep, time.Hour)
	set(&t.Over, 2*time.Hour)
	set(&t.Poll, 2*time.Second)
	return t
}

// ErrLost says that a lease was not renewed in time: others may take it for dead.
var ErrLost = errors.New("the lease was not renewed in time")

// presence is an object that says that its process is alive, and when it was last seen.
type presence struct {
	store storage.Store
	key   string
	body  []byte
	hold  storage.Hold // nil where the store knows no processes
	seen  time.Time    // by the store's clock, when it was last renewed
}

// appear writes a presence.
func appear(ctx context.Context, store storage.Store, key string, body []byte) (*presence, error) {
	p := &presence{store: store, key: key, body: body}
	if holder, ok := store.(storage.Holder); ok {
		hold, err := holder.Hold(ctx, key, body)
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return nil, err
		}
		p.hold = hold
	}
	if p.hold != nil {
		return p, p.look(ctx)
	}
	return p, p.renew(ctx)
}

// renew lets the store's clock say when the presence was last seen. ErrNotFound
// where others have removed it.
func (p *presence) renew(ctx context.Context) error {
	var err error
	switch {
	case p.hold != nil:
		err = p.hold.Renew(ctx)
	default:
		err = put(ctx, p.store, p.key, p.body)
	}
	if err != nil {
		return err
	}
	return p.look(ctx)
}

func (p *presence) look(ctx context.Context) error {
	info, err := p.store.Stat(ctx, p.key)
	if err != nil {
		return err
	}
	p.seen = info.Modified
	return nil
}

// leave removes the presence.
func (p *presence) leave(ctx context.Context) error {
	if p.hold != nil {
		return p.hold.Release(ctx)
	}
	return p.store.Delete(ctx, p.key)
}

// dead reports whether what was last modified then and is not held counts for nothing at now.
func dead(ctx context.Context, store storage.Store, key string, modified, now time.Time, after time.Duration) (bool, error) {
	if now.Sub(modified) < after {
		return false, nil
	}
	holder, ok := store.(storage.Holder)
	if !ok {
		return true, nil
	}
	held, err := holder.IsHeld(ctx, key)
	if err != nil {
		return false, fmt.Errorf("cannot find out whether %s is held: %w", key, err)
	}
	return !held, nil
}
