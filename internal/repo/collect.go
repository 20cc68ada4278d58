package repo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/lease"
	"github.com/dogestry/dogestry/internal/storage"
)

// Grace is the age from which on an entry that nothing needs is garbage.
const Grace = 24 * time.Hour

// CollectOptions of a garbage collection.
type CollectOptions struct {
	Grace        time.Duration // 0 means Grace
	DryRun       bool          // find out, and change nothing; ages are by the local clock then
	SingleWriter bool          // nobody else writes: go without leases and sweep, on any store
	Status       func(string)  // told what it does; nil tells nobody
}

// Collection is what a garbage collection found and did.
type Collection struct {
	DryRun  bool `json:"dryRun,omitempty"`
	Roots   int  `json:"roots"`   // tags, and what registries know besides
	Entries Heap `json:"entries"` // all that there are
	Freed   Heap `json:"freed"`   // deleted; of a dry run, what would be
	Young   Heap `json:"young"`   // not needed, and not old enough
	Leased  Heap `json:"leased"`  // not needed but for running pushes
	Left    Heap `json:"left"`    // garbage that another run has to delete
}

// Heap is a number of entries and what they take, in bytes.
type Heap struct {
	Count  int   `json:"count"`
	Stored int64 `json:"stored"`
}

func (h *Heap) add(e *entry) {
	h.Count++
	h.Stored += e.stored
}

// entry is what lies under one images/<id>/, as a listing tells it.
type entry struct {
	id       image.Digest
	modified time.Time // of its youngest object
	stored   int64     // bytes
	file     bool      // a layer's, or a blob
	blob     bool      // the file is a blob
	held     bool      // marks of an index
	rank     int       // when it is deleted, if it is garbage: what names others goes first
}

// Ranks of entries.
const (
	rankIndex = iota
	rankManifest
	rankOther // configs, aliases, what is not whole
	rankLayer
)

// deleters bounds the entries that are deleted at once.
const deleters = 16

// Collect deletes the entries that nothing reaches, beside running pushes
// (docs/format.md, G1 to G6). Where anything cannot be read that a root needs it
// deletes nothing. It returns what it has done also beside an error.
func (r *Repo) Collect(ctx context.Context, o CollectOptions) (*Collection, error) {
	c := &collector{repo: r, o: o, now: time.Now(), result: &Collection{DryRun: o.DryRun}}
	if c.o.Grace == 0 {
		c.o.Grace = Grace
	}
	if c.o.Status == nil {
		c.o.Status = func(string) {}
	}
	defer c.o.Status("")
	var err error
	switch {
	case o.DryRun:
		if err = c.mark(ctx); err == nil {
			for _, e := range c.garbage {
				c.result.Freed.add(e)
			}
		}
	case o.SingleWriter:
		if err = c.mark(ctx); err == nil {
			_, err = c.delete(ctx)
		}
	default:
		err = c.beside(ctx)
	}
	return c.result, r.failure(err, "cannot collect the garbage of %s", r.name)
}

// collector is one garbage collection.
type collector struct {
	repo   *Repo
	o      CollectOptions
	now    time.Time // by the store's clock, unless nothing is to be written
	result *Collection

	entries map[image.Digest]*entry
	reach   *reach
	garbage []*entry // in the order of deletion
}

// beside collects beside pushes.
func (c *collector) beside(ctx context.Context) (err error) {
	sweep, err := lease.Begin(ctx, c.repo.store, c.repo.times)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return fault.Wrap(fault.Refused, err, "garbage cannot be collected in %s beside running pushes", c.repo.name).
			Advise("Make sure that nobody else writes there, and add --single-writer. See `dogestry check %s`.", c.repo.name)
	case errors.Is(err, lease.ErrBusy):
		return fault.Wrap(fault.Locked, err, "cannot collect the garbage of %s", c.repo.name).
			Advise("Wait for it. One that was killed is over two hours after it began to delete.")
	case err != nil:
		return err
	}
	settled := true // nothing of ours is on its way to be deleted
	defer func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		if settled {
			err = errors.Join(err, sweep.End(late))
		}
		err = errors.Join(err, sweep.Close(ctx))
	}()
	c.now = sweep.Began()
	if err := c.mark(ctx); err != nil {
		return err
	}
	if most := lease.MaxList; len(c.garbage) > most {
		for _, e := range c.garbage[most:] {
			c.result.Left.add(e)
		}
		c.garbage = c.garbage[:most]
	}
	ids := make([]image.Digest, len(c.garbage))
	for i, e := range c.garbage {
		ids[i] = e.id
	}
	if err := sweep.Publish(ctx, ids); err != nil {
		return err
	}
	c.o.Status("looking again at what is needed")
	leased, err := sweep.Leases(ctx)
	if err != nil {
		return err
	}
	if err := c.reach.leased(ctx, leased); err != nil {
		return err
	}
	if _, err := c.reach.roots(ctx); err != nil { // after the leases: P5 comes before P7
		return err
	}
	c.garbage = slices.DeleteFunc(c.garbage, func(e *entry) bool {
		switch {
		case c.reach.marked[e.id]:
			return true
		case c.reach.spared[e.id]:
			c.result.Leased.add(e)
			return true
		}
		return false
	})
	settled, err = c.delete(storage.WithGuard(ctx, sweep.Check))
	return err
}

// mark finds the garbage (G2).
func (c *collector) mark(ctx context.Context) (err error) {
	c.o.Status("looking at what is stored")
	if c.entries, err = c.repo.allEntries(ctx); err != nil {
		return err
	}
	c.o.Status("looking at what is needed")
	c.reach = newReach(c.repo)
	c.reach.young = c.young
	c.reach.stays = func(id image.Digest) bool { e := c.entries[id]; return e != nil && c.young(e.modified) }
	for _, e := range c.entries {
		c.reach.aliases = c.reach.aliases || e.blob
	}
	if c.result.Roots, err = c.reach.roots(ctx); err != nil {
		return err
	}
	if c.result.Roots == 0 && len(c.entries) > 0 {
		return fault.New(fault.Refused, "%s has entries and no tag: nothing is deleted", c.repo.name).
			Advise("It is a copy in progress, or the wrong place. If it is to be emptied, delete it by other means.")
	}
	for id, e := range c.entries {
		c.result.Entries.add(e)
		switch {
		case c.reach.marked[id]:
		case c.young(e.modified), c.reach.spared[id]: // it, or what it refers to
			c.result.Young.add(e)
		default:
			c.garbage = append(c.garbage, e)
		}
	}
	return c.order(ctx)
}

// young reports whether what was written then is not old enough to be garbage.
func (c *collector) young(modified time.Time) bool { return c.now.Sub(modified) < c.o.Grace }

// order sorts the garbage by rank.
func (c *collector) order(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for _, e := range c.garbage {
		if e.file {
			e.rank = rankLayer
			continue
		}
		g.Go(func() (err error) {
			e.rank, err = c.rank(gctx, e)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	slices.SortFunc(c.garbage, func(a, b *entry) int { return cmp.Or(a.rank-b.rank, bytes.Compare(a.id[:], b.id[:])) })
	return ctx.Err()
}

// rank finds out the rank of an entry without layers.
func (c *collector) rank(ctx context.Context, e *entry) (int, error) {
	doc, err := c.repo.document(ctx, e.id)
	var torn *tornError
	if errors.As(err, &torn) { // an alias, or not whole
		if e.held {
			return rankIndex, nil
		}
		return rankOther, nil
	}
	if err != nil {
		return 0, err
	}
	switch kind, err := image.KindOf(doc); {
	case err == nil && kind == image.IndexKind:
		return rankIndex, nil
	case err == nil && kind == image.ManifestKind:
		return rankManifest, nil
	}
	return rankOther, nil
}

// delete deletes the garbage, one rank after the other. settled says that all that
// was begun has ended: a deletion whose answer was lost may still come.
func (c *collector) delete(ctx context.Context) (settled bool, err error) {
	c.o.Status("deleting what nothing needs")
	// What has begun is not broken off by an interrupt, so that it is known to have ended.
	begun := context.WithoutCancel(ctx)
	d := deletion{collector: c, settled: true}
	if ctx.Err() == nil {
		d.fail(c.dropReferrers(begun))
	}
	for len(c.garbage) > 0 {
		n := 0
		for n < len(c.garbage) && c.garbage[n].rank == c.garbage[0].rank {
			n++
		}
		var g errgroup.Group
		g.SetLimit(deleters)
		for _, e := range c.garbage[:n] {
			if !d.goesOn(ctx, e) {
				continue
			}
			g.Go(func() error {
				gone, err := c.drop(begun, e)
				d.note(e, gone, err)
				return nil
			})
		}
		_ = g.Wait() // noted
		c.garbage = c.garbage[n:]
	}
	if d.failed == nil && ctx.Err() == nil {
		d.fail(c.dropSignatures(begun))
		_, err := c.repo.sweepUploads(begun, c.now.Add(-UploadAge))
		d.fail(err)
	}
	return d.settled, cmp.Or(d.failed, ctx.Err())
}

// dropSignatures deletes old signatures of images that are gone (format.md, D6).
func (c *collector) dropSignatures(ctx context.Context) error {
	for info, err := range c.repo.store.List(ctx, signaturesPrefix) {
		if err != nil {
			return err
		}
		id, ok := signedImage(info.Key)
		if !ok || c.reach.marked[id] || c.reach.spared[id] || c.young(info.Modified) {
			continue
		}
		_, err := c.repo.store.Stat(ctx, entryKey(id, entryJSON))
		if errors.Is(err, storage.ErrNotFound) {
			err = c.repo.store.Delete(ctx, info.Key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropReferrers deletes what says of the garbage that it refers to others: before
// the garbage, as tags go before what they name. Else it would name what is not
// there, once its subject is pushed again (format.md, D7).
func (c *collector) dropReferrers(ctx context.Context) error {
	if len(c.garbage) == 0 {
		return nil
	}
	gone := make(map[image.Digest]bool, len(c.garbage))
	for _, e := range c.garbage {
		gone[e.id] = true
	}
	var keys []string
	for info, err := range c.repo.store.List(ctx, referrersPrefix) {
		if err != nil {
			return err
		}
		if _, id, ok := parseReferrer(info.Key); ok && gone[id] {
			keys = append(keys, info.Key)
		}
	}
	return c.repo.deleteAll(ctx, keys)
}

// deletion is what became of entries.
type deletion struct {
	*collector
	mu      sync.Mutex
	settled bool
	failed  error
}

func (d *deletion) goesOn(ctx context.Context, with *entry) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed == nil && ctx.Err() == nil {
		return true
	}
	d.result.Left.add(with)
	return false
}

func (d *deletion) note(e *entry, gone bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err != nil:
		d.result.Left.add(e)
		d.fail(err)
	case gone:
		d.result.Freed.add(e)
	default:
		d.result.Young.add(e)
	}
}

// fail keeps the first error. Some say that nothing was sent, or that it was
// refused; of any other the answer may have been lost.
func (d *deletion) fail(err error) {
	answered := errors.Is(err, lease.ErrTakenOver) || errors.Is(err, lease.ErrTimeUp) || errors.Is(err, storage.ErrPermission)
	d.settled = d.settled && (err == nil || answered)
	d.failed = cmp.Or(d.failed, err)
}

// drop deletes an entry, and leaves one alone that has become young meanwhile.
func (c *collector) drop(ctx context.Context, e *entry) (gone bool, err error) {
	var keys []string
	for info, err := range c.repo.store.List(ctx, entryPrefix(e.id)) {
		if err != nil {
			return false, err
		}
		if info.Modified.After(e.modified) && c.young(info.Modified) {
			return false, nil
		}
		keys = append(keys, info.Key)
	}
	err = c.repo.deleteEntry(ctx, e.id, keys)
	return err == nil, err
}

// allEntries lists images/.
func (r *Repo) allEntries(ctx context.Context) (map[image.Digest]*entry, error) {
	all, err := gather(ctx, r.store, func(image.Digest) bool { return true }, (*entry).note)
	if err != nil {
		return nil, r.failure(err, "cannot list %s", r.name)
	}
	for id, e := range all {
		e.id = id
	}
	return all, nil
}

func (e *entry) note(name string, info storage.Info) {
	var f files
	f.add(name, info)
	e.file = e.file || len(f.layers) > 0
	e.blob = e.blob || name == entryBlob
	e.held = e.held || len(f.held) > 0
	e.stored += info.Size
	if info.Modified.After(e.modified) {
		e.modified = info.Modified
	}
}
