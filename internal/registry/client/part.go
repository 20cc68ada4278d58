package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/dogestry/dogestry/internal/remote"
)

var (
	_ remote.Parts = (*Repository)(nil)
	_ remote.Parts = (*Registry)(nil)
)

// errNoRanges says that the registry, or the storage that it redirects to, answers with
// the whole blob when it is asked for a part.
var errNoRanges = fmt.Errorf("the registry gives no parts of blobs: %w", errors.ErrUnsupported)

// OpenPart implements remote.Parts, of tars that lie in a blob compressed by zstd: others
// have no index. The bytes are the blob's. A read that breaks off goes on from there.
func (p *Repository) OpenPart(ctx context.Context, layer remote.Layer, offset, n int64) (io.ReadCloser, error) {
	if err := p.check(ctx); err != nil {
		return nil, err
	}
	switch {
	case !p.inZstd(layer):
		return nil, fmt.Errorf("layer %s is not in a blob that has an index: %w", layer.Digest.Short(), errors.ErrUnsupported)
	case p.registry.noRanges.Load():
		return nil, errNoRanges
	}
	until := offset + n
	if layer.Stored >= 0 {
		until = min(until, layer.Stored)
	}
	if offset < 0 || n < 0 || offset >= until {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	d := &download{repository: p, id: layer.Packed, at: offset, size: until, part: true}
	d.ctx, d.end = context.WithCancel(ctx)
	r := &partReader{d, layer}
	if err := d.open(); err != nil {
		err = r.failure(err)
		d.end()
		return nil, err
	}
	return r, nil
}

// inZstd reports whether a layer lies in a blob of zstd, as far as is known.
func (p *Repository) inZstd(layer remote.Layer) bool {
	if layer.Packed.IsZero() {
		return false
	}
	for _, in := range p.candidates(layer.Digest) {
		if in.Digest == layer.Packed {
			return strings.HasSuffix(in.Media, "zstd")
		}
	}
	return false
}

// partReader is a part of a blob.
type partReader struct {
	*download
	layer remote.Layer
}

func (r *partReader) Read(b []byte) (int, error) {
	n, err := r.download.Read(b)
	if err != nil && err != io.EOF {
		err = r.failure(err)
	}
	return n, err
}

func (r *partReader) failure(err error) error {
	p := r.repository
	switch {
	case errors.Is(err, errNoRanges):
		p.registry.noRanges.Store(true)
		return err
	case isStatus(err, http.StatusNotFound): // since Look
		return p.missing("layer", r.layer.Digest)
	}
	return p.failure(r.ctx, err, "cannot read a part of layer %s of %s", r.layer.Digest.Short(), p.where())
}

// OpenPart implements remote.Parts, in the repository where the layer was named.
func (r *Registry) OpenPart(ctx context.Context, layer remote.Layer, offset, n int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if in := r.home(layer.Digest); in != nil {
		return in.OpenPart(ctx, layer, offset, n)
	}
	return nil, r.missing("layer", layer.Digest, r.o.Name)
}
