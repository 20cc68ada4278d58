package remote

import (
	"context"
	"io"
)

// Parts is a Source that can give a part of a layer as it keeps it, without the rest: of
// layers with a chunk index (docs/format.md) so much is of use.
type Parts interface {
	// OpenPart opens n bytes, from offset on, of the object of a layer that Look found, as
	// they are stored; fewer where it ends before. They are not verified, and from one call
	// to the next the object may have been replaced by another that decodes to the same. It
	// refuses with errors.ErrUnsupported where parts are not to be had for less than the
	// whole, and layers that are kept in no file of their own. The caller closes the reader.
	OpenPart(ctx context.Context, layer Layer, offset, n int64) (io.ReadCloser, error)
}
