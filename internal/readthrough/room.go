package readthrough

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

const (
	// share is the part of the limit (one in so many) that is freed beyond what is
	// needed when something must go, so that not every layer needs a listing.
	share = 16

	// looks is the part of the limit that is written before it is looked again what
	// others have written.
	looks = 64

	// beside is how much the rest of an entry takes at most, in bytes: what tells of
	// its file, and an alias of it.
	beside = 512
)

// room keeps a cache within its limit: what is there, and what is on its way, is
// never more. Of what other processes write it learns when it lists again, after
// each 64th of the limit that it has written itself.
type room struct {
	cache *Cache
	limit int64 // bytes

	turn chan struct{} // full while somebody lists and removes

	mu       sync.Mutex
	listed   bool
	total    int64                // bytes that are there, by the last listing and what was written since
	fresh    int64                // of these, those that were written since
	reserved int64                // bytes on their way
	used     map[image.Digest]int // entries that are being read or written
}

func newRoom(c *Cache, limit int64) *room {
	return &room{cache: c, limit: limit, turn: make(chan struct{}, 1), used: map[image.Digest]int{}}
}

// reserve makes room for n bytes that are on their way. It reports false where
// there can be none, or ctx has ended.
func (r *room) reserve(ctx context.Context, n int64) bool {
	if n > r.limit {
		return false
	}
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return false
	}
	if r.take(n, true) {
		return true
	}
	if err := r.evict(ctx, n); err != nil {
		r.cache.trouble(err)
		return false
	}
	return r.take(n, false)
}

// take reserves n bytes if there is room for them, by what is known. With look it
// fails also where it is time to list.
func (r *room) take(n int64, look bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if look && (!r.listed || r.fresh >= r.limit/looks) || r.total+r.reserved+n > r.limit {
		return false
	}
	r.reserved += n
	return true
}

// release ends a reservation of n bytes; stored of them are there now.
func (r *room) release(n, stored int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reserved -= n
	r.total += stored
	r.fresh += stored
}

// use keeps entries from being removed by this process until unuse. Of another
// process's it removes the names only: who reads goes on to the end.
func (r *room) use(ids []image.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		r.used[id]++
	}
}

func (r *room) unuse(ids []image.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if r.used[id]--; r.used[id] == 0 {
			delete(r.used, id)
		}
	}
}

// aged is an entry as a listing has found it.
type aged struct {
	id   image.Digest
	size int64     // bytes
	used time.Time // when it was of use last
}

// evict lists what is there and, where that leaves no room for n bytes, removes
// what was not of use for the longest time. What killed writers have left is swept
// before the first listing. The caller holds the turn.
func (r *room) evict(ctx context.Context, n int64) error {
	r.mu.Lock()
	first := !r.listed
	r.mu.Unlock()
	if first {
		if _, err := r.cache.store.Sweep(ctx, "", 0); err != nil {
			return err
		}
	}
	var all []aged
	var total int64
	for e, err := range r.cache.repo.Entries(ctx) {
		if err != nil {
			return err
		}
		all = append(all, aged{e.ID, e.Bytes, e.Modified})
		total += e.Bytes
	}
	r.mu.Lock()
	r.listed, r.total, r.fresh = true, total, 0
	over := total + r.reserved + n - r.limit
	r.mu.Unlock()
	if over <= 0 {
		return nil
	}
	over += min(r.limit/share, r.limit-n)
	slices.SortFunc(all, func(a, b aged) int { return a.used.Compare(b.used) })
	for _, e := range all {
		if over <= 0 {
			break
		}
		r.mu.Lock()
		inUse := r.used[e.id] > 0
		r.mu.Unlock()
		if inUse {
			continue
		}
		gone, err := r.cache.repo.Forget(ctx, e.id, e.used)
		if err != nil {
			return err
		}
		if gone {
			over -= e.size
			r.mu.Lock()
			r.total -= e.size
			r.mu.Unlock()
			r.cache.log.Debug("removed from the cache", "entry", e.id, "bytes", e.size, "used", e.used)
		}
	}
	return nil
}
