package transfer

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// untagging is a target that can be asked for its tags, and remove them.
type untagging interface {
	remote.Source
	remote.Untagger
}

// untagsAtOnce bounds the tags that are removed at once.
const untagsAtOnce = 8

func (c *copier) untagger() (untagging, error) {
	if to, ok := c.to.(untagging); ok {
		return to, nil
	}
	return nil, fault.New(fault.Refused, "%s is a remote from which tags cannot be removed", c.o.To).Advise("Copy without --delete.")
}

// prune removes the target's tags that the source does not have, those of the
// repositories that were copied. What came to the source since it was listed stays
// too. Entries are never removed: that is for garbage collection.
func (c *copier) prune(ctx context.Context, copied []CopyImage) (removed []Removed, failed []Failed, err error) {
	to, err := c.untagger()
	if err != nil {
		return nil, nil, err
	}
	keep := make(map[image.Reference]bool, len(copied))
	for _, img := range copied {
		keep[img.Target] = true
	}
	var extra []image.Reference
	for _, repository := range scopes(c.o.Repositories) {
		now, err := references(ctx, c.from, repository)
		if err != nil {
			return nil, nil, err
		}
		for _, ref := range now {
			keep[ref] = true
		}
		there, err := references(ctx, to, repository)
		if err != nil {
			return nil, nil, err
		}
		for _, ref := range there {
			if !keep[ref] {
				extra = append(extra, ref)
			}
		}
	}
	ids, failures := make([]image.ID, len(extra)), make([]error, len(extra))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(untagsAtOnce)
	for i, ref := range extra {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() (err error) {
			ids[i], err = c.untag(gctx, to, ref)
			if err != nil && ofImage(err) {
				failures[i], err = err, nil
			}
			return err
		})
	}
	err = g.Wait()
	for i, ref := range extra {
		switch {
		case failures[i] != nil:
			failed = append(failed, Failed{ref, failures[i]})
		case !ids[i].IsZero():
			removed = append(removed, Removed{ref, ids[i]})
		}
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && len(failed) > 0 {
		err = fault.New(fault.Partial, "%d of %d tags that %s does not have were not removed from %s", len(failed), len(extra), c.o.From, c.o.To)
	}
	return removed, failed, err
}

// untag removes a tag and returns what it named, zero where it was gone.
func (c *copier) untag(ctx context.Context, to untagging, ref image.Reference) (image.ID, error) {
	id, err := to.Resolve(ctx, ref)
	if fault.Is(err, fault.NotFound) {
		return image.ID{}, nil
	}
	if err == nil && !c.o.DryRun {
		err = to.Untag(ctx, ref, id)
	}
	if err != nil {
		return image.ID{}, err
	}
	return id, nil
}
