package transfer

import (
	"context"
	"errors"
	"fmt"
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
// signature finds it. They belong to the image's repository at the target. What
// cannot be copied is left out, with what refers to it, and told: anybody may let
// something refer to an image, which is not to keep the image from being copied.
func (p *copying) referrers(ctx context.Context) error {
	from, gives := p.from.(remote.Referred)
	to, takes := p.to.(remote.Memberships)
	if p.alone || !gives || !takes {
		return ctx.Err()
	}
	copied, left := map[image.Digest]bool{}, map[image.Digest]bool{}
	tried, more := 0, false
	subjects := p.subjects()
	for depth := 0; len(subjects) > 0 && !more; depth++ {
		var next []image.Digest
		for _, subject := range subjects {
			ids, err := referrersOf(ctx, from, p.image.Source.Repository, subject)
			if err != nil {
				return err
			}
			for _, id := range ids {
				if copied[id] {
					continue
				}
				if tried == mostReferrers || depth == longestChain {
					left[id], more = true, true
					continue
				}
				tried++
				refers, err := p.refer(ctx, from, to, subject, id)
				switch {
				case err != nil && notReferrer(err):
					left[id] = true
					p.warn(id, err)
				case err != nil:
					return err
				case refers:
					copied[id] = true
					next = append(next, id)
				}
			}
			if more {
				break
			}
		}
		subjects = next
	}
	for id := range copied {
		delete(left, id) // the source has listed it as another's, too
	}
	p.referred = len(copied)
	p.tellLeft(len(left), more)
	return ctx.Err()
}

// notReferrer reports whether a failure is that of one that refers to the image.
func notReferrer(err error) bool { return ofImage(err) || errors.Is(err, image.ErrTooLarge) }

// warn says, once, why something that refers to the image is left out.
func (p *copying) warn(id image.Digest, why error) {
	if p.warned == nil {
		p.warned = map[image.Digest]bool{}
	}
	if p.warned[id] {
		return
	}
	p.warned[id] = true
	p.o.Progress.Note(fmt.Sprintf("warning: %s refers to %s, and is left out: %v", id.Short(), p.image.Source, why))
}

// tellLeft says, once, how many were left out; more says that nobody has counted them all.
func (p *copying) tellLeft(n int, more bool) {
	if n == 0 || n == p.toldLeft {
		return
	}
	p.toldLeft = n
	text := fmt.Sprintf("warning: left out of what refers to %s in %s: %d", p.image.Source, p.o.From, n)
	if more {
		text += fmt.Sprintf(" or more (at most %d are copied, and %d in a row)", mostReferrers, longestChain)
	}
	p.o.Progress.Note(text)
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

// refer copies a manifest that refers to subject, unless that was taken back
// meanwhile. Its error is a Refused fault where it does not refer to it, whatever
// the source has listed: at the target it would live on its own.
func (p *copying) refer(ctx context.Context, from remote.Referred, to remote.Memberships, subject, id image.Digest) (refers bool, err error) {
	if p.o.DryRun {
		return true, nil
	}
	repository := p.image.Source.Repository
	sub := p.memberOf(to, remote.Membership{Repository: repository, Manifest: id}, p.image.Target.Repository)
	sub.alone = true
	if err = sub.survey(ctx); err == nil {
		err = sub.refersTo(subject)
	}
	if err == nil {
		_, err = sub.move(ctx)
	}
	if err == nil || !fault.Is(err, fault.Damaged) && !fault.Is(err, fault.NotFound) {
		return err == nil, err
	}
	now, listErr := referrersOf(ctx, from, repository, subject)
	if listErr != nil {
		return false, listErr
	}
	if !slices.Contains(now, id) {
		return false, nil
	}
	return false, err
}

// refersTo makes sure that the manifest says itself that it refers to subject.
func (p *copying) refersTo(subject image.Digest) error {
	about, err := image.ParseAbout(p.tree.Doc)
	if err != nil {
		return fault.Wrap(fault.Refused, err, "nobody knows what %s refers to", p.id.Short())
	}
	if about.Subject.Digest != subject {
		return fault.New(fault.Refused, "it does not say that it refers to %s, as %s does", subject.Short(), p.o.From)
	}
	return nil
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
	all, _, err := memberships(ctx, c.from, c.o.Repositories)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(m remote.Membership) bool { return !m.Subject.IsZero() }) // they are copied with what they refer to
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
		if now.Manifest == m.Manifest && now.Subject == m.Subject {
			return failed, nil
		}
	}
	return nil, ctx.Err()
}

// memberships lists what belongs to repositories, to all where there are none. Known
// is false where the remote does not know that.
func memberships(ctx context.Context, in any, repositories []string) (all []remote.Membership, known bool, err error) {
	from, ok := in.(remote.Members)
	if !ok {
		return nil, false, ctx.Err()
	}
	for _, repository := range scopes(repositories) {
		for m, err := range from.Members(ctx, repository) {
			if errors.Is(err, errors.ErrUnsupported) {
				return nil, false, ctx.Err()
			}
			if err != nil {
				return nil, false, err
			}
			all = append(all, m)
		}
	}
	return all, true, ctx.Err()
}
