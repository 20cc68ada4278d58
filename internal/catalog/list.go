package catalog

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/remote"
)

// readers bounds how many tags, then documents, are read at once. It is for
// remotes far away, where a request takes 20 to 40 ms and nothing of the machine.
const readers = 128

// List returns what the tags of a repository name, of all repositories where
// it is empty, ordered by repository and tag. Damage of one image is told in
// its row and is not List's error.
//
// It goes from tags to images, from images to documents, and from documents to
// layers, and at each step asks for all at once what it does not remember.
// Whether documents and layers are there is asked each time.
func (c *Catalog) List(ctx context.Context, repository string) ([]Image, error) {
	rows, _, err := c.list(ctx, repository)
	return rows, err
}

// list is List, and returns the layers of the images that are whole.
func (c *Catalog) list(ctx context.Context, repository string) ([]Image, map[image.Digest]remote.Layer, error) {
	var tags []remote.Tag
	versions := false
	for tag, err := range c.source.References(ctx, repository) {
		if err != nil {
			return nil, nil, err
		}
		tags = append(tags, tag)
		versions = versions || tag.Version != ""
	}
	slices.SortFunc(tags, func(a, b remote.Tag) int { return a.Reference.Compare(b.Reference) })
	l := c.listing(versions)
	rows, err := l.rows(ctx, tags)
	if err != nil {
		return nil, nil, err
	}
	if c.cache != nil {
		if repository != "" {
			l.memory.keepOthers(l.known, repository)
		}
		if !l.memory.equal(l.known) {
			c.cache.store(l.memory)
		}
	}
	return rows, l.layers, ctx.Err()
}

// Some returns what these tags name, in their order: List for who has asked which
// tags there are. One that is gone meanwhile is left out.
func (c *Catalog) Some(ctx context.Context, tags []remote.Tag) ([]Image, error) {
	l := c.listing(slices.ContainsFunc(tags, func(t remote.Tag) bool { return t.Version != "" }))
	rows, err := l.rows(ctx, tags)
	if err != nil {
		return nil, err
	}
	if c.cache != nil {
		l.memory.addAll(l.known)
		if !l.memory.equal(l.known) {
			c.cache.store(l.memory)
		}
	}
	return rows, ctx.Err()
}

// listing begins a list of tags, which have versions or not.
func (c *Catalog) listing(versions bool) *listing {
	l := &listing{source: c.source, originals: originalsOf(c.source), versions: versions && c.cache != nil, memory: newMemory()}
	if c.cache != nil {
		l.known = c.cache.load()
	}
	return l
}

// listing is one list on its way.
type listing struct {
	source    remote.Source
	originals *original.Reader // nil where source has none

	versions bool   // the remote tells versions, and they are to be remembered
	known    memory // by earlier lists
	memory   memory // for later ones: what this one has used

	summaries map[image.ID]summary
	old       map[image.ID]*oldImage // images of format 1.0, which have no summary
	damage    map[image.ID]error     // why there is none
	layers    map[image.Digest]remote.Layer
	torn      map[image.Digest]error
}

func (l *listing) rows(ctx context.Context, tags []remote.Tag) ([]Image, error) {
	rows, err := l.resolve(ctx, tags)
	if err != nil {
		return nil, err
	}
	ids := make([]image.ID, 0, len(rows))
	for _, row := range rows {
		if row.Damage == "" {
			ids = append(ids, row.ID)
		}
	}
	if err := l.images(ctx, image.Distinct(ids)); err != nil {
		return nil, err
	}
	for i := range rows {
		if rows[i].Damage == "" {
			l.fill(&rows[i])
		}
	}
	return rows, nil
}

// resolve makes a row of each tag. One that was removed while it was listed is no row.
func (l *listing) resolve(ctx context.Context, tags []remote.Tag) ([]Image, error) {
	rows := make([]Image, len(tags))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for i, tag := range tags {
		rows[i].Reference = tag.Reference
		if m, ok := l.known.Tags[tag.Reference.String()]; ok && m.Version == tag.Version { // never empty
			rows[i].ID = m.ID
			continue
		}
		g.Go(func() error {
			id, err := l.source.Resolve(gctx, tag.Reference)
			rows[i].ID = id
			switch {
			case fault.Is(err, fault.NotFound):
				rows[i].Reference = image.Reference{}
				return gctx.Err()
			case err != nil && lasting(err):
				rows[i].Damage = err.Error()
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, tag := range tags {
		if tag.Version != "" && rows[i].Damage == "" && rows[i].Reference.Tag != "" {
			l.memory.Tags[tag.Reference.String()] = tagMemory{Version: tag.Version, ID: rows[i].ID}
		}
	}
	return slices.DeleteFunc(rows, func(r Image) bool { return r.Reference.Tag == "" }), ctx.Err()
}

// images learns what the rows need of each image.
func (l *listing) images(ctx context.Context, ids []image.ID) error {
	l.summaries = make(map[image.ID]summary, len(ids))
	l.old = map[image.ID]*oldImage{}
	l.damage = map[image.ID]error{}
	l.layers = map[image.Digest]remote.Layer{}
	l.torn = map[image.Digest]error{}
	var ask remote.Closure
	for _, id := range ids {
		if m, ok := l.known.Images[id]; ok {
			ask.Documents = append(append(ask.Documents, id), m.Documents...)
			ask.Layers = append(ask.Layers, m.Layers...)
		}
	}
	there, err := l.look(ctx, ask)
	if err != nil {
		return err
	}
	var unread []image.ID
	for _, id := range ids {
		// A document that is missing or was written anew is read, and so told as what it is.
		if m, ok := l.known.Images[id]; ok && m.Version == m.version(id, there) {
			l.summaries[id] = m.summary
			l.memory.Images[id] = m
		} else {
			unread = append(unread, id)
		}
	}
	if err := l.read(ctx, unread); err != nil {
		return err
	}
	ask = remote.Closure{}
	for _, id := range unread {
		if l.versions && l.damage[id] == nil && l.old[id] == nil {
			ask.Documents = append(append(ask.Documents, id), l.summaries[id].Documents...)
		}
		ask.Layers = append(ask.Layers, l.summaries[id].Layers...)
	}
	if there, err = l.look(ctx, ask); err != nil {
		return err
	}
	for _, id := range unread {
		s, ok := l.summaries[id]
		if version := s.version(id, there); ok && version != "" && s.small() {
			l.memory.Images[id] = imageMemory{Version: version, summary: s}
		}
	}
	return nil
}

// look asks what is there of c, each layer once a list, and returns the
// versions of the documents that are.
func (l *listing) look(ctx context.Context, c remote.Closure) (map[image.Digest]string, error) {
	c.Documents = image.Distinct(c.Documents)
	c.Layers = slices.DeleteFunc(image.Distinct(c.Layers), func(d image.DiffID) bool {
		_, seen := l.layers[d]
		return seen || l.torn[d] != nil
	})
	if c.Empty() {
		return nil, nil
	}
	known := make(map[image.Digest]remote.Layer, len(c.Layers))
	for _, d := range c.Layers {
		if m, ok := l.known.Layers[d]; ok {
			known[d] = remote.Layer{Digest: d, Size: m.Size, Version: m.Version}
		}
	}
	found, err := l.source.Look(ctx, c, known)
	if err != nil {
		return nil, err
	}
	for d, layer := range found.Layers {
		l.layers[d] = layer
		if layer.Version != "" {
			l.memory.Layers[d] = layerMemory{Version: layer.Version, Size: layer.Size}
		}
	}
	for d, err := range found.Torn {
		l.torn[d] = err
	}
	return found.Documents, nil
}

// read reads documents.
func (l *listing) read(ctx context.Context, ids []image.ID) error {
	summaries, old, damage := make([]summary, len(ids)), make([]*oldImage, len(ids)), make([]error, len(ids))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for i, id := range ids {
		g.Go(func() error {
			tree, err := readTree(gctx, l.source, id)
			switch {
			case err == nil:
				summaries[i] = summarize(tree)
				return nil
			case lasting(err):
				old[i], err = readOld(gctx, l.source, l.originals, id, err)
			}
			if err != nil && lasting(err) {
				damage[i] = err
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, id := range ids {
		switch {
		case damage[i] != nil:
			l.damage[id] = damage[i]
		case old[i] != nil:
			l.old[id] = old[i]
			l.old[id].Image = nil // there may be many
		default:
			l.summaries[id] = summaries[i]
		}
	}
	return ctx.Err()
}

// fill completes the row of an image, or tells its first damage.
func (l *listing) fill(row *Image) {
	if err := l.damage[row.ID]; err != nil {
		row.Damage = err.Error()
		return
	}
	if old := l.old[row.ID]; old != nil {
		l.fillOld(row, old)
		return
	}
	s := l.summaries[row.ID]
	var size, stored int64
	for _, d := range s.Layers {
		if err := l.torn[d]; err != nil {
			row.Damage = err.Error()
			return
		}
		size += l.layers[d].Size
		stored += l.layers[d].Stored
	}
	row.Created, row.Platform, row.layers = s.Created, s.Platform, s.Layers
	row.Size, row.Stored = size, stored
}
