package repo

import (
	"context"
	"errors"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
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
	if r.isOriginal(ctx, id) {
		return nil, fault.Wrap(fault.Other, errOriginal{}, "image %s in %s was written by the original dogestry (format 1.0)", id.Short(), r.name)
	}
	return nil, r.incomplete(torn)
}

// errOriginal says that an image is sound and of no use here.
type errOriginal struct{}

func (errOriginal) Error() string { return "this version does not read it" }

func (errOriginal) Is(target error) bool { return target == errors.ErrUnsupported }

// isOriginal reports whether an entry is one of the original dogestry's.
func (r *Repo) isOriginal(ctx context.Context, id image.Digest) bool {
	version, err := r.small(ctx, entryKey(id, entryVersion))
	return err == nil && strings.TrimSpace(string(version)) == "1.0"
}
