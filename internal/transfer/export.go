package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Shipment is what went through a bundle, or would.
type Shipment struct {
	Images []Shipped
	Layers []LayerResult // of all images, each once
}

// Shipped is an image that went through a bundle.
type Shipped struct {
	Image image.Reference `json:"image"`
	ID    image.ID        `json:"id"`
}

// ExportPlan is what a bundle is to hold.
type ExportPlan struct {
	Bundle *remote.Bundle

	// There are the layers that the images need, as they are asked for, also those
	// that the bundle leaves out.
	There map[image.Digest]remote.Layer

	images []CopyImage
	ids    map[image.Reference]image.ID // what they are, whatever their tags come to name
}

// Since says which of the layers the reader of a bundle has already. They are left out.
type Since func(ctx context.Context, layers []image.Digest) (map[image.Digest]bool, error)

// SinceRemote is that for what another remote has.
func SinceRemote(base remote.Source) Since {
	return func(ctx context.Context, layers []image.Digest) (map[image.Digest]bool, error) {
		found, err := base.Look(ctx, remote.Closure{Layers: layers}, nil)
		if err != nil {
			return nil, err
		}
		has := make(map[image.Digest]bool, len(found.Layers))
		for id := range found.Layers {
			has[id] = true
		}
		return has, nil
	}
}

// SinceBundle is that for what came with another bundle, or by a list of one.
func SinceBundle(b *remote.Bundle) Since {
	return func(context.Context, []image.Digest) (map[image.Digest]bool, error) { return b.Has(), nil }
}

// wanted is what one image of a bundle needs.
type wanted struct {
	id        image.ID
	documents []image.Digest
	layers    []image.Digest                    // as its documents name them
	packed    map[image.DiffID]image.Descriptor // which of them are what, compressed
}

// PlanExport finds out what a bundle of these images is to hold: all of their
// documents, and the layers that since, which may be nil, does not leave out. An image that
// the source has not whole is a failure. It reads no layer.
func PlanExport(ctx context.Context, from remote.Source, images []CopyImage, since Since, o CopyOptions) (*ExportPlan, error) {
	o.Options = o.withDefaults()
	needs := make([]wanted, len(images))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(imagesAtOnce)
	for i, img := range images {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() (err error) {
			needs[i], err = want(gctx, &copier{from: from, o: o}, img)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := &ExportPlan{Bundle: &remote.Bundle{Version: remote.BundleVersion}, images: images, ids: map[image.Reference]image.ID{}}
	for i, img := range images {
		p.Bundle.Tags = append(p.Bundle.Tags, remote.BundleTag{Image: img.Target, ID: needs[i].id})
		p.ids[img.Source] = needs[i].id
		p.Bundle.Documents = append(p.Bundle.Documents, needs[i].documents...)
	}
	p.Bundle.Documents = image.Distinct(p.Bundle.Documents)
	return p, p.addLayers(ctx, from, images, needs, since)
}

// want reads what an image is made of.
func want(ctx context.Context, c *copier, img CopyImage) (wanted, error) {
	p := c.copying(img)
	if err := p.find(ctx); err != nil {
		return wanted{}, err
	}
	if err := p.survey(ctx); err != nil {
		return wanted{}, err
	}
	ids, _ := p.tree.Documents()
	return wanted{p.id, ids, p.order, p.packed}, nil
}

// addLayers looks the layers of all images up, and sorts them: into the bundle, or
// left out.
func (p *ExportPlan) addLayers(ctx context.Context, from remote.Source, images []CopyImage, needs []wanted, since Since) error {
	var named, all []image.Digest // as documents name them; and the tars in them
	tars := map[image.Digest][]image.DiffID{}
	for _, n := range needs {
		named = append(named, n.layers...)
		for id, d := range n.packed {
			tars[d.Digest] = append(tars[d.Digest], id)
		}
	}
	named = image.Distinct(named)
	all = slices.Clone(named)
	for _, id := range named {
		all = append(all, tars[id]...)
	}
	all = image.Distinct(all)
	found, err := from.Look(ctx, remote.Closure{Layers: all}, nil)
	if err != nil {
		return err
	}
	for i, n := range needs {
		for _, id := range n.layers {
			if torn := found.Torn[id]; torn != nil {
				return fmt.Errorf("%s: %w", images[i].Source, torn)
			}
		}
	}
	p.There = found.Layers
	has := map[image.Digest]bool{}
	if since != nil {
		if has, err = since(ctx, all); err != nil {
			return err
		}
	}
	at := map[image.Digest]int{} // in Bundle.Layers
	leftOut := map[image.Digest]bool{}
	for _, id := range named {
		leftOut[id] = !p.addLayer(at, found.Layers[id], tars[id], has)
	}
	within := p.Bundle.Has()
	for _, id := range all {
		if has[id] && (leftOut[id] || !within[id]) { // a tar may be needed before the blob comes that has it in it, too
			p.Bundle.Without = append(p.Bundle.Without, id)
		}
	}
	return ctx.Err()
}

// addLayer adds a layer to the bundle, unless that leaves it out: it reports which.
func (p *ExportPlan) addLayer(at map[image.Digest]int, l remote.Layer, tars []image.DiffID, has map[image.Digest]bool) bool {
	in := remote.BundleLayer{ID: l.Digest, Size: l.Size, Stored: l.Stored, Tars: image.Distinct(tars)}
	if !l.Packed.IsZero() { // it is in a blob, and travels as that
		in = remote.BundleLayer{ID: l.Packed, Size: l.Stored, Stored: l.Stored, Tars: []image.DiffID{l.Digest}}
	}
	if has[l.Digest] && !slices.ContainsFunc(tars, func(id image.DiffID) bool { return !has[id] }) {
		return false
	}
	if i, there := at[in.ID]; there {
		p.Bundle.Layers[i].Tars = image.Distinct(append(p.Bundle.Layers[i].Tars, in.Tars...))
		return true
	}
	at[in.ID] = len(p.Bundle.Layers)
	p.Bundle.Layers = append(p.Bundle.Layers, in)
	return true
}

// Shipment is what the plan comes to.
func (p *ExportPlan) Shipment() Shipment {
	s := Shipment{Images: []Shipped{}, Layers: []LayerResult{}}
	for _, t := range p.Bundle.Tags {
		s.Images = append(s.Images, Shipped(t))
	}
	for _, l := range p.Bundle.Layers {
		s.Layers = append(s.Layers, LayerResult{Digest: l.ID, Size: l.Size, Stored: l.Stored, Moved: true})
	}
	packed := map[image.Digest]bool{} // a tar is left out with what it is in
	for _, id := range p.Bundle.Without {
		if blob := p.There[id].Packed; !blob.IsZero() {
			packed[id] = slices.Contains(p.Bundle.Without, blob)
		}
	}
	for _, id := range p.Bundle.Without {
		if l := p.There[id]; !packed[id] {
			s.Layers = append(s.Layers, LayerResult{Digest: id, Size: l.Size, Stored: l.Stored})
		}
	}
	return s
}

// Export writes what was planned into a bundle, and its end. The bytes of layers
// are proved on the way. After a failure what was written is no bundle.
func Export(ctx context.Context, from remote.Source, to remote.BundleTarget, p *ExportPlan, o CopyOptions) error {
	o.All, o.Delete, o.IfAbsent, o.DryRun, o.pinned = true, false, false, false, p.ids
	done, err := Copy(ctx, from, to, p.images, o)
	for _, f := range done.Failed { // of several that failed, the one that did so by itself
		if damage := new(remote.Damage); errors.As(f.Err, &damage) {
			return f.Err
		}
	}
	switch {
	case len(done.Failed) > 0:
		return done.Failed[0].Err
	case err != nil:
		return err
	case len(done.Images) < len(p.images):
		return fault.New(fault.Other, "an image was removed from %s while it was exported", o.From).Advise("Run the same command again.")
	}
	return to.Close()
}
