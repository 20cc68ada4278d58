package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Unpacker is a Loader that takes layers which are compressed, and proves what is
// in them against the config.
type Unpacker interface {
	// Unpacks reports whether it does so with what is compressed by "gzip" or "zstd".
	Unpacks(compression string) bool
}

// pack finds out what is sent of those layers of which the remote does not know how
// large they are before they are read, such as those of a registry: an archive says so
// of each before its bytes. Where the engine takes it, that is what they are compressed
// in, as it is. Else they are read once more than others. Where one is put together, its
// index says how large it is. It may be called again, for more of them.
func (p *pull) pack(ctx context.Context, send []image.Digest) error {
	as, err := p.tree.Packed()
	if err != nil {
		return err
	}
	engine, unpacks := p.to.(Unpacker)
	for _, d := range send {
		l := p.layers[d]
		if _, done := p.packed[d]; done || l.Size >= 0 {
			continue
		}
		delete(p.indexed, d)
		if size, ok := p.deltas.size(ctx, l); ok {
			if p.indexed == nil {
				p.indexed = map[image.DiffID]int64{}
			}
			p.indexed[d] = size
			continue
		}
		in, known := as[d]
		if unpacks && known && in.Digest == l.Packed && engine.Unpacks(compressionOf(in)) {
			if p.packed == nil {
				p.packed = map[image.DiffID]image.Descriptor{}
			}
			p.packed[d] = in
			continue
		}
		if l.Size, err = p.o.Measure(ctx, d, func() (int64, error) { return p.measure(ctx, l) }); err != nil {
			return fmt.Errorf("%s: %w", p.image.Source, err)
		}
		p.layers[d] = l
	}
	return nil
}

// compressionOf returns what a layer is compressed by.
func compressionOf(d image.Descriptor) string {
	for _, c := range []string{"gzip", "zstd"} {
		if strings.HasSuffix(d.MediaType, "+"+c) || strings.HasSuffix(d.MediaType, "."+c) {
			return c
		}
	}
	return ""
}

// measure reads a layer to know how large it is.
func (p *pull) measure(ctx context.Context, l remote.Layer) (int64, error) {
	p.o.Progress.Status("measuring layer " + l.Digest.Short())
	defer p.o.Progress.Status("")
	r, err := p.from.Open(ctx, l)
	if err != nil {
		return 0, err
	}
	size, err := io.CopyBuffer(onlyWriter{io.Discard}, r, make([]byte, 256<<10))
	if err = errors.Join(err, r.Close()); err != nil {
		return 0, err
	}
	return size, ctx.Err()
}

// onlyWriter hides what else a writer can do.
type onlyWriter struct{ io.Writer }

// sent is the layer that is opened for one of the image: itself, as large as its index
// says where only that does, or what it is compressed in.
func (p *pull) sent(d image.Digest) remote.Layer {
	if in, ok := p.packed[d]; ok {
		return remote.Layer{Digest: in.Digest, Size: in.Size, Stored: in.Size, Object: p.layers[d].Object}
	}
	l := p.layers[d]
	if size, ok := p.indexed[d]; ok {
		l.Size = size
	}
	return l
}
