package remote

import (
	"context"
	"errors"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// TreeToTag reads the documents of an image that is to be tagged where they are, of an
// index those of the manifests that are there, as held says: one has to be, of an index
// that names any. A document of which document says by a *Damage that it is missing or
// wrong, and not of format 1.0, is an *IncompleteError. Where is what the user calls the place. Both may be called
// by several goroutines at once.
func TreeToTag(ctx context.Context, id image.ID, where string, document func(context.Context, image.Digest) ([]byte, error), held func(ctx context.Context, index image.Digest) ([]image.Digest, error)) (*image.Tree, error) {
	tree, err := image.ReadTree(ctx, id, image.Reader{
		Document: func(ctx context.Context, doc image.Digest) ([]byte, error) {
			b, err := document(ctx, doc)
			var damage *Damage
			if errors.As(err, &damage) && !errors.Is(err, ErrOriginal) {
				return nil, &IncompleteError{ID: id, Missing: Closure{Documents: []image.Digest{doc}}}
			}
			return b, err
		},
		Pick: func(ctx context.Context, index image.Digest, in *image.Index) ([]image.Digest, error) {
			there, err := held(ctx, index)
			if err == nil && len(there) == 0 && len(in.Manifests) > 0 {
				err = fault.New(fault.Other, "none of the platforms of %s is in %s", index.Short(), where)
			}
			return there, err
		},
	})
	var wrong *image.TreeError
	if errors.As(err, &wrong) {
		return nil, NoImage(id, where, err)
	}
	return tree, err
}

// NoImage is the fault of documents that make no image, or none that can be tagged
// where they are, cause saying why.
func NoImage(id image.ID, where string, cause error) error {
	return fault.Wrap(fault.Other, cause, "%s in %s is no image that this version can tag", id.Short(), where)
}
