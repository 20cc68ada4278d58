package repo

import (
	"cmp"
	"context"
	"errors"

	"github.com/dogestry/dogestry/internal/image"
)

const tornAdvice = "The copy of this remote is not complete: copy it again, or push the image again to complete it. " +
	"`dogestry verify %s` finds all that is missing or damaged."

// Document returns a document, verified.
func (r *Repo) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	doc, err := r.document(ctx, id)
	var torn *tornError
	if !errors.As(err, &torn) {
		return doc, r.failure(err, "cannot read %s", r.name)
	}
	if is, err := r.isOriginal(ctx, id); err != nil || is {
		return nil, cmp.Or(err, r.noDocument(id))
	}
	return nil, r.incomplete(torn)
}
