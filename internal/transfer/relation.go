package transfer

import (
	"context"
	"errors"
	"log/slog"

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
	// tablesAtOnce are read at once, before it is looked at again whether that is enough.
	tablesAtOnce = 4
	// smallRelative is how many times smaller than the layer one is that cannot be of much use.
	smallRelative = 64
)

// relation is what the engine has that layers of an image may be put together from. It is used by one goroutine
// at a time.
type relation struct {
	engine  Relatives
	source  remote.Source
	parts   remote.Parts
	tables  tables
	link    *link
	log     *slog.Logger
	names   []image.Reference
	without []image.Digest
	budget  int64 // bytes of indexes that may still be read

	found    bool
	looked   bool
	readable bool // the engine's layers are, if there are any
	all      []*relative
}

// relative is a layer that the engine has.
type relative struct {
	engine.Relative
	known bool         // its index is remembered
	layer remote.Layer // as the remote has it, where it is not
	tried bool
	index *chunk.Index // nil where it was not read, or there is none
	read  int64        // bytes that it took
}

func (r *relation) empty() bool { return len(r.all) == 0 }

// find asks the engine what it has, once.
func (r *relation) find(ctx context.Context) error {
	if r.found {
		return nil
	}
	found, err := r.engine.Relatives(ctx, r.names, r.without)
	if errors.Is(err, errors.ErrUnsupported) {
		r.found = true
		return nil
	}
	if err != nil {
		return err
	}
	r.readable = true
	for _, f := range found {
		r.all = append(r.all, &relative{Relative: f, known: r.tables.has(f.Digest)})
	}
	r.found = true
	return nil
}

// look asks the remote what it knows of what the engine has, once. What nobody knows is left out from then on.
func (r *relation) look(ctx context.Context) error {
	if r.looked {
		return nil
	}
	var ask []image.Digest
	for _, one := range r.all {
		if !one.known && len(ask) < mostRelatives {
			ask = append(ask, one.Digest)
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
		one.layer = there.Layers[one.Digest]
		if one.known || one.layer.Stored > 0 {
			known = append(known, one)
		}
	}
	r.all, r.looked = known, true
	return nil
}

// cover reads indexes of what the engine has until they cover a layer, or there are enough, and returns what has
// something of it, and how many bytes were read.
func (r *relation) cover(ctx context.Context, layer remote.Layer, x *chunk.Index) (locals []delta.Local, read int64) {
	type content struct {
		sum  chunk.Sum
		size int32
	}
	missing := make(map[content]int64, len(x.Chunks))
	var all, left int64
	for _, c := range x.Chunks {
		missing[content{c.Sum, c.Size}] += int64(c.Size)
		all += int64(c.Size)
	}
	left = all
	use := func(one *relative) {
		before := left
		for _, c := range one.index.Chunks {
			key := content{c.Sum, c.Size}
			left -= missing[key]
			delete(missing, key)
		}
		if left < before {
			locals = append(locals, delta.Local{Digest: one.Digest, Index: one.index, Open: opener(one.Open)})
		}
	}
	for _, one := range r.all {
		if one.index != nil {
			use(one)
		}
	}
	for left > all*(100-enough)/100 && r.budget > 0 {
		next := r.next(layer)
		if len(next) == 0 {
			break
		}
		r.read(ctx, next)
		for _, one := range next {
			r.budget -= one.read
			read += one.read
			if one.index != nil {
				use(one)
			}
		}
	}
	return locals, read
}

// next returns those of which the index is to be read next for a layer.
func (r *relation) next(layer remote.Layer) (next []*relative) {
	for _, one := range r.all {
		if !one.tried && (one.known || one.layer.Stored >= layer.Stored/smallRelative) && len(next) < tablesAtOnce {
			one.tried = true
			next = append(next, one)
		}
	}
	return next
}

// read reads indexes. What cannot be read is nothing.
func (r *relation) read(ctx context.Context, some []*relative) {
	var g errgroup.Group
	for _, one := range some {
		g.Go(func() error {
			if one.known {
				one.index = r.tables.get(one.Digest)
				return nil
			}
			parts := &layerParts{from: r.parts, layer: one.layer, link: r.link}
			x, err := parts.index(ctx)
			one.read = parts.fetched.Load()
			if err != nil {
				r.log.Debug("a layer of the engine has no index in the remote", "layer", one.Digest, "error", err)
				return nil
			}
			one.index = x
			r.tables.put(one.Digest, parts)
			return nil
		})
	}
	_ = g.Wait() // none fails
}

func opener(open func(context.Context) (engine.Tar, error)) func(context.Context) (delta.Tar, error) {
	return func(ctx context.Context) (delta.Tar, error) {
		tar, err := open(ctx)
		if err != nil {
			return nil, err
		}
		return tar, nil
	}
}
