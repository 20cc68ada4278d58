// Package catalog says what a remote holds: which tags, which images behind
// them, what they take and share.
package catalog

import (
	"context"
	"errors"
	"log/slog"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Image is what a tag names.
type Image struct {
	Reference image.Reference `json:"reference"`
	ID        image.ID        `json:"id"`
	Created   *time.Time      `json:"created"`          // null where the image does not say
	Platform  string          `json:"platform"`         // of an index those that the remote has, joined by ", "
	Size      int64           `json:"size"`             // bytes of its layers, decoded; -1 where it is not known before they are read
	Stored    int64           `json:"stored"`           // bytes that its layers take in the remote, shared ones included
	Format    string          `json:"format,omitempty"` // "1.0" of one by the original dogestry, whose ID is random
	Damage    string          `json:"damage,omitempty"`

	layers []image.Digest // each once
}

// Catalog reads a remote. It is safe for concurrent use.
type Catalog struct {
	source remote.Source
	cache  rememberer // nil where nothing is remembered
}

// rememberer keeps what lists remember, from one to the next.
type rememberer interface {
	load() memory // nobody changes what it returns
	store(memory)
}

// New returns a catalog of source that remembers nothing.
func New(source remote.Source) *Catalog {
	return &Catalog{source: source}
}

// Cached returns a catalog of source that remembers, in a file below dir, what
// List has read, so that the next List asks only for what has changed. An empty
// dir is New. Name is one name for one remote, however it was written; it is
// hashed, not stored. A cache that cannot be read or written costs time and is
// told in log alone.
func Cached(source remote.Source, dir, name string, log *slog.Logger) *Catalog {
	c := New(source)
	if dir != "" {
		c.cache = openCache(dir, name, log)
	}
	return c
}

// Recent returns a catalog of source that remembers in memory what it has read, a
// bounded number of images: for a process that is asked again and again.
func Recent(source remote.Source) *Catalog {
	c := New(source)
	c.cache = &recent{}
	return c
}

// Details is all about one image.
type Details struct {
	Image
	Layers  []Layer             `json:"layers"` // bottom first, as often as they occur; of an index each once
	Index   []Platform          `json:"index,omitempty"`
	History []ocispec.History   `json:"history"`
	Config  ocispec.ImageConfig `json:"config"`
}

// Platform is what an index names.
type Platform struct {
	Digest   image.Digest `json:"digest"`
	Platform string       `json:"platform"`
	Attests  image.Digest `json:"attests,omitzero"` // of an attestation: the manifest that it is about
	Held     bool         `json:"held"`             // the remote has it
}

// Layer is a layer of an image, and who else has it.
type Layer struct {
	remote.Layer
	Shared []image.Reference `json:"shared"` // other tags whose image has it
}

// Inspect returns all about the image that ref names. It reads every tag of
// the remote, to tell what is shared; of a registry it tells nothing of that.
func (c *Catalog) Inspect(ctx context.Context, ref image.Reference) (*Details, error) {
	return c.inspect(ctx, ref, func() ([]Image, error) {
		if _, apart := c.source.(remote.Repositories); apart {
			return nil, nil // a registry shares blobs, and tells nobody; to read all of it takes too long
		}
		all, err := c.List(ctx, "")
		if errors.Is(err, errors.ErrUnsupported) {
			return nil, nil // a web server may not tell what it has
		}
		return all, err
	})
}

// InspectAmong is Inspect that looks only at these tags to tell what is shared.
func (c *Catalog) InspectAmong(ctx context.Context, ref image.Reference, tags []remote.Tag) (*Details, error) {
	return c.inspect(ctx, ref, func() ([]Image, error) { return c.Some(ctx, tags) })
}

func (c *Catalog) inspect(ctx context.Context, ref image.Reference, others func() ([]Image, error)) (*Details, error) {
	id, err := c.source.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	tree, err := readTree(ctx, c.source, id)
	if errors.Is(err, remote.ErrOriginal) {
		return c.inspectOld(ctx, ref, id, err, others)
	}
	if err != nil {
		return nil, err
	}
	layers, err := remote.Layers(ctx, c.source, layersOf(tree))
	if err != nil {
		return nil, err
	}
	s := summarize(tree)
	row := Image{Reference: ref, ID: id, Created: s.Created, Platform: s.Platform, layers: s.Layers}
	all, err := others()
	if err != nil {
		return nil, err
	}
	shared := sharing(row, all)
	d := &Details{Layers: []Layer{}, Index: index(tree)}
	if config := firstImage(tree); config != nil {
		d.History, d.Config = config.History, config.Run
	}
	counted := map[image.Digest]bool{}
	for _, l := range layers {
		d.Layers = append(d.Layers, Layer{Layer: l, Shared: shared[l.Digest]})
		if !counted[l.Digest] {
			row.Size += l.Size
			row.Stored += l.Stored
		}
		counted[l.Digest] = true
	}
	d.Image = row
	return d, nil
}

// sharing returns for each layer of row those of other tags that have it.
func sharing(row Image, all []Image) map[image.Digest][]image.Reference {
	shared := map[image.Digest][]image.Reference{}
	for _, d := range row.layers {
		shared[d] = []image.Reference{}
	}
	for _, other := range all {
		if other.Damage != "" || other.Reference == row.Reference {
			continue
		}
		for _, d := range other.layers {
			if refs, ok := shared[d]; ok {
				shared[d] = append(refs, other.Reference)
			}
		}
	}
	return shared
}

// lasting reports whether err is about the image and not about the way to it.
func lasting(err error) bool { return fault.Is(err, fault.Damaged) }
