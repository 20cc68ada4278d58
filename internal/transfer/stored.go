package transfer

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// sendStored stores what is missing from the engine's own store, several layers
// at once. What cannot be read there, or is not what its digest says, stays in
// p.missing: the engine itself may do better.
func (p *push) sendStored(ctx context.Context, stored *engine.Stored) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(p.o.Parallel)
	var mu sync.Mutex
	var unreadable error
	var left []image.DiffID
	for _, d := range p.missing.Layers {
		if gctx.Err() != nil {
			break
		}
		result := p.layers[d]
		g.Go(func() error {
			why, err := p.putStored(gctx, stored, result)
			if why != nil {
				mu.Lock()
				defer mu.Unlock()
				left, unreadable = append(left, d), why
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	p.missing.Layers = left
	if p.blobs == nil && len(left) == 0 && len(p.missing.Documents) > 0 {
		var config []byte
		if config, unreadable = stored.Document(p.img.ID); unreadable == nil && image.DigestOf(config) != p.img.ID {
			unreadable = errors.New("its config is not the one that its name says")
		}
		if unreadable == nil {
			if err := p.to.PutDocument(ctx, config); err != nil {
				return err
			}
			p.missing = remote.Closure{}
		}
	}
	if unreadable == nil {
		return nil
	}
	if stored.Required {
		return required(unreadable, p.img)
	}
	p.o.Log.Info("the engine's own store does not have all of it, asking for an export", "image", p.img, "why", unreadable)
	return nil
}

// required is the failure where there is to be no export instead.
func required(why error, img engine.Image) error {
	return fault.Wrap(fault.Damaged, why, "cannot read %s in the engine's own store", img).
		Advise("Leave --engine-store require out, and the engine is asked for an export.")
}

// putStored stores one layer. unreadable is why the engine's store could not
// give it; err is the remote's.
func (p *push) putStored(ctx context.Context, stored *engine.Stored, result *LayerResult) (unreadable, err error) {
	d := result.Digest
	blob, packed := p.blobs.blobOf(d)
	opened, size, err := stored.Layer(ctx, blob)
	if err != nil {
		return err, ctx.Err()
	}
	defer opened.Close()
	bar := p.o.Progress.Layer(d.Short(), size)
	source := watch(opened, bar.Add)
	var body io.Reader = source
	if packed {
		tar := codec.Inflate(source)
		defer tar.Close()
		body, size = tar, -1
	}
	layer, err := p.to.PutLayer(ctx, image.Descriptor{MediaType: p.blobs.media(d), Digest: d, Size: size}, body)
	if err == nil {
		result.moved(layer)
		bar.Done()
		return nil, nil
	}
	bar.Fail()
	var wrong *image.MismatchError
	switch {
	case ctx.Err() != nil:
		return nil, err
	case source.Err() != nil:
		return source.Err(), nil
	case errors.As(err, &wrong):
		return wrong, nil
	case packed && errors.Is(err, codec.ErrDamaged):
		return err, nil
	}
	return nil, err
}

// moved notes that the layer has arrived.
func (r *LayerResult) moved(layer remote.Layer) {
	r.Size, r.Stored, r.Moved, r.diffID = layer.Size, layer.Stored, true, layer.Tar
}

// watched tells how much of a reader has been read, and remembers how it failed.
type watched struct {
	image.Watched
	progress func(int)
}

func watch(r io.Reader, progress func(int)) *watched {
	return &watched{Watched: image.Watched{R: r}, progress: progress}
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Watched.Read(b)
	w.progress(n)
	return n, err
}
