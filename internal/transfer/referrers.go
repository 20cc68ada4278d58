package transfer

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

const (
	// longestChain bounds the manifests of which each refers to the next. The signature of an SBOM
	// of an image is two.
	longestChain = 16
	// mostReferrers bounds the manifests that refer to one image, or to each other.
	mostReferrers = 1000
)

// referrers copies what refers to the image at the source, and to that in its turn:
// signatures, SBOMs. It is done before the tag, so that whoever looks for a
// signature finds it. They belong to the image's repository at the target.
func (p *copying) referrers(ctx context.Context) error {
	from, gives := p.from.(remote.Referred)
	to, takes := p.to.(remote.Memberships)
	if p.alone || !gives || !takes {
		return ctx.Err()
	}
	seen := map[image.Digest]bool{}
	subjects := p.subjects()
	for depth := 0; len(subjects) > 0; depth++ {
		var next []image.Digest
		for _, subject := range subjects {
			ids, err := referrersOf(ctx, from, p.image.Source.Repository, subject)
			if err != nil {
				return err
			}
			for _, id := range ids {
				if seen[id] {
					continue
				}
				if len(seen) == mostReferrers || depth == longestChain {
					return p.tooMany()
				}
				seen[id] = true
				next = append(next, id)
				if err := p.refer(ctx, from, to, subject, id); err != nil {
					return err
				}
			}
		}
		subjects = next
	}
	p.referred = len(seen)
	return ctx.Err()
}

func (p *copying) tooMany() error {
	return fault.New(fault.Refused, "too much refers to %s in %s: more than %d manifests, or %d in a row", p.image.Source, p.o.From, mostReferrers, longestChain).
		Advise("Remove there what is not needed.")
}

// referrersOf lists the referrers of one manifest.
func referrersOf(ctx context.Context, from remote.Referred, repository string, subject image.Digest) (ids []image.Digest, err error) {
	for id, err := range from.Referrers(ctx, repository, subject) {
		if err != nil {
			return nil, err
		}
		if ids = append(ids, id); len(ids) > mostReferrers {
			break // told by who asks
		}
	}
	return ids, ctx.Err()
}

// subjects are the manifests of the image that something may refer to: of one that
// has only a config the synthesised one, where the target makes the same.
func (p *copying) subjects() []image.Digest {
	switch p.tree.Kind {
	case image.ManifestKind:
		return []image.Digest{p.id}
	case image.IndexKind:
		ids := []image.Digest{p.id}
		for _, child := range p.tree.Children {
			ids = append(ids, child.ID)
		}
		return ids
	}
	if _, same := p.to.(remote.Manifests); !same || p.tree.Kind != image.ConfigKind {
		return nil
	}
	var there []remote.Layer
	for id, l := range p.results {
		if l.Size < 0 {
			return nil // of a dry run, where the source does not know it
		}
		there = append(there, remote.Layer{Digest: id, Size: l.Size})
	}
	return []image.Digest{image.DigestOf(image.SynthesizeManifest(p.tree.Doc, remote.Ordered(p.tree.Config.DiffIDs, there)))}
}

// refer copies a manifest that refers to subject, unless that was taken back meanwhile.
func (p *copying) refer(ctx context.Context, from remote.Referred, to remote.Memberships, subject, id image.Digest) error {
	if p.o.DryRun {
		return nil
	}
	repository := p.image.Source.Repository
	sub := p.memberOf(to, remote.Membership{Repository: repository, Manifest: id}, p.image.Target.Repository)
	sub.alone = true
	err := sub.carryMember(ctx)
	if err == nil || !fault.Is(err, fault.Damaged) && !fault.Is(err, fault.NotFound) {
		return err
	}
	now, listErr := referrersOf(ctx, from, repository, subject)
	if listErr != nil {
		return listErr
	}
	if !slices.Contains(now, id) {
		return nil
	}
	return err
}

// memberOf returns a manifest on its way that no tag names.
func (c *copier) memberOf(to remote.Memberships, m remote.Membership, repository string) *copying {
	p := c.copying(CopyImage{
		Source: image.Reference{Repository: m.Repository, Digest: m.Manifest},
		Target: image.Reference{Repository: repository, Digest: m.Manifest},
	})
	p.id, p.member = m.Manifest, true
	p.tag = func(ctx context.Context, ref image.Reference, id image.ID) error {
		return to.Add(ctx, ref.Repository, id)
	}
	return p
}

// carryMember copies it, and what refers to it unless it goes alone.
func (p *copying) carryMember(ctx context.Context) error {
	if err := p.survey(ctx); err != nil {
		return err
	}
	_, err := p.move(ctx)
	return err
}

// members copies what belongs to the repositories of the source without being what a
// tag names, and what refers to that. What fails is noted in done.
func (c *copier) members(ctx context.Context, done *Copied) error {
	from, gives := c.from.(remote.Members)
	if !gives {
		return ctx.Err()
	}
	var all []remote.Membership
	for _, repository := range scopes(c.o.Repositories) {
		for m, err := range from.Members(ctx, repository) {
			if err != nil {
				return err
			}
			if m.Subject.IsZero() { // others are copied with what they refer to
				all = append(all, m)
			}
		}
	}
	failures := make([]error, len(all))
	copied := make([]bool, len(all))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(imagesAtOnce)
	for i, m := range all {
		if gctx.Err() != nil {
			break
		}
		to, takes := remote.TargetOf(c.to, m.Repository).(remote.Memberships)
		if !takes {
			break
		}
		g.Go(func() error {
			err := c.memberOf(to, m, m.Repository).carryMember(gctx)
			copied[i] = err == nil
			if err != nil && ofImage(err) {
				failures[i], err = c.unlessRemoved(gctx, m, err)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, m := range all {
		if copied[i] {
			done.Members++
		}
		if failures[i] != nil {
			done.Failed = append(done.Failed, Failed{image.Reference{Repository: m.Repository, Digest: m.Manifest}, failures[i]})
		}
	}
	return ctx.Err()
}

// unlessRemoved returns failed where the manifest belongs to its repository still.
func (c *copier) unlessRemoved(ctx context.Context, m remote.Membership, failed error) (still, err error) {
	for now, err := range c.from.(remote.Members).Members(ctx, m.Repository) {
		if err != nil {
			return nil, err
		}
		if now == m {
			return failed, nil
		}
	}
	return nil, ctx.Err()
}
