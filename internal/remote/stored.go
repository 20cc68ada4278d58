package remote

import (
	"context"
	"errors"
	"io"

	"github.com/dogestry/dogestry/internal/image"
)

// Stored is a layer as a remote keeps it, encoded or not, on its way to another
// that is to keep it in the same bytes.
type Stored struct {
	// File tells how the bytes are encoded: the name that the portable repository
	// format (docs/format.md) has for the file of a layer that is stored so.
	File string

	// Blob is set where File is a blob that has the layer compressed in it: the
	// digest of that blob. It is zero where the bytes are stored under the digest
	// that the layer was asked for by.
	Blob image.Digest

	Size int64 // of Body, in bytes, as Look has found it
	Body io.ReadCloser
}

// StoredSource is a Source that can give layers as it keeps them.
type StoredSource interface {
	// OpenStored opens a layer that Look found. The bytes are not verified: who
	// takes them proves them. What fails while they are read is a fault that
	// names the layer; ErrReplaced where only the object was replaced, and the
	// layer can be looked up and opened again. The caller closes Body, also to stop early.
	OpenStored(ctx context.Context, layer Layer) (Stored, error)

	// Damage returns the Damaged fault of a layer whose bytes turned out to be
	// wrong, cause saying how.
	Damage(layer Layer, cause error) error
}

// StoredTarget is a Target that can keep layers as another remote has kept them.
type StoredTarget interface {
	// PutStored is PutLayer of a layer as another remote has stored it: layer.Digest
	// and layer.Size are those of the decoded bytes. It decodes what passes, in
	// bounded memory, and publishes nothing where it is not what they say; its
	// error is then a *StoredError. It refuses with errors.ErrUnsupported, before
	// it has read anything, what it would not keep so. It does not close Body.
	PutStored(ctx context.Context, layer image.Descriptor, stored Stored) (Layer, error)
}

// StoredError says that bytes which were stored as a layer do not decode to it.
type StoredError struct{ Cause error }

func (e *StoredError) Error() string { return e.Cause.Error() }

// Unwrap returns the cause.
func (e *StoredError) Unwrap() error { return e.Cause }

// ErrReplaced is wrapped where an object was replaced while it was read.
var ErrReplaced = errors.New("it was replaced while it was read")
