package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/delta"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Comparison is what a host that has one image of a remote fetches for another, once it can read what it has
// (docs/deltas.md). Sizes are bytes.
type Comparison struct {
	From   image.Reference `json:"from"`
	FromID image.ID        `json:"fromID"`
	To     image.Reference `json:"to"`
	ToID   image.ID        `json:"toID"`

	Shared int               `json:"shared"` // layers that both have: they do not travel
	Layers []LayerComparison `json:"layers"` // those of To that From has not, bottom first
	Size   int64             `json:"size"`   // of these, decoded; -1 where that is not known
	Stored int64             `json:"stored"` // of these, as stored: what travels without chunk indexes
	Fetch  int64             `json:"fetch"`  // of these
}

// LayerComparison is what is fetched of one layer.
type LayerComparison struct {
	Digest image.Digest `json:"digest"`
	Size   int64        `json:"size"`
	Stored int64        `json:"stored"`
	Fetch  int64        `json:"fetch"` // its index, and those of other layers that it takes, included
	Local  int64        `json:"local"` // content that From has
	Whole  string       `json:"whole,omitempty"`

	// Files with content, how many of them have any that From has not, and, where they were asked for, their names.
	Files   int      `json:"files,omitempty"`
	Changed int      `json:"changed,omitempty"`
	Names   []string `json:"names,omitempty"`
}

// indexesAtOnce bounds the chunk indexes that Compare reads at once.
const indexesAtOnce = 4

// Compare reads the documents of two images and the chunk indexes of layers that they do not share. Of indexes those of
// o.Platform are compared, without one all that the remote has. Where names are asked for it may read more than a pull
// would.
func Compare(ctx context.Context, from remote.Source, a, b image.Reference, names bool, o Options) (*Comparison, error) {
	o = o.withDefaults()
	c := &Comparison{From: a, To: b, Layers: []LayerComparison{}}
	var old, new []remote.Layer
	var err error
	if c.FromID, old, err = layersOf(ctx, from, a, o); err != nil {
		return nil, err
	}
	if c.ToID, new, err = layersOf(ctx, from, b, o); err != nil {
		return nil, err
	}
	had := map[image.Digest]bool{}
	for _, l := range old {
		had[l.Digest] = true
	}
	all := len(new)
	new = slices.DeleteFunc(new, func(l remote.Layer) bool { return had[l.Digest] })
	c.Shared = all - len(new)
	known, err := readIndexes(ctx, from, append(slices.Clone(new), old...), o)
	if err != nil {
		return nil, err
	}
	for _, l := range new {
		layer, err := compareLayer(ctx, l, old, known, names)
		if err != nil {
			return nil, err
		}
		c.Layers = append(c.Layers, layer)
		c.Stored += layer.Stored
		c.Fetch += layer.Fetch
		if c.Size += layer.Size; layer.Size < 0 || c.Size < layer.Size {
			c.Size = -1
		}
	}
	return c, nil
}

// layersOf returns the layers of an image, each once.
func layersOf(ctx context.Context, from remote.Source, ref image.Reference, o Options) (image.ID, []remote.Layer, error) {
	o.Progress.Status("reading " + ref.String())
	defer o.Progress.Status("")
	from = remote.SourceOf(from, ref.Repository)
	id, err := from.Resolve(ctx, ref)
	if err != nil {
		return id, nil, err
	}
	choice := chosen(ref.String(), o)
	tree, err := remote.ReadTree(ctx, from, id, choice.pick)
	var wrong *image.TreeError
	switch {
	case errors.As(err, &wrong):
		return id, nil, fault.Wrap(fault.Other, err, "%s is not an image that this version can compare", ref)
	case err != nil:
		return id, nil, fmt.Errorf("%s: %w", ref, err)
	}
	if config := tree.Image(); config != nil {
		if err := choice.check(config.Platform); err != nil {
			return id, nil, err
		}
	}
	var ids []image.Digest
	for _, l := range tree.Layers() {
		ids = append(ids, l.Digest)
	}
	layers, err := remote.Layers(ctx, from, image.Distinct(ids))
	if err != nil {
		err = fmt.Errorf("%s: %w", ref, err)
	}
	return id, layers, err
}

// indexed is a layer and its chunk index.
type indexed struct {
	parts *layerParts
	index *chunk.Index
	why   error // there is none
}

// readIndexes reads the indexes of layers. A layer without one is no failure.
func readIndexes(ctx context.Context, from remote.Source, layers []remote.Layer, o Options) (map[image.Digest]*indexed, error) {
	all := map[image.Digest]*indexed{}
	parts, ok := from.(remote.Parts)
	var g errgroup.Group
	g.SetLimit(indexesAtOnce)
	o.Progress.Status("reading what is in the layers")
	defer o.Progress.Status("")
	for _, l := range layers {
		one := &indexed{why: errors.ErrUnsupported}
		if all[l.Digest] = one; !ok {
			continue
		}
		one.parts = &layerParts{from: parts, layer: l, link: &link{}}
		g.Go(func() error {
			one.index, one.why = one.parts.index(ctx)
			return nil
		})
	}
	_ = g.Wait() // none fails
	return all, ctx.Err()
}

// compareLayer plans a layer as a pull would that has the old ones.
func compareLayer(ctx context.Context, l remote.Layer, old []remote.Layer, known map[image.Digest]*indexed, names bool) (LayerComparison, error) {
	c := LayerComparison{Digest: l.Digest, Size: l.Size, Stored: l.Stored, Fetch: l.Stored}
	this := known[l.Digest]
	switch {
	case errors.Is(this.why, chunk.ErrNone):
		c.Whole = "it has no chunk index"
	case errors.Is(this.why, errors.ErrUnsupported):
		c.Whole = "parts of it cannot be had"
	case this.why != nil:
		return c, this.why
	}
	if c.Whole != "" {
		return c, nil
	}
	var locals []delta.Local
	there := map[chunk.Sum]bool{}
	var tables int64
	for _, o := range old {
		one := known[o.Digest]
		if one.index == nil {
			continue
		}
		locals = append(locals, delta.Local{Digest: o.Digest, Index: one.index})
		tables += one.parts.fetched.Load()
		for _, chunk := range one.index.Chunks {
			there[chunk.Sum] = true
		}
	}
	plan := delta.NewPlan(this.index, locals)
	c.Local = plan.Local
	switch fetch := plan.Fetch + this.parts.fetched.Load() + tables; {
	case plan.Local == 0 || fetch >= l.Stored:
		c.Whole = "too little of it is in the other image"
	default:
		c.Fetch = fetch
	}
	return c, c.files(ctx, this, there, names)
}

// files counts the files that have chunks which are not there, and names them.
func (c *LayerComparison) files(ctx context.Context, in *indexed, there map[chunk.Sum]bool, names bool) error {
	chunks := in.index.Chunks
	changed := func(at, size int64) bool { // asked in order
		for len(chunks) > 0 && chunks[0].At+int64(chunks[0].Size) <= at {
			chunks = chunks[1:]
		}
		for _, chunk := range chunks {
			if chunk.At >= at+size {
				break
			}
			if !there[chunk.Sum] {
				return true
			}
		}
		return false
	}
	if !names {
		for _, s := range in.index.Spans {
			if s.Content == 0 {
				continue
			}
			if c.Files++; changed(s.ContentAt, s.Content) {
				c.Changed++
			}
		}
		return nil
	}
	for f, err := range in.index.Files(ctx, in.parts.open) {
		if err != nil {
			return err
		}
		if c.Files++; changed(f.At, f.Size) {
			c.Changed++
			c.Names = append(c.Names, f.Name)
		}
	}
	return nil
}
