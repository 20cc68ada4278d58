package repo

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

var _ remote.Ranges = (*Repo)(nil)

// OpenRange implements remote.Ranges: of blobs, and of layers that are not encoded.
func (r *Repo) OpenRange(ctx context.Context, layer remote.Layer, offset, n int64) (io.ReadCloser, error) {
	id, file, err := r.layerObject(layer)
	if err != nil {
		return nil, err
	}
	if c, _ := codecOf(file); c != codec.None || id != layer.Digest {
		return nil, fmt.Errorf("%s has not the bytes of layer %s: %w", layer.Object, layer.Digest.Short(), errors.ErrUnsupported)
	}
	if offset < 0 {
		return nil, fault.New(fault.Other, "layer %s has no byte %d", layer.Digest.Short(), offset)
	}
	body, err := storage.Part(ctx, r.store, layer.Object, offset, n)
	if err := r.unopened(layer, err); err != nil {
		return nil, err
	}
	return &storedReader{body, r, layer}, nil
}
