package remote

import (
	"context"
	"io"

	"github.com/dogestry/dogestry/internal/image"
)

// InCache is the Layer.Source of layers that a Keeper has itself: reading them, also parts of them, costs the remote
// nothing.
const InCache = "cache"

// Keeper is a Source, and a Parts, that keeps layers on this machine. They may go at any time.
type Keeper interface {
	// Kept returns layers that it keeps encoded, and blobs of zstd, as Look finds them, with InCache as their Source:
	// those that were of use last come first, and behind the others those of without. There are at most 64.
	Kept(ctx context.Context, without []image.Digest) ([]Layer, error)

	// Use notes that a layer of Kept is of use, and keeps it until done is called.
	Use(ctx context.Context, layer Layer) (done func())

	// OpenMade is Open of a layer that is not read of the remote: where it is not kept yet, it becomes so by what open
	// opens: its decoded bytes, which are verified. All who open it so at once share that, and read it as it comes; the
	// context that open gets ends when nobody reads any more. An error of open is OpenMade's. It refuses with
	// errors.ErrUnsupported what it cannot keep. The caller closes the reader.
	OpenMade(ctx context.Context, layer Layer, open func(ctx context.Context) (io.ReadCloser, error)) (io.ReadCloser, error)
}
