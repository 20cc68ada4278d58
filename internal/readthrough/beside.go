package readthrough

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Held implements remote.Holder. Where the remote cannot be asked, it is what the
// cache has of the index.
func (s *Source) Held(ctx context.Context, index image.Digest) ([]image.Digest, error) {
	holder, ok := s.from.(remote.Holder)
	if !ok {
		return s.manifests(ctx, index, func(image.Digest) bool { return true })
	}
	held, err := holder.Held(ctx, index)
	if !isAway(err) {
		return held, err
	}
	there, failed := s.manifests(ctx, index, func(id image.Digest) bool {
		_, ok := s.cache.document(ctx, id)
		return ok
	})
	if failed != nil || len(there) == 0 {
		return nil, err
	}
	return there, nil
}

// manifests returns those of an index that are chosen.
func (s *Source) manifests(ctx context.Context, index image.Digest, choose func(image.Digest) bool) ([]image.Digest, error) {
	doc, err := s.Document(ctx, index)
	if err != nil {
		return nil, err
	}
	parsed, err := image.ParseIndex(doc)
	if err != nil {
		return nil, err
	}
	var ids []image.Digest
	for _, m := range parsed.Manifests {
		if choose(m.Digest) {
			ids = append(ids, m.Digest)
		}
	}
	return ids, nil
}

// Hold implements remote.Holder.
func (s *Source) Hold(ctx context.Context, index image.Digest, manifests []image.Digest) error {
	if holder, ok := s.from.(remote.Holder); ok {
		return holder.Hold(ctx, index, manifests)
	}
	return errors.ErrUnsupported
}

// Original implements remote.Originals: an entry of format 1.0 is no document, and not
// kept. Its layer, once it was measured, has a digest and is like any other.
func (s *Source) Original(ctx context.Context, id image.Digest) (remote.Original, error) {
	if has, ok := s.from.(remote.Originals); ok {
		return has.Original(ctx, id)
	}
	return remote.Original{}, fault.New(fault.Damaged, "no entry %s of format 1.0", id.Short())
}

// OpenOriginal implements remote.Originals.
func (s *Source) OpenOriginal(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	if has, ok := s.from.(remote.Originals); ok {
		return has.OpenOriginal(ctx, layer)
	}
	return nil, errors.ErrUnsupported
}

// Referrers implements remote.Referred: those that the remote has, if it has such things.
func (s *Source) Referrers(ctx context.Context, repository string, subject image.Digest) iter.Seq2[image.Digest, error] {
	if has, ok := s.from.(remote.Referred); ok {
		return has.Referrers(ctx, repository, subject)
	}
	return func(func(image.Digest, error) bool) {}
}

// Members implements remote.Members, as far as the remote does.
func (s *Source) Members(ctx context.Context, repository string) iter.Seq2[remote.Membership, error] {
	if has, ok := s.from.(remote.Members); ok {
		return has.Members(ctx, repository)
	}
	return func(yield func(remote.Membership, error) bool) {
		yield(remote.Membership{}, fmt.Errorf("nobody knows there what belongs to a repository: %w", errors.ErrUnsupported))
	}
}

// PutSignature implements remote.Signatures, as do the methods below: what the
// remote has, and nothing where it has no such thing.
func (s *Source) PutSignature(ctx context.Context, ref image.Reference, id image.ID, key string, content []byte) error {
	if has, ok := s.from.(remote.Signatures); ok {
		return has.PutSignature(ctx, ref, id, key, content)
	}
	return errors.ErrUnsupported
}

// Signature implements remote.Signatures.
func (s *Source) Signature(ctx context.Context, ref image.Reference, id image.ID, key string) ([]byte, error) {
	if has, ok := s.from.(remote.Signatures); ok {
		return has.Signature(ctx, ref, id, key)
	}
	return nil, fault.New(fault.NotFound, "no signature of %s: this remote keeps none", ref)
}

// CurrentSignature implements remote.Signatures.
func (s *Source) CurrentSignature(ctx context.Context, ref image.Reference, key string) ([]byte, error) {
	if has, ok := s.from.(remote.Signatures); ok {
		return has.CurrentSignature(ctx, ref, key)
	}
	return nil, fault.New(fault.NotFound, "no signature of %s: this remote keeps none", ref)
}

// Signed implements remote.Signatures.
func (s *Source) Signed(ctx context.Context, ref image.Reference, id image.ID) iter.Seq2[remote.Signature, error] {
	if has, ok := s.from.(remote.Signatures); ok {
		return has.Signed(ctx, ref, id)
	}
	return func(func(remote.Signature, error) bool) {}
}
