package catalog

import (
	"context"
	"errors"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/remote"
)

// oldFormat is the Format of an image that the original dogestry wrote.
const oldFormat = "1.0"

// oldImage is an image of format 1.0, as far as it is known without reading layers.
// Those are called by the IDs of their entries.
type oldImage struct {
	*original.Image // nil in a list

	created  *time.Time
	platform image.Platform
	config   ocispec.ImageConfig
	layers   []remote.Layer
}

// originalsOf returns a reader of the images of format 1.0 that source may have, nil
// where it is no such remote.
func originalsOf(source remote.Source) *original.Reader {
	if from, ok := source.(remote.Originals); ok {
		return &original.Reader{From: from}
	}
	return nil
}

// readOld reads an image of format 1.0, if that is what a tag names: found is what
// it was told to be, and stays the error where it is none.
func readOld(ctx context.Context, source remote.Source, reader *original.Reader, id image.ID, found error) (*oldImage, error) {
	if reader == nil || !errors.Is(found, remote.ErrOriginal) {
		return nil, found
	}
	is, err := original.IsNamed(ctx, source, id)
	switch {
	case err != nil:
		return nil, err
	case !is: // a document names one
		return nil, found
	}
	old := &oldImage{}
	if old.Image, err = reader.Read(ctx, id); err != nil {
		return nil, err
	}
	if old.layers, err = old.Layers(); err != nil {
		return nil, err
	}
	old.created = old.Created()
	old.platform, old.config, err = old.Runs()
	return old, err
}

// fillOld completes the row of an image of format 1.0.
func (l *listing) fillOld(row *Image, old *oldImage) {
	row.Format, row.Created, row.Platform, row.Size = oldFormat, old.created, strings.Join(told(old.platform), ""), -1
	for _, layer := range old.layers {
		row.layers = append(row.layers, layer.Digest)
		row.Stored += layer.Stored
		l.layers[layer.Digest] = layer
	}
}

// inspectOld is Inspect of an image of format 1.0.
func (c *Catalog) inspectOld(ctx context.Context, ref image.Reference, id image.ID, found error, others func() ([]Image, error)) (*Details, error) {
	old, err := readOld(ctx, c.source, originalsOf(c.source), id, found)
	if err != nil {
		return nil, err
	}
	row := Image{Reference: ref, ID: id}
	(&listing{layers: map[image.Digest]remote.Layer{}}).fillOld(&row, old)
	all, err := others()
	if err != nil {
		return nil, err
	}
	shared := sharing(row, all)
	d := &Details{Image: row, Layers: []Layer{}, History: old.History(), Config: old.config}
	for _, l := range old.layers {
		d.Layers = append(d.Layers, Layer{Layer: l, Shared: shared[l.Digest]})
	}
	return d, nil
}
