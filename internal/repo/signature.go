package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

var _ remote.Signatures = (*Repo)(nil)

// signaturesSeen bounds how many keys a look at a tag's signatures goes through:
// whoever can write the remote decides how many there are. It is a page of S3's.
const signaturesSeen = 1000

// PutSignature stores a signature. It is an object of its own for each image and
// key, so it never takes away the one that the tag needs as long as it has not moved.
func (r *Repo) PutSignature(ctx context.Context, ref image.Reference, id image.ID, key string, content []byte) error {
	if len(content) > remote.MaxSignature {
		return fmt.Errorf("a signature of %d bytes: it is larger than readers take", len(content))
	}
	err := r.store.Put(ctx, signatureKey(ref, id, key), bytes.NewReader(content))
	return r.failure(err, "cannot write the signature of %s in %s", ref, r.name)
}

// Signature returns what a key has signed of a tag and an image.
func (r *Repo) Signature(ctx context.Context, ref image.Reference, id image.ID, key string) ([]byte, error) {
	content, err := r.read(ctx, signatureKey(ref, id, key), remote.MaxSignature)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, fault.Wrap(fault.NotFound, err, "no signature of %s by the key %s in %s", ref, key, r.name)
	}
	return content, r.failure(err, "cannot read the signature of %s in %s", ref, r.name)
}

// CurrentSignature returns what a key has signed of what the tag names now.
func (r *Repo) CurrentSignature(ctx context.Context, ref image.Reference, key string) ([]byte, error) {
	id, err := r.named(ctx, ref)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, fault.Wrap(fault.NotFound, err, "no tag %s in %s", ref, r.name)
	}
	if err != nil {
		return nil, err
	}
	return r.Signature(ctx, ref, id, key)
}

// Signed yields the signatures of a tag, of the first signaturesSeen keys.
func (r *Repo) Signed(ctx context.Context, ref image.Reference, id image.ID) iter.Seq2[remote.Signature, error] {
	prefix := tagSignatures(ref)
	if !id.IsZero() {
		prefix = imageSignatures(ref, id)
	}
	return func(yield func(remote.Signature, error) bool) {
		seen := 0
		for info, err := range r.store.List(ctx, prefix) {
			if unlists(err) {
				r.tellUnlisted()
				return
			}
			if err != nil {
				yield(remote.Signature{}, r.failure(err, "cannot list %s", r.name))
				return
			}
			if s, ok := parseSignature(ref, info.Key); ok && !yield(s, nil) {
				return
			}
			if seen++; seen == signaturesSeen {
				return
			}
		}
	}
}

// tellUnsigned says so when a tag has moved from an image that was signed to one
// that is not: whoever verifies does not get it any more. What it cannot find out
// it does not tell: the tag is written.
func (r *Repo) tellUnsigned(ctx context.Context, ref image.Reference, from, to image.ID) {
	for _, id := range []image.ID{from, to} {
		has, err := r.hasSignature(ctx, ref, id)
		if err != nil {
			r.log.Debug("cannot see whether the tag was signed", "tag", ref, "error", err)
			return
		}
		if has != (id == from) {
			return
		}
	}
	r.notify(fmt.Sprintf("%s was signed and is not any more: pulls with --verify-key refuse it until it is pushed with --sign-key", ref))
}

func (r *Repo) hasSignature(ctx context.Context, ref image.Reference, id image.ID) (bool, error) {
	for _, err := range r.Signed(ctx, ref, id) {
		return err == nil, err
	}
	return false, nil
}
