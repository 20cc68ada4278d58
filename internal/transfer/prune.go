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
// repositories that were copied, and then what belongs to these repositories there and
// not at the source. What came to the source since it was listed stays
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
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	members, err := c.extraMembers(ctx)
	if err != nil {
		return nil, nil, err
	}
	if removed, failed, err = c.remove(ctx, to, append(extra, members...)); err == nil && len(failed) > 0 {
		err = fault.New(fault.Partial, "%d of %d names that %s does not have were not removed from %s", len(failed), len(extra)+len(members), c.o.From, c.o.To)
	}
	return removed, failed, err
}

// remove removes tags, and by their digests manifests from their repositories, several at once.
func (c *copier) remove(ctx context.Context, to untagging, refs []image.Reference) (removed []Removed, failed []Failed, err error) {
	ids, failures := make([]image.ID, len(refs)), make([]error, len(refs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(untagsAtOnce)
	for i, ref := range refs {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() (err error) {
			if ref.Tag == "" {
				ids[i], err = ref.Digest, c.disown(gctx, ref)
			} else {
				ids[i], err = c.untag(gctx, to, ref)
			}
			if err != nil && ofImage(err) {
				failures[i], err = err, nil
			}
			return err
		})
	}
	err = g.Wait()
	for i, ref := range refs {
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
	return removed, failed, err
}

// disown takes a manifest out of its repository.
func (c *copier) disown(ctx context.Context, ref image.Reference) error {
	if c.o.DryRun {
		return nil
	}
	to, ok := c.to.(remote.Memberships)
	if !ok {
		return fault.New(fault.Refused, "%s is a remote in which no manifest is removed from %s", c.o.To, ref.Repository)
	}
	return to.Remove(ctx, ref.Repository, ref.Digest)
}

// extraMembers returns what belongs to repositories of the target and not of the
// source, where both know that.
func (c *copier) extraMembers(ctx context.Context) ([]image.Reference, error) {
	now, known, err := memberships(ctx, c.from, c.o.Repositories)
	if err != nil || !known {
		return nil, err
	}
	there, _, err := memberships(ctx, c.to, c.o.Repositories)
	if err != nil {
		return nil, err
	}
	keep := make(map[image.Reference]bool, len(now))
	for _, m := range now {
		keep[image.Reference{Repository: m.Repository, Digest: m.Manifest}] = true
	}
	var extra []image.Reference
	for _, m := range there {
		if ref := (image.Reference{Repository: m.Repository, Digest: m.Manifest}); !keep[ref] {
			extra = append(extra, ref)
		}
	}
	return extra, nil
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
