package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
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
	Digest image.Digest `json:"digest"` // the diffID, where the remote knows the layer by that
	Size   int64        `json:"size"`   // -1 where it is not known
	Stored int64        `json:"stored"`
	Fetch  int64        `json:"fetch"`           // its index, and those of From's layers that no layer before has taken, included
	Local  int64        `json:"local"`           // content that From has
	Whole  string       `json:"whole,omitempty"` // why all of it is fetched, for people

	// Files with content, how many of them are in chunks that From has not, and, where they were asked for, their
	// names. Small neighbours are in one chunk. MoreNames are not told: there are too many.
	Files     int      `json:"files,omitempty"`
	Changed   int      `json:"changed,omitempty"`
	Names     []string `json:"names,omitempty"`
	MoreNames int      `json:"moreNames,omitempty"`
}

const (
	// indexesAtOnce bounds the chunk indexes that Compare reads at once.
	indexesAtOnce = 4
	// mostCompared bounds their memory, all together: frames, chunks, spans and blocks, of some 40 bytes each. Some
	// 200 GB of layers have so many.
	mostCompared = 4 << 20
	// mostNamed bounds the bytes of the names of files.
	mostNamed = 32 << 20
)

// Compare reads the documents of two images and the chunk indexes of layers that they do not share. Of indexes those of
// o.Platform are compared, without one all that the remote has. Where names are asked for it may read more than a pull
// would.
func Compare(ctx context.Context, from remote.Source, a, b image.Reference, names bool, o Options) (*Comparison, error) {
	o = o.withDefaults()
	c := &Comparison{From: a, To: b, Layers: []LayerComparison{}}
	var old, new []*compared
	var err error
	if c.FromID, old, err = layersOf(ctx, from, a, o); err != nil {
		return nil, err
	}
	if c.ToID, new, err = layersOf(ctx, from, b, o); err != nil {
		return nil, err
	}
	had := map[image.Digest]bool{}
	for _, l := range old {
		had[l.tar] = true
	}
	all := len(new)
	new = slices.DeleteFunc(new, func(l *compared) bool { return had[l.tar] })
	if c.Shared = all - len(new); len(new) == 0 {
		return c, nil
	}
	if err := readIndexes(ctx, append(slices.Clone(new), old...), o); err != nil {
		return nil, err
	}
	left := 0 // bytes of names
	if names {
		left = mostNamed
	}
	for _, l := range new {
		layer, err := l.compare(ctx, old, names, &left, o)
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

// compared is a layer of one of the images.
type compared struct {
	remote.Layer
	tar   image.Digest // what two have in common that are one layer: its diffID where that is known, else its digest
	from  remote.Source
	parts *layerParts
	index *chunk.Index
	why   string // there is no index
	table int64  // bytes that were read for it, and belong to no layer's Fetch yet
}

// layersOf returns the layers of an image, each once.
func layersOf(ctx context.Context, from remote.Source, ref image.Reference, o Options) (image.ID, []*compared, error) {
	o.Progress.Status("reading " + ref.String())
	defer o.Progress.Status("")
	from = remote.SourceOf(from, ref.Repository)
	id, err := from.Resolve(ctx, ref)
	if err != nil {
		return id, nil, err
	}
	choice := chosen(ref.String(), o)
	tree, err := remote.ReadTree(ctx, from, id, choice.pick)
	var packed map[image.DiffID]image.Descriptor
	if err == nil {
		packed, err = tree.Packed()
	}
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
	tars := map[image.Digest]image.DiffID{}
	for tar, l := range packed {
		tars[l.Digest] = tar
	}
	var layers []*compared
	var ask []image.Digest
	for _, l := range tree.Layers() {
		one := &compared{Layer: remote.Layer{Digest: l.Digest}, tar: l.Digest, from: from}
		if tar, ok := tars[l.Digest]; ok {
			one.tar = tar
		}
		if slices.Contains(ask, one.tar) {
			continue
		}
		layers, ask = append(layers, one), append(ask, one.tar)
	}
	found, err := from.Look(ctx, remote.Closure{Layers: ask}, nil)
	if err != nil {
		return id, nil, fmt.Errorf("%s: %w", ref, err)
	}
	for _, l := range layers {
		named := l.Digest
		if l.Layer = found.Layers[l.tar]; found.Torn[l.tar] == nil {
			continue
		}
		there, err := remote.Layers(ctx, from, []image.Digest{named}) // as a manifest has it
		if err != nil {
			return id, nil, fmt.Errorf("%s: %w", ref, err)
		}
		l.Layer = there[0]
	}
	return id, layers, nil
}

// readIndexes reads the indexes of layers. A layer without one is no failure.
func readIndexes(ctx context.Context, layers []*compared, o Options) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(indexesAtOnce)
	o.Progress.Status("reading what is in the layers")
	defer o.Progress.Status("")
	var rows atomic.Int64
	for _, l := range layers {
		g.Go(func() (err error) {
			if rows.Load() > mostCompared {
				l.why = "too many chunks to compare"
				return nil
			}
			err = l.readIndex(ctx, o.leastDelta)
			if x := l.index; x != nil {
				rows.Add(int64(len(x.Frames) + len(x.Chunks) + len(x.Spans) + len(x.Blocks)))
			}
			return err
		})
	}
	return g.Wait()
}

// whySmall is said of a layer that no pull puts together.
const whySmall = "it is small"

// readIndex reads the index of a layer, or says why there is none. Of one that is stored in less than least bytes a pull
// would read none.
func (l *compared) readIndex(ctx context.Context, least int64) error {
	parts, ok := l.from.(remote.Parts)
	if !ok {
		l.why = "parts of it cannot be had"
		return nil
	}
	l.parts = &layerParts{from: parts, layer: l.Layer, link: &link{}}
	x, err := l.parts.index(ctx)
	l.table, l.parts.tail = l.parts.fetched.Load(), nil
	none, refused := errors.Is(err, chunk.ErrNone), errors.Is(err, errors.ErrUnsupported)
	switch kept := !l.Packed.IsZero() || l.Digest != l.tar; { // as a blob
	case (none || refused) && l.Stored < least:
		l.why = whySmall
	case (none || refused) && kept:
		l.why = "it is kept in gzip or zstd as it came: see --recompress of push and copy"
	case none:
		l.why = "it has no chunk index: see `dogestry index`"
	case refused:
		l.why = "parts of it cannot be had"
	case errors.Is(err, chunk.ErrDamaged) || err == nil && l.Size >= 0 && x.Size != l.Size:
		l.why = "its chunk index is damaged"
	default:
		l.index = x
		return err
	}
	return nil
}

// unplaced is a chunk by what is in it, wherever that is.
func unplaced(c chunk.Chunk) chunk.Chunk {
	c.At = 0
	return c
}

// compare plans a layer as a pull would that has the old ones.
func (l *compared) compare(ctx context.Context, old []*compared, names bool, left *int, o Options) (LayerComparison, error) {
	c := LayerComparison{Digest: l.Digest, Size: l.Size, Stored: l.Stored, Fetch: l.Stored, Whole: l.why}
	if l.index == nil {
		return c, ctx.Err()
	}
	there := map[chunk.Chunk]bool{}
	for _, c := range l.index.Chunks {
		there[unplaced(c)] = false
	}
	var locals []delta.Local
	var give []*compared
	for _, o := range old {
		if o.index == nil {
			continue
		}
		gives := false
		for _, c := range o.index.Chunks {
			if had, ok := there[unplaced(c)]; ok && !had {
				there[unplaced(c)], gives = true, true
			}
		}
		if gives {
			locals = append(locals, delta.Local{Digest: o.Digest, Index: o.index})
			give = append(give, o)
		}
	}
	plan := delta.NewPlan(l.index, locals)
	c.Local = plan.Local
	switch {
	case l.Stored < o.leastDelta:
		c.Whole = whySmall
	case plan.Local == 0 || !plan.Worth(l.Stored, 1, localRate, 0): // over the slowest link
		c.Whole = "too little of it is in the other image"
	default:
		c.Fetch = plan.Fetch + l.table
		for _, o := range give {
			c.Fetch, o.table = c.Fetch+o.table, 0
		}
	}
	return c, c.files(ctx, l, there, names, left)
}

// files counts the files that have chunks which are not there, and names them, as far as left reaches.
func (c *LayerComparison) files(ctx context.Context, in *compared, there map[chunk.Chunk]bool, names bool, left *int) error {
	chunks := in.index.Chunks
	changed := func(at, size int64) bool { // asked in order
		for len(chunks) > 0 && chunks[0].At+int64(chunks[0].Size) <= at {
			chunks = chunks[1:]
		}
		for _, chunk := range chunks {
			if chunk.At >= at+size {
				break
			}
			if !there[unplaced(chunk)] {
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
		switch {
		case errors.Is(err, chunk.ErrDamaged) || errors.Is(err, codec.ErrDamaged): // nobody can name them
			c.Files, c.Changed, c.Names = 0, 0, nil
			err := c.files(ctx, in, there, false, left)
			c.MoreNames = c.Changed
			return err
		case err != nil:
			return fmt.Errorf("cannot name the files of layer %s: %w", in.Digest.Short(), err)
		}
		if c.Files++; !changed(f.At, f.Size) {
			continue
		}
		if c.Changed++; len(f.Name) <= *left {
			*left -= len(f.Name)
			c.Names = append(c.Names, f.Name)
		} else {
			*left, c.MoreNames = 0, c.MoreNames+1
		}
	}
	return nil
}
