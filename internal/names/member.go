package names

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// FindMembers returns manifests that belong to their repositories, by their digests, in
// the order of refs. Its error is a NotFound fault for the first one that does not.
func FindMembers(ctx context.Context, from remote.Source, name string, refs []image.Reference) ([]Named, error) {
	var found []Named
	for _, ref := range refs {
		in, ok := remote.SourceOf(from, ref.Repository).(remote.Memberships)
		if !ok {
			return nil, fault.Wrap(fault.Refused, errors.ErrUnsupported, "%s does not know which manifests belong to a repository", name)
		}
		belongs, err := in.Belongs(ctx, ref.Repository, ref.Digest)
		if err != nil {
			return nil, err
		}
		if !belongs {
			return nil, fault.New(fault.NotFound, "%s does not belong to %s in %s on its own", ref.Digest.Short(), ref.Repository, name).
				Advise("That is so of what was pushed to `dogestry serve`. What `dogestry push` has pushed is there by its tags alone: remove these.")
		}
		found = append(found, Named{Reference: ref, ID: ref.Digest})
	}
	return found, ctx.Err()
}

// RemoveMembers takes manifests out of their repositories, one after the other. One
// that a tag needs, or an index that belongs to the repository and does not go
// itself, is Refused. It returns an error for each, nil where it is gone.
func RemoveMembers(ctx context.Context, from remote.Source, members []Named) []error {
	return removeMembers(ctx, from, members, nil, func(ctx context.Context, m image.Reference) error {
		return remote.SourceOf(from, m.Repository).(remote.Memberships).Remove(ctx, m.Repository, m.Digest)
	})
}

// WouldRemoveMembers returns the errors that RemoveMembers would, once tags are gone, as
// far as that is known without trying.
func WouldRemoveMembers(ctx context.Context, from remote.Source, members, tags []Named) []error {
	return removeMembers(ctx, from, members, tags, func(ctx context.Context, _ image.Reference) error { return ctx.Err() })
}

func removeMembers(ctx context.Context, from remote.Source, members, tags []Named, remove func(context.Context, image.Reference) error) []error {
	errs := make([]error, len(members))
	going := map[image.Reference]bool{}
	for _, m := range slices.Concat(members, tags) {
		going[m.Reference] = true
	}
	for i, m := range members {
		if errs[i] = ctx.Err(); errs[i] != nil {
			continue
		}
		if errs[i] = notNeeded(ctx, from, m.Reference, going); errs[i] == nil {
			errs[i] = remove(ctx, m.Reference)
		}
	}
	return errs
}

// notNeeded refuses what something else in the repository needs. A registry looks by itself.
func notNeeded(ctx context.Context, from remote.Source, ref image.Reference, going map[image.Reference]bool) error {
	in, ok := from.(remote.Members)
	if !ok {
		return ctx.Err()
	}
	var tags []image.Reference
	for tag, err := range from.References(ctx, ref.Repository) {
		if err != nil {
			return err
		}
		if !going[tag.Reference] {
			tags = append(tags, tag.Reference)
		}
	}
	needed, err := neededBy(ctx, from, tags)
	if err != nil {
		return err
	}
	if tag := needed[ref.Digest]; tag != "" {
		return fault.New(fault.Refused, "%s is needed by the tag %s:%s", ref.Digest.Short(), ref.Repository, tag).
			Advise("Remove its tags first.")
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for m, err := range in.Members(gctx, ref.Repository) {
		if err != nil {
			return errors.Join(g.Wait(), err)
		}
		other := image.Reference{Repository: m.Repository, Digest: m.Manifest}
		if !m.Subject.IsZero() || other == ref || going[other] {
			continue
		}
		g.Go(func() error {
			parts, err := manifestsOf(gctx, from, other, other.Digest)
			if fault.Is(err, fault.Damaged) { // nobody can pull it
				return nil
			}
			if err == nil && slices.Contains(parts, ref.Digest) {
				err = fault.New(fault.Refused, "%s is a part of %s", ref.Digest.Short(), other).Advise("Remove that first, or both at once.")
			}
			return err
		})
	}
	return g.Wait()
}
