package transfer

import (
	"context"
	"errors"
	"io"
	"maps"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// flight is a layer on its way, for all images of a copy that need it.
type flight struct {
	digest image.Digest  // at the target
	done   chan struct{} // closed at its end; what follows is to be read then

	layer  remote.Layer // as the target has it
	stored bool         // it went in the bytes in which the source keeps it
	err    error
}

func (f *flight) ended() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// brings reports whether a flight that has ended tells what becomes of a layer
// of the target. Bytes that went as they are stored bring all that is in them, a blob and the
// layer that is compressed in it; else it is another layer's affair.
func (f *flight) brings(id image.Digest) bool {
	return f.digest == id || f.err == nil && f.stored
}

// objectOf is what two layers have in common that are the same bytes on their way:
// at the source, such as a blob and the layer that is compressed in it, unless one of
// them is stored anew.
func (c *copier) objectOf(l remote.Layer, as image.Descriptor) string {
	if l.Object == "" || c.unpacks(l, as) {
		return as.Digest.String()
	}
	return l.Object
}

// unpacks reports whether a layer is to be stored as others are, though the source has it compressed in a blob.
func (c *copier) unpacks(l remote.Layer, as image.Descriptor) bool {
	return as.Digest != l.Digest || c.o.Recompress && !l.Packed.IsZero()
}

// carry moves a layer, unless another image of this copy has moved it or is just
// moving it: then it waits for that, and own is false. What is there no more is
// moved again.
func (c *copier) carry(ctx context.Context, by way, l remote.Layer, as image.Descriptor, again bool) (moved remote.Layer, own bool, err error) {
	object := by.scope + c.objectOf(l, as)
	for {
		c.mu.Lock()
		f := c.flights[object]
		if f == nil || f.ended() && (again || fault.Interrupted(f.err)) {
			f = &flight{digest: as.Digest, done: make(chan struct{})}
			c.flights[object] = f
			c.mu.Unlock()
			f.layer, f.stored, f.err = c.moveLayer(ctx, by, l, as)
			close(f.done)
			return f.layer, true, f.err
		}
		c.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return remote.Layer{}, false, ctx.Err()
		}
		switch {
		case ctx.Err() != nil:
			return remote.Layer{}, false, ctx.Err()
		case fault.Interrupted(f.err): // the other image's copy has failed, and so ended this
		case f.brings(as.Digest):
			return f.layer, false, f.err
		default:
			object = by.scope + as.Digest.String()
		}
	}
}

// way is between what a layer moves.
type way struct {
	from  remote.Source
	to    remote.Target
	scope string // empty where all images of the target share their layers; else the repository
}

func (p *copying) way() way {
	w := way{from: p.from, to: p.to}
	if _, apart := p.copier.to.(remote.Repositories); apart {
		w.scope = p.image.Target.Repository + "\n"
	}
	return w
}

// forgetFailed lets layers that could not be moved be tried again, for an image whose
// tag has moved: what failed may have been removed, and pushed again with what it names
// now. Else a failure is kept: what is damaged is not read for every image that needs it.
func (c *copier) forgetFailed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.flights, func(_ string, f *flight) bool { return f.ended() && f.err != nil })
}

// rereadings bounds how often one layer is begun again because it was replaced at
// the source while it was read.
const rereadings = 3

// moveLayer moves a layer once one of the places for layers on their way is free.
func (c *copier) moveLayer(ctx context.Context, by way, l remote.Layer, as image.Descriptor) (moved remote.Layer, stored bool, err error) {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return remote.Layer{}, false, ctx.Err()
	}
	defer func() { <-c.slots }()
	bar := c.o.Progress.Layer(as.Digest.Short(), l.Stored)
	for attempt := 0; ; attempt++ {
		moved, stored, err = c.moveOnce(ctx, by, l, as, bar)
		if err == nil {
			bar.Done()
			return moved, stored, nil
		}
		if errors.Is(err, remote.ErrReplaced) && attempt < rereadings && ctx.Err() == nil {
			c.o.Log.Debug("layer was replaced while it was read, reading it again", "layer", l.Digest)
			var found []remote.Layer
			if found, err = remote.Layers(ctx, by.from, []image.Digest{l.Digest}); err == nil {
				l = found[0]
				if as.Digest == l.Digest {
					as.Size = l.Size
				}
				continue
			}
		}
		bar.Fail()
		return remote.Layer{}, false, err
	}
}

// moveOnce moves a layer in the bytes in which the source keeps it, or, where
// that is not possible, decoded: as itself, or as the tar that is compressed in it.
func (c *copier) moveOnce(ctx context.Context, by way, l remote.Layer, as image.Descriptor, bar Bar) (moved remote.Layer, stored bool, err error) {
	source, gives := by.from.(remote.StoredSource)
	target, takes := by.to.(remote.StoredTarget)
	if gives && takes && !c.unpacks(l, as) {
		moved, err = moveStored(ctx, source, target, l, as, bar)
		if !errors.Is(err, errors.ErrUnsupported) {
			return moved, true, err
		}
		c.o.Log.Debug("layer is stored anew", "layer", l.Digest, "why", err)
	}
	opened, err := by.from.Open(ctx, l)
	if err != nil {
		return remote.Layer{}, false, err
	}
	defer opened.Close()
	body := watch(opened, bar.Add)
	if as.Digest != l.Digest {
		moved, err = putUnpacked(ctx, by.to, l.Digest, as, body)
	} else {
		moved, err = by.to.PutLayer(ctx, as, body)
	}
	return moved, false, blame(ctx, body, err)
}

// moveStored moves a layer as it is stored.
func moveStored(ctx context.Context, from remote.StoredSource, to remote.StoredTarget, l remote.Layer, as image.Descriptor, bar Bar) (remote.Layer, error) {
	stored, err := from.OpenStored(ctx, l)
	if err != nil {
		return remote.Layer{}, err
	}
	defer stored.Body.Close()
	body := watch(stored.Body, bar.Add)
	stored.Body = struct {
		io.Reader
		io.Closer
	}{body, stored.Body}
	moved, err := to.PutStored(ctx, as, stored)
	var wrong *remote.StoredError
	if err = blame(ctx, body, err); errors.As(err, &wrong) {
		err = from.Damage(l, wrong.Cause)
	}
	return moved, err
}

// blame returns the true reason of a target's error: the end of ctx, or what the
// source failed with.
func blame(ctx context.Context, body *watched, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case body.Err() != nil:
		return body.Err()
	}
	return err
}

// present tells of a layer that the target has, once in a copy.
func (c *copier) present(l remote.Layer) {
	c.mu.Lock()
	told := c.told[l.Digest]
	c.told[l.Digest] = true
	c.mu.Unlock()
	if !told {
		c.o.Progress.Layer(l.Digest.Short(), l.Stored).Present()
	}
}
