package repo

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// IndexOptions are those of AddIndexes.
type IndexOptions struct {
	// Images are those whose layers are meant; none means all that tags reach.
	Images []image.Reference

	DryRun   bool
	Parallel int // layers at once, at least 1

	Status func(string) // what is being done; may be nil

	// Layer is told that a layer is being written, and returns who is told of the bytes that are read of its tar, and
	// of the end. It may be nil, and is called by several goroutines at once.
	Layer func(l remote.Layer) (read func(n int), end func())
}

// Indexed is what AddIndexes has done, or would do.
type Indexed struct {
	DryRun  bool           `json:"dryRun"`
	Written []IndexedLayer `json:"written"` // that have an index now
	Had     int            `json:"had"`     // layers that had one
	Small   int            `json:"small"`   // layers that are too small for one
	Blobs   int            `json:"blobs"`   // compressed layers, kept byte for byte
	Plain   int            `json:"plain"`   // layers that are not compressed
	Old     int            `json:"old"`     // images of format 1.0
	Failed  []IndexedLayer `json:"failed"`
	Unread  int            `json:"unread"` // images whose layers nobody knows: something of them is damaged

	unread error // of the first one
}

// verdict returns the fault that failures are.
func (d *Indexed) verdict(name string, layers int) error {
	switch n := len(d.Failed); {
	case n == 1 && layers == 1 && d.Unread == 0:
		return d.Failed[0].err
	case n > 0:
		return fault.Wrap(fault.Partial, d.Failed[0].err, "%d of %d layers in %s got no index", n, layers, name)
	case d.Unread > 0:
		return fault.Wrap(fault.Partial, d.unread, "of %d images in %s nobody knows which layers they have", d.Unread, name)
	}
	return nil
}

// IndexedLayer is a layer that was to get an index.
type IndexedLayer struct {
	Layer remote.Layer `json:"layer"`
	Was   int64        `json:"was"`             // bytes as stored, before; Layer says what is now
	Error string       `json:"error,omitempty"` // why it has none

	err error
}

// AddIndexes writes the layers that images have, and that have no chunk index which this version reads, anew with one: in
// the codec that each is in, under a lease as a push has it, each verified and replaced as a whole. It can be ended at any
// instant and run again, beside whatever else uses the remote. Readers of a layer that is replaced go on with the new
// one. What cannot be written is in Failed, and a Partial fault; what has no use for an index is counted. It refuses stores
// that give no parts of objects.
func (r *Repo) AddIndexes(ctx context.Context, o IndexOptions) (*Indexed, error) {
	done := &Indexed{DryRun: o.DryRun, Written: []IndexedLayer{}, Failed: []IndexedLayer{}}
	if o.Status == nil {
		o.Status = func(string) {}
	}
	layers, err := r.layersToIndex(ctx, o, done)
	if err != nil {
		return done, err
	}
	o.Status("looking which layers have an index")
	without, err := r.withoutIndex(ctx, layers, done)
	if err != nil {
		return done, err
	}
	if o.DryRun {
		for _, l := range without {
			done.Written = append(done.Written, IndexedLayer{Layer: l, Was: l.Stored})
		}
		return done, done.verdict(r.name, len(without))
	}
	o.Status("")
	to, end := r.Begin(o.Status)
	defer end(ctx)
	var mu sync.Mutex // of done
	g, each := errgroup.WithContext(ctx)
	g.SetLimit(o.Parallel)
	for _, l := range without {
		g.Go(func() error {
			now, err := to.(*session).addIndex(each, l, o)
			if each.Err() != nil {
				return each.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				done.Failed = append(done.Failed, IndexedLayer{Layer: l, Was: l.Stored, Error: err.Error(), err: err})
				return nil
			}
			done.Written = append(done.Written, IndexedLayer{Layer: now, Was: l.Stored})
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return done, err
	}
	return done, cmp.Or(ctx.Err(), done.verdict(r.name, len(without)))
}

// layersToIndex returns the layers that images have, those first that are stored in most.
func (r *Repo) layersToIndex(ctx context.Context, o IndexOptions, done *Indexed) ([]remote.Layer, error) {
	o.Status("reading the tags of " + r.name)
	ids := map[image.ID]bool{}
	for _, ref := range o.Images {
		id, err := r.Resolve(ctx, ref)
		if err != nil {
			return nil, err
		}
		ids[id] = true
	}
	if len(o.Images) == 0 {
		for tag, err := range r.References(ctx, "") {
			if err != nil {
				return nil, err
			}
			id, err := r.Resolve(ctx, tag.Reference)
			if fault.Is(err, fault.NotFound) { // removed meanwhile
				continue
			}
			if err != nil {
				return nil, err
			}
			ids[id] = true
		}
	}
	wanted := map[image.Digest]bool{}
	for id := range ids {
		tree, err := remote.ReadTree(ctx, r, id, nil)
		if errors.Is(err, remote.ErrOriginal) {
			done.Old++
			continue
		}
		var c remote.Closure
		if err == nil {
			c, err = remote.ClosureOf(tree)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			done.Unread++
			done.unread = cmp.Or(done.unread, err)
			continue
		}
		for _, l := range c.Layers {
			wanted[l] = true
		}
	}
	found, err := r.Look(ctx, remote.Closure{Layers: slices.Collect(maps.Keys(wanted))}, nil)
	if err != nil {
		return nil, err
	}
	objects := map[string]remote.Layer{} // a layer and its alias are one
	for _, l := range found.Layers {
		objects[l.Object] = l
	}
	layers := slices.Collect(maps.Values(objects))
	slices.SortFunc(layers, func(a, b remote.Layer) int {
		return cmp.Or(cmp.Compare(b.Stored, a.Stored), cmp.Compare(a.Object, b.Object))
	})
	return layers, nil
}

// withoutIndex returns the layers that are to get one, and counts the others.
func (r *Repo) withoutIndex(ctx context.Context, layers []remote.Layer, done *Indexed) ([]remote.Layer, error) {
	has := make([]bool, len(layers))
	g, each := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, l := range layers {
		_, file, err := r.layerObject(l)
		if err != nil {
			return nil, errors.Join(err, g.Wait())
		}
		switch c, _ := codecOf(file); {
		case file == entryBlob:
			done.Blobs++
			has[i] = true
		case c == codec.None:
			done.Plain++
			has[i] = true
		case l.Stored < chunk.Least:
			done.Small++
			has[i] = true
		default:
			g.Go(func() error {
				err := chunk.Check(each, func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
					return r.OpenPart(ctx, l, offset, n)
				}, l.Stored, l.Size)
				has[i] = err == nil
				if errors.Is(err, chunk.ErrNone) || errors.Is(err, chunk.ErrDamaged) {
					err = nil
				}
				if errors.Is(err, errors.ErrUnsupported) {
					err = fault.Wrap(fault.Refused, err, "%s gives no parts of objects", r.name).
						Advise("There an index is of no use: pulls fetch whole layers. Where the remote is to be had in another way, as a directory or by ssh, use that.")
				}
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var without []remote.Layer
	for i, l := range layers {
		if !has[i] {
			without = append(without, l)
		}
	}
	done.Had = len(layers) - len(without) - done.Blobs - done.Plain - done.Small
	return without, nil
}

// addIndex writes one layer anew.
func (s *session) addIndex(ctx context.Context, l remote.Layer, o IndexOptions) (remote.Layer, error) {
	// It is leased before it is read, so that it stays, and is what it was.
	missing, there, err := s.Missing(ctx, remote.Closure{Layers: []image.Digest{l.Digest}})
	if err != nil {
		return l, err
	}
	if !missing.Empty() || len(there) != 1 || there[0].Object != l.Object {
		return l, fault.New(fault.Other, "layer %s in %s was replaced or removed meanwhile", l.Digest.Short(), s.name).Advise("Run the same command again.")
	}
	from, err := s.Open(ctx, there[0])
	if err != nil {
		return l, err
	}
	defer from.Close()
	read, end := func(int) {}, func() {}
	if o.Layer != nil {
		read, end = o.Layer(l)
	}
	defer end()
	as := *s.Repo
	_, file, err := as.layerObject(l)
	if err != nil {
		return l, err
	}
	as.codec, _ = codecOf(file)
	as.bare = false
	now, err := (&session{&as, s.lease}).PutLayer(ctx, image.Descriptor{Digest: l.Digest, Size: l.Size}, readerFunc(func(p []byte) (int, error) {
		n, err := from.Read(p)
		read(n)
		return n, err
	}))
	return now, err
}
