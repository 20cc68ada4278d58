package verify

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// config is one that some image has.
type config struct {
	id     image.Digest
	layers []image.DiffID // each once
	images []*img         // that have it
	keeps  []image.Digest // entries that are there for it
}

// learnConfigs notes the configs in a tree. r.mu is held.
func (r *run) learnConfigs(m *img, t *image.Tree) {
	for _, child := range t.Children {
		r.learnConfigs(m, child)
	}
	if t.Config == nil {
		return
	}
	c := r.configs[t.ID]
	if c == nil {
		c = &config{id: t.ID, layers: image.Distinct(t.Config.DiffIDs)}
		r.configs[t.ID], r.toAudit = c, append(r.toAudit, c)
	}
	if !slices.Contains(c.images, m) {
		c.images = append(c.images, m)
	}
}

// layersOf returns the layers of a config as they were found. Of those that are
// not there, or are wrong, or of another kind, there are none.
func (r *run) layersOf(c *config) (layers []remote.Layer, allProved bool) {
	allProved = true
	for _, id := range c.layers {
		l := r.layers[id]
		if l == nil || l.lost || l.state == wrong {
			return nil, false
		}
		layers = append(layers, l.there)
		allProved = allProved && l.state == proved
	}
	return layers, allProved
}

// audit asks the remote about what it keeps besides, once the layers are known.
func (r *run) audit(ctx context.Context) error {
	auditor, ok := r.from.(remote.Auditor)
	if !ok {
		return ctx.Err()
	}
	r.o.Progress.Status("reading manifests")
	var again []*config // not all of their layers are known, and a repair may come
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(resolvers)
	for _, c := range r.toAudit {
		if layers, _ := r.layersOf(c); len(layers) < len(c.layers) {
			again = append(again, c)
		}
		g.Go(func() error { return r.auditOne(gctx, auditor, c) })
	}
	r.toAudit = again
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// auditOne asks about one config. Where its layers are not all known it is only
// asked what it keeps.
func (r *run) auditOne(ctx context.Context, auditor remote.Auditor, c *config) error {
	layers, _ := r.layersOf(c)
	keeps, damage, err := auditor.Audit(ctx, c.id, layers)
	if err != nil {
		return r.failure(ctx, err, r.objectOf(c.id), cure{config: c}, c.images...)
	}
	r.success()
	c.keeps = keeps
	for _, wrong := range damage {
		r.found(findingOf(wrong, Manifest, c.id.String(), cure{config: c}, c.images...))
	}
	return nil
}
