package client

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"net/http"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	orasremote "oras.land/oras-go/v2/registry/remote"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// Add says that a manifest belongs to the repository. In a registry one does that is
// there, and what it refers to was noted when it was put: Add looks whether it is.
func (p *Repository) Add(ctx context.Context, repository string, manifest image.Digest) error {
	if err := p.only(ctx, repository); err != nil {
		return err
	}
	_, _, err := p.whole(ctx, manifest)
	return err
}

// only refuses what is about another repository.
func (p *Repository) only(ctx context.Context, repository string) error {
	if err := p.check(ctx); err != nil {
		return err
	}
	if repository != p.name {
		return fault.New(fault.Other, "%s is asked about %s", p.where(), repository)
	}
	return nil
}

// Remove takes a manifest out of the repository. One that a tag names, or an index with
// a tag, stays: with it that would go.
func (p *Repository) Remove(ctx context.Context, repository string, manifest image.Digest) error {
	if err := p.only(ctx, repository); err != nil {
		return err
	}
	tags, err := p.needing(ctx, manifest, "")
	if err != nil {
		return err
	}
	if len(tags) > 0 {
		return fault.New(fault.Refused, "%s in %s is needed by the tag %s", manifest.Short(), p.where(), tags[0]).
			Advise("Remove its tags first: a registry removes them with what they name.")
	}
	doc, err := p.get(ctx, "/manifests/"+manifest.String())
	if err == nil {
		var list *orasremote.Repository
		if list, err = p.listing(ctx); err == nil { // which keeps the list of referrers
			err = list.Manifests().Delete(ctx, ocispec.Descriptor{MediaType: mediaOf(doc), Digest: digest.Digest(manifest.String()), Size: int64(len(doc))})
		}
	}
	if isStatus(err, http.StatusNotFound) || errors.Is(err, errdef.ErrNotFound) {
		return ctx.Err()
	}
	return p.failure(ctx, err, "cannot remove %s from %s", manifest.Short(), p.where())
}

// Belongs reports whether a manifest is in the repository, tagged or not.
func (p *Repository) Belongs(ctx context.Context, repository string, manifest image.Digest) (bool, error) {
	if err := p.only(ctx, repository); err != nil {
		return false, err
	}
	at, err := p.locate(ctx, manifest)
	return at == inManifests, p.failure(ctx, err, "cannot look into %s", p.where())
}

// mostReferrers bounds the manifests that refer to one other.
const mostReferrers = 10_000

// Referrers yields the manifests that refer to subject, by the registry's API for
// that or by the list that stands in for it.
func (p *Repository) Referrers(ctx context.Context, repository string, subject image.Digest) iter.Seq2[image.Digest, error] {
	return func(yield func(image.Digest, error) bool) {
		ids, err := p.referrers(ctx, repository, subject)
		if err != nil {
			yield(image.Digest{}, err)
			return
		}
		for _, id := range ids {
			if !yield(id, nil) {
				return
			}
		}
	}
}

func (p *Repository) referrers(ctx context.Context, repository string, subject image.Digest) ([]image.Digest, error) {
	if err := p.only(ctx, repository); err != nil {
		return nil, err
	}
	list, err := p.listing(ctx)
	var ids []image.Digest
	if err == nil {
		of := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(subject.String())}
		err = list.Referrers(ctx, of, "", func(found []ocispec.Descriptor) error {
			for _, d := range found {
				if id, err := image.ParseDigest(d.Digest.String()); err == nil && len(ids) < mostReferrers {
					ids = append(ids, id)
				}
			}
			return nil
		})
	}
	if isStatus(err, http.StatusNotFound) {
		err = nil
	}
	if err != nil {
		return nil, p.failure(ctx, err, "cannot read what refers to %s in %s", subject.Short(), p.where())
	}
	slices.SortFunc(ids, func(a, b image.Digest) int { return bytes.Compare(a[:], b[:]) })
	ids = slices.Compact(ids)
	p.registry.settle(p, ids...)
	return ids, ctx.Err()
}
