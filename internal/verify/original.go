package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/remote"
)

// oldEntry is an entry of format 1.0 that some image needs.
type oldEntry struct {
	remote.Layer // without an Object where there is none to read
	images       []*img
	read         bool
}

// unprovedWhy is why an image of format 1.0 is no more than read.
const unprovedWhy = "it is of format 1.0, by the original dogestry: nothing proves that its bytes are what was pushed"

// readOld walks the chain of an image of format 1.0, and learns which layers it has.
func (r *run) readOld(ctx context.Context, m *img) error {
	old, err := r.originals.Read(ctx, m.id)
	if err != nil && !lasting(err) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err = r.failure(ctx, err, r.objectOf(m.id), cure{}, m)
	} else if err != nil {
		r.found(findingOf(err, Damaged, r.objectOf(m.id), cure{}, m))
		err = nil
	} else {
		r.success()
	}
	r.mu.Lock()
	if !m.reread {
		r.unproved = append(r.unproved, Unproved{m.tags, unprovedWhy})
	}
	m.reread = true
	r.mu.Unlock()
	for _, e := range old.Entries {
		r.needsOld(m, e)
	}
	return err
}

// needsOld notes an entry that m needs.
func (r *run) needsOld(m *img, e original.Entry) {
	if !e.Throwaway && e.Layer.Object == "" {
		r.found(findingOf(original.Lacks(e), Missing, r.objectOf(e.ID), cure{}, m))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.documents[e.ID] = true
	old := r.old[e.ID]
	if old == nil {
		old = &oldEntry{Layer: e.Layer}
		r.old[e.ID] = old
	}
	if !slices.Contains(old.images, m) {
		old.images = append(old.images, m)
	}
}

// readOldLayers reads the layers of format 1.0 that were not read yet, the largest first.
func (r *run) readOldLayers(ctx context.Context) error {
	var all []*oldEntry
	var size int64
	for id, e := range r.old {
		if e.read || e.Object == "" || !r.o.Part.Has(id) {
			continue
		}
		e.read = true
		all = append(all, e)
		size += e.Stored // what they decode to nobody knows
	}
	if len(all) == 0 {
		return ctx.Err()
	}
	slices.SortFunc(all, func(a, b *oldEntry) int {
		return cmp.Or(cmp.Compare(b.Stored, a.Stored), cmp.Compare(a.Object, b.Object))
	})
	return readEach(ctx, r, all, size, r.readOldLayer)
}

func (r *run) readOldLayer(ctx context.Context, e *oldEntry) error {
	_, size, err := original.Measure(ctx, r.originals.From, e.Layer)
	r.o.Progress.Read(int(e.Stored))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		r.success()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.readLayers++
		r.readBytes += size
		return nil
	case !lasting(err):
		return r.failure(ctx, err, e.Object, cure{}, e.images...)
	}
	r.success()
	f := findingOf(err, Damaged, e.Object, cure{}, e.images...)
	if f.Problem == Damaged && errors.Is(err, io.ErrUnexpectedEOF) {
		f.Problem = Truncated
	}
	r.found(f)
	return nil
}

// unprovedOf returns the images that are whole: of the others, findings tell.
func (r *run) unprovedOf() []Unproved {
	damaged := map[image.Reference]bool{}
	for _, f := range r.findings {
		for _, ref := range f.told().Images {
			damaged[ref] = true
		}
	}
	var whole []Unproved
	for _, u := range r.unproved {
		if !slices.ContainsFunc(u.Images, func(ref image.Reference) bool { return damaged[ref] }) {
			whole = append(whole, u)
		}
	}
	slices.SortFunc(whole, func(a, b Unproved) int { return cmp.Compare(fmt.Sprint(a.Images), fmt.Sprint(b.Images)) })
	return whole
}
