package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/docker/go-units"
	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// This file is what Options.Recompress makes of an image whose manifest names compressed layers: the image that its
// config tells alone, as a classic engine has it, whose layers a target stores as it likes to store tars
// (docs/decisions/0043-compressed-anew.md).

// unpacking says which blobs hold the layers, which are named by their diffIDs, of an image that is compressed anew.
// It is nil of an image that is not.
type unpacking map[image.DiffID]image.Digest

// recompress returns what is to be stored of an image, and where its layers are. It is the image as it is where nothing
// in it is compressed, or where it is something else than files in tars. packed is what tree.Packed returns.
func (o Options) recompress(name string, tree *image.Tree, packed map[image.DiffID]image.Descriptor) (*image.Tree, unpacking, error) {
	if !o.Recompress || len(packed) == 0 {
		return tree, nil, nil
	}
	one, err := onlyPlatform(name, tree)
	if err != nil {
		return nil, nil, err
	}
	if one.Kind != image.ManifestKind || one.Image() == nil {
		return tree, nil, nil
	}
	u := unpacking{}
	for i, l := range one.Manifest.Layers {
		tar, compressed := l.Tar()
		switch {
		case !tar:
			return tree, nil, nil
		case compressed:
			id := one.Image().DiffIDs[i]
			if other, packed := u.layer(l.Digest); packed && other != id {
				return nil, nil, fault.New(fault.Damaged, "layer %s of %s cannot hold both %s and %s, as its config says", l.Digest.Short(), name, other.Short(), id.Short()).
					Advise("No engine could unpack it: build the image again.")
			}
			u[id] = l.Digest
		}
	}
	if len(u) == 0 {
		return tree, nil, nil
	}
	return one.Children[0], u, nil
}

// sayKept tells of layers that are to be compressed anew, and which the target has compressed as they came: it keeps them.
func (o Options) sayKept(to remote.Target, r Result) {
	if _, stores := to.(remote.StoredTarget); !stores || !o.Recompress { // a registry has all of them compressed
		return
	}
	n, size := 0, int64(0)
	for _, l := range r.Layers {
		if l.packed {
			n, size = n+1, size+l.Stored
		}
	}
	if n > 0 {
		o.Progress.Note(fmt.Sprintf("%s: in the remote in gzip or zstd already, and left so: %s (pulls fetch that whole)", r.Image, layersOfSize(n, size)))
	}
}

// sayWhole tells who wants deltas wherever there are any of layers that are fetched whole because they are kept compressed.
func (p *pull) sayWhole(n int, size int64) {
	if _, stores := p.from.(remote.StoredSource); n == 0 || !stores || p.o.Delta != DeltaAlways {
		return
	}
	p.o.Progress.Note(fmt.Sprintf("%s: kept in gzip or zstd, and so fetched whole: %s (see --recompress of push and copy)", p.image.Source, layersOfSize(n, size)))
}

// layersOfSize says how many layers of how many bytes in all, for people.
func layersOfSize(n int, size int64) string {
	what := "1 layer"
	if n > 1 {
		what = fmt.Sprintf("%d layers", n)
	}
	return fmt.Sprintf("%s, %s", what, units.HumanSizeWithPrecision(float64(size), 3))
}

// onlyPlatform returns the one image of an index, where there is one, since a config is that of one platform.
func onlyPlatform(name string, tree *image.Tree) (*image.Tree, error) {
	if tree.Kind != image.IndexKind {
		return tree, nil
	}
	attests := map[image.Digest]bool{}
	for _, c := range tree.Index.Manifests {
		attests[c.Digest] = !c.Attests.IsZero()
	}
	one := tree
	for _, c := range tree.Children {
		switch {
		case attests[c.ID]:
		case one != tree:
			return nil, fault.New(fault.Usage, "%s is there for several platforms, and what is compressed anew is of one", name).
				Advise("Choose one with --platform, or store it as it is (--recompress=false).")
		default:
			one = c
		}
	}
	return one, nil
}

// blob returns what holds a layer: the layer itself, or the blob that it is compressed in.
func (u unpacking) blob(layer image.Digest) (id image.Digest, packed bool) {
	if blob, ok := u[layer]; ok {
		return blob, true
	}
	return layer, false
}

// layer returns what a blob holds: the layer that is compressed in it, or itself.
func (u unpacking) layer(blob image.Digest) (id image.Digest, packed bool) {
	for layer, b := range u {
		if b == blob {
			return layer, true
		}
	}
	return blob, false
}

// putUnpacked stores the layer that is compressed in a blob. What the reader of the blob fails with is for the caller to tell.
func putUnpacked(ctx context.Context, to remote.Target, id image.Digest, layer image.Descriptor, blob *watched) (remote.Layer, error) {
	tar := codec.Inflate(blob)
	defer tar.Close()
	stored, err := to.PutLayer(ctx, layer, tar)
	var wrong *image.MismatchError
	if !errors.Is(err, codec.ErrDamaged) && !errors.As(err, &wrong) {
		return stored, err
	}
	_ = tar.Close()
	_, _ = io.Copy(io.Discard, blob) // its end proves it: then it is as it was built, and else damaged where it lies
	return stored, fault.Wrap(fault.Damaged, err, "layer %s is not the %s that its config says", id.Short(), layer.Digest.Short()).
		Advise("No engine could unpack it: build the image again.")
}

// exportDocuments reads one export for the documents that are in it alone: which layers are to be stored, and what they
// are called, documents tell.
func (p *push) exportDocuments(ctx context.Context) error {
	docs := newDocuments()
	err := p.export(ctx, func(_ context.Context, _ *errgroup.Group, export *engine.Export) error {
		for {
			item, err := export.Next()
			if err == nil && item.Document {
				err = p.keep(docs, item)
			}
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	if err != nil {
		return err
	}
	return p.readFrom(ctx, docs)
}
