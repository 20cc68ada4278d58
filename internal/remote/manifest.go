package remote

import (
	"context"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// ManifestOf returns the manifest of an image that is known by its config: the same
// bytes from every remote (docs/format.md, "The synthesised manifest"). It writes
// nothing. NotFound and Damaged faults are those of the source; what is no config
// is an error.
func ManifestOf(ctx context.Context, from Source, config image.ID) ([]byte, error) {
	if m, ok := from.(Manifests); ok {
		return m.ManifestOf(ctx, config)
	}
	doc, err := from.Document(ctx, config)
	if err != nil {
		return nil, err
	}
	return MakeManifest(ctx, from, doc)
}

// measured bounds the layers that are read at once to know their sizes.
const measured = 4

// MakeManifest makes the manifest of a config from the sizes that the source has its
// layers in. Those whose size it does not know it reads.
func MakeManifest(ctx context.Context, from Source, config []byte) ([]byte, error) {
	c, err := image.ParseConfig(config)
	if err != nil {
		return nil, fault.Wrap(fault.Other, err, "%s has no manifest that follows from it", image.DigestOf(config).Short())
	}
	there, err := Layers(ctx, from, image.Distinct(c.DiffIDs))
	if err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(measured)
	for i, l := range there {
		if l.Size < 0 {
			g.Go(func() (err error) {
				there[i].Size, err = sizeOf(gctx, from, l)
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return image.SynthesizeManifest(config, Ordered(c.DiffIDs, there)), nil
}

// Ordered returns the layers of an image, bottom first, with the sizes that they have there.
func Ordered(diffIDs []image.DiffID, there []Layer) []image.Descriptor {
	size := make(map[image.DiffID]int64, len(there))
	for _, l := range there {
		size[l.Digest] = l.Size
	}
	layers := make([]image.Descriptor, len(diffIDs))
	for i, d := range diffIDs {
		layers[i] = image.Descriptor{Digest: d, Size: size[d]}
	}
	return layers
}

// sizeOf reads a layer to its end.
func sizeOf(ctx context.Context, from Source, layer Layer) (int64, error) {
	r, err := from.Open(ctx, layer)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.Copy(io.Discard, r)
}
