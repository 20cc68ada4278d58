package transfer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/delta"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

const (
	// mostRelatives bounds the layers of which the remote is asked for indexes.
	mostRelatives = 16
	// tableShare bounds the bytes that are read for that: this part of the layers that are to be put together.
	tableShare = 16
	// knownShare is by how much less an index counts that is remembered here.
	knownShare = 8
	// An index has about a tableRatio'th of the layer as stored, and that much at least.
	tableRatio = 512
	tableLeast = 16 << 10
	// mostRows bounds the indexes of one image and of what is there, in rows of their tables: some 200 MB.
	mostRows = 4 << 20
	// tablesAtOnce are read at once, before it is looked at again whether that is enough.
	tablesAtOnce = 4
	// smallRelative is how many times smaller than the layer one is that cannot be of much use.
	smallRelative = 64
)

// relation is what the engine and the cache have that layers of an image may be put together from. It is used by one
// goroutine at a time.
type relation struct {
	engine  Relatives     // may be nil
	keeper  remote.Keeper // the same
	source  remote.Source
	parts   remote.Parts
	tables  tables
	link    *link
	log     *slog.Logger
	names   []image.Reference
	without []image.Digest // layers of the image that the engine has
	own     []image.Digest // all of them
	budget  int64          // bytes of indexes that may still be read
	rows    int            // of those that are held

	found    bool
	looked   bool
	readable bool // the engine's layers are, if there are any
	all      []*relative
}

// relative is a layer that the engine or the cache has.
type relative struct {
	digest image.Digest
	open   func(ctx context.Context, x *chunk.Index) (delta.Tar, error)
	kept   bool         // in the cache
	known  int64        // bytes that its index takes where it is remembered
	layer  remote.Layer // as the remote has it or, where it is kept, the cache; zero where its index is remembered
	tried  bool
	index  *chunk.Index // nil where it was not read, or there is none
	read   int64        // bytes that it took
}

// cost is about how much of the budget it takes to read its index.
func (r *relative) cost() int64 {
	switch {
	case r.kept: // there are few, and they are on this machine
		return 0
	case r.known > 0:
		return r.known / knownShare
	}
	return max(tableLeast, r.layer.Stored/tableRatio)
}

func (r *relation) empty() bool { return len(r.all) == 0 }

// find asks the cache and the engine what they have, once. What is kept comes first: to read its indexes costs the
// remote nothing.
func (r *relation) find(ctx context.Context) error {
	if r.found {
		return nil
	}
	var all []*relative
	if r.keeper != nil {
		kept, err := r.keeper.Kept(ctx, r.own)
		if err != nil {
			return err
		}
		for _, l := range kept {
			all = append(all, &relative{digest: l.Digest, kept: true, layer: l, open: r.openKept(l)})
		}
	}
	if r.engine != nil {
		has, err := r.findInEngine(ctx)
		if err != nil {
			return err
		}
		for _, one := range has {
			if !slices.ContainsFunc(all, func(k *relative) bool { return k.kept && k.digest == one.digest }) {
				all = append(all, one)
			}
		}
	}
	r.all, r.found = all, true
	return nil
}

// findInEngine asks the engine what it has.
func (r *relation) findInEngine(ctx context.Context) (known []*relative, err error) {
	found, err := r.engine.Relatives(ctx, r.names, r.without)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r.readable = true
	for _, f := range found {
		known = append(known, &relative{digest: f.Digest, known: r.tables.size(f.Digest), open: opener(f.Open)})
	}
	return known, nil
}

// look asks the remote what it knows of what the engine has, once. What nobody knows is left out from then on.
func (r *relation) look(ctx context.Context) error {
	if r.looked {
		return nil
	}
	var ask []image.Digest
	for _, one := range r.all {
		if !one.kept && one.known == 0 && len(ask) < mostRelatives {
			ask = append(ask, one.digest)
		}
	}
	var there remote.Found
	if len(ask) > 0 {
		answer, err := r.source.Look(ctx, remote.Closure{Layers: ask}, nil)
		if err != nil {
			return err
		}
		there = *answer
	}
	var known []*relative
	for _, one := range r.all {
		if !one.kept {
			one.layer = there.Layers[one.digest]
		}
		if one.known > 0 || one.layer.Stored > 0 {
			known = append(known, one)
		}
	}
	r.all, r.looked = known, true
	return nil
}

// cover reads indexes of what there is until they cover a layer, or there are enough, and returns what has
// something of it, and how many bytes were read of the remote.
func (r *relation) cover(ctx context.Context, layer remote.Layer, x *chunk.Index) (locals []delta.Local, read int64) {
	missing := make(map[chunk.Identity]int64, len(x.Chunks))
	var all, left int64
	for _, c := range x.Chunks {
		missing[c.Identity()] += int64(c.Size)
		all += int64(c.Size)
	}
	left = all
	kept := 0
	use := func(one *relative) {
		if one.kept && kept == mostRelatives { // each takes memory for the frames that are read of it
			return
		}
		before := left
		for _, c := range one.index.Chunks {
			key := c.Identity()
			left -= missing[key]
			delete(missing, key)
		}
		if left < before {
			locals = append(locals, delta.Local{Digest: one.digest, Index: one.index, Open: func(ctx context.Context) (delta.Tar, error) {
				return one.open(ctx, one.index)
			}})
			if one.kept {
				kept++
			}
		}
	}
	for _, one := range r.all {
		if one.index != nil {
			use(one)
		}
	}
	for left > all*(100-enough)/100 {
		next := r.next(layer)
		if len(next) == 0 {
			break
		}
		r.read(ctx, next)
		for _, one := range next {
			r.budget -= max(one.read, one.cost())
			read += one.read
			if one.index == nil {
				continue
			}
			if !r.hold(one.index) {
				one.index = nil
				continue
			}
			use(one)
		}
	}
	return locals, read
}

// hold reports whether there is room for an index.
func (r *relation) hold(x *chunk.Index) bool {
	rows := len(x.Chunks) + len(x.Spans) + len(x.Frames) + len(x.Blocks)
	if r.rows+rows > mostRows {
		return false
	}
	r.rows += rows
	return true
}

// next returns those of which the index is to be read next for a layer, as far as there is room for them.
func (r *relation) next(layer remote.Layer) (next []*relative) {
	budget := r.budget
	for _, one := range r.all {
		small := one.known == 0 && one.layer.Stored < layer.Stored/smallRelative
		if one.tried || small || one.cost() > budget || len(next) == tablesAtOnce || r.rows >= mostRows {
			continue
		}
		one.tried = true
		budget -= one.cost()
		next = append(next, one)
	}
	return next
}

// read reads indexes. What cannot be read is nothing.
func (r *relation) read(ctx context.Context, some []*relative) {
	var g errgroup.Group
	for _, one := range some {
		g.Go(func() error {
			if one.known > 0 {
				one.index = r.tables.get(one.digest)
				return nil
			}
			parts := &layerParts{from: r.parts, layer: one.layer, link: r.link}
			x, err := parts.index(ctx)
			one.read = parts.fetched.Load()
			if err != nil {
				r.log.Debug("a layer that could be of use has no index", "layer", one.digest, "kept", one.kept, "error", err)
				return nil
			}
			one.index = x
			if !one.kept {
				r.tables.put(one.digest, parts)
			}
			return nil
		})
	}
	_ = g.Wait() // none fails
}

// openKept opens the tar of a layer that is kept, out of its stored frames.
func (r *relation) openKept(layer remote.Layer) func(context.Context, *chunk.Index) (delta.Tar, error) {
	return func(ctx context.Context, x *chunk.Index) (delta.Tar, error) {
		done := r.keeper.Use(ctx, layer)
		return &keptTar{chunk.NewTar(ctx, x, func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
			return r.parts.OpenPart(ctx, layer, offset, n)
		}), done}, nil
	}
}

// keptTar is a tar that is kept until it is closed.
type keptTar struct {
	*chunk.Tar
	done func()
}

func (k *keptTar) Close() error {
	defer k.done()
	return k.Tar.Close()
}

func opener(open func(context.Context) (engine.Tar, error)) func(context.Context, *chunk.Index) (delta.Tar, error) {
	return func(ctx context.Context, _ *chunk.Index) (delta.Tar, error) {
		tar, err := open(ctx)
		if err != nil {
			return nil, err
		}
		return tar, nil
	}
}
