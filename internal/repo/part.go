package repo

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

var _ remote.Parts = (*Repo)(nil)

// OpenPart implements remote.Parts, of layers that are encoded by this repository's writers, and of those that lie
// in a blob, which may be of zstd with an index.
func (r *Repo) OpenPart(ctx context.Context, layer remote.Layer, offset, n int64) (io.ReadCloser, error) {
	id, file, err := r.layerObject(layer)
	if err != nil {
		return nil, err
	}
	c, _ := codecOf(file)
	encoded, packed := c != codec.None && id == layer.Digest, file == entryBlob && id != layer.Digest
	if !encoded && !packed {
		return nil, fmt.Errorf("%s is not encoded: %w", layer.Object, errors.ErrUnsupported)
	}
	body, err := storage.GetExact(ctx, r.store, layer.Object, offset, n)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, err
	}
	if err := r.unopened(layer, err); err != nil {
		return nil, err
	}
	return &storedReader{body, r, layer}, nil
}
