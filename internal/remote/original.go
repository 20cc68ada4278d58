package remote

import (
	"context"
	"errors"
	"io"

	"github.com/dogestry/dogestry/internal/image"
)

// ErrOriginal is wrapped where an entry of format 1.0 was asked for as a document.
var ErrOriginal = errors.New("it was written by the original dogestry (format 1.0)")

// Original is an entry of format 1.0 (docs/format.md, "Entries of format 1.0").
// Its ID is random: nothing proves any of it.
type Original struct {
	ID   image.Digest
	JSON []byte // at most image.MaxDocument

	// Layer has the entry's own ID for a digest, a Size of -1, and no Object where
	// no layer is there.
	Layer Layer
}

// Originals is a remote that may have images of format 1.0. Its methods are safe
// for concurrent use.
type Originals interface {
	// Original reads an entry of format 1.0, without its layer. A Damaged fault says
	// that it is missing, or that it is no such entry.
	Original(ctx context.Context, id image.Digest) (Original, error)

	// OpenOriginal opens the decoded bytes of a layer that Original found. They are
	// not verified: nothing proves them. What cannot be decoded is a Damaged fault of
	// Read. The caller closes the reader, also to stop early.
	OpenOriginal(ctx context.Context, layer Layer) (io.ReadCloser, error)
}

// Mover is a Target that can move a tag only while it names what the caller knows.
type Mover interface {
	// MoveTag is Tag for a tag that names from. Where it names something else by now,
	// or is gone, it stays so, and the error is a Refused fault; where it names to
	// already, that is no error. Of concurrent callers one moves it, where the store can
	// compare and swap; else the tag is looked at once more just before.
	MoveTag(ctx context.Context, ref image.Reference, from, to image.ID) error
}
