// Package delta puts a layer together out of what is at hand: contents that other layers have, whose tars can be
// read at any offset, and the rest by ranged reads of the stored layer.
package delta

import (
	"context"
	"io"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/image"
)

// Local is a layer that is at hand. What its index says of it is not believed: a chunk that is not there as it
// says is fetched.
type Local struct {
	Digest image.Digest
	Index  *chunk.Index
	Open   func(ctx context.Context) (Tar, error)
}

// Tar reads a layer's tar at any offset, its files' contents at least. It may be used by several goroutines at
// once, and fails where it has not all that is asked for. The caller closes it.
type Tar interface {
	io.ReaderAt
	io.Closer
}
