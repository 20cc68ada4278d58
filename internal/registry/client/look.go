package client

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// asking bounds the requests that look for something at once.
const asking = 16

// Look asks for all of c, many at once. A layer is there by its diffID where it is
// known in which blob it is compressed: from manifests and configs that were read here
// in this run, or from what this user's pushes have compressed. A blob of another size
// than they say is not believed to be it.
func (p *Repository) Look(ctx context.Context, c remote.Closure, _ map[image.Digest]remote.Layer) (*remote.Found, error) {
	if err := p.check(ctx); err != nil {
		return nil, err
	}
	all := newFound()
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asking)
	for _, id := range image.Distinct(c.Documents) {
		g.Go(func() error {
			there, err := p.hasDocument(gctx, id)
			if there {
				mu.Lock()
				all.Documents[id] = ""
				mu.Unlock()
			}
			return p.failure(gctx, err, "cannot look into %s", p.where())
		})
	}
	p.registry.hints.refresh()
	for _, id := range image.Distinct(c.Layers) {
		g.Go(func() error {
			l, there, err := p.find(gctx, id)
			if err != nil {
				return p.failure(gctx, err, "cannot look into %s", p.where())
			}
			mu.Lock()
			defer mu.Unlock()
			if there {
				all.Layers[id] = l
			} else {
				all.Torn[id] = p.missing("layer", id)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, orContext(ctx, err)
	}
	return &all.Found, ctx.Err()
}

// LookBlob implements remote.Blobs, with one request: a layer and the config of an
// image are blobs alike here.
func (p *Repository) LookBlob(ctx context.Context, id image.Digest, _ map[image.Digest]remote.Layer) (*remote.Found, error) {
	if err := p.check(ctx); err != nil {
		return nil, err
	}
	all := newFound()
	size, err := p.headBlob(ctx, id)
	switch {
	case isStatus(err, http.StatusNotFound):
		all.Torn[id] = p.missing("layer", id)
	case err != nil:
		return nil, p.failure(ctx, err, "cannot look into %s", p.where())
	default:
		all.Layers[id] = p.plainLayer(id, size)
	}
	return &all.Found, ctx.Err()
}

// hasDocument looks for a manifest or index, and for a blob.
func (p *Repository) hasDocument(ctx context.Context, id image.Digest) (bool, error) {
	kind := image.UnknownKind
	if doc := p.remembered(id); doc != nil {
		kind, _ = image.KindOf(doc)
	}
	if kind != image.ConfigKind && p.namedConfig(id) == nil {
		if kind == image.UnknownKind {
			at, err := p.locate(ctx, id)
			return at != nowhere, err
		}
		err := p.asManifest(ctx, id, false)
		return err == nil, unlessNone(err)
	}
	return p.hasBlob(ctx, id)
}

// place is where a repository keeps a document.
type place int

const (
	nowhere place = iota
	inManifests
	inBlobs
)

// locate looks for a document of which nothing is known. Registries of before 3.0
// answer 500 when they are asked for a manifest and have a blob that is none: so a
// blob is looked for before a manifest is asked for with patience.
func (p *Repository) locate(ctx context.Context, id image.Digest) (place, error) {
	err := p.asManifest(ctx, id, true)
	if err != nil && !isNone(err) {
		if isStatus(err, http.StatusInternalServerError) {
			if there, err := p.hasBlob(ctx, id); there {
				return inBlobs, err
			}
		}
		err = p.asManifest(ctx, id, false)
	}
	switch {
	case err == nil:
		return inManifests, nil
	case !isNone(err):
		return nowhere, err
	}
	there, err := p.hasBlob(ctx, id)
	if there {
		return inBlobs, err
	}
	return nowhere, err
}

// asManifest asks for a manifest or index: once, or with patience.
func (p *Repository) asManifest(ctx context.Context, id image.Digest, once bool) error {
	_, err := p.ask(ctx, request{method: http.MethodHead, path: "/manifests/" + id.String(), header: accept(), once: once}, http.StatusOK)
	return err
}

// isNone reports whether a registry says that it has no such manifest.
func isNone(err error) bool {
	return isStatus(err, http.StatusNotFound) || isStatus(err, http.StatusBadRequest)
}

// unlessNone is err, but nil where it says that nothing is there.
func unlessNone(err error) error {
	if isNone(err) {
		return nil
	}
	return err
}

func (p *Repository) hasBlob(ctx context.Context, id image.Digest) (bool, error) {
	_, err := p.headBlob(ctx, id)
	if isStatus(err, http.StatusNotFound) {
		return false, nil
	}
	if err == nil {
		p.noteBlob(id)
	}
	return err == nil, err
}

// candidates are the blobs that a tar may lie in here, the likeliest first.
func (p *Repository) candidates(id image.Digest) []packed {
	var all []packed
	if l, ok := p.packedIn(id); ok {
		all = append(all, l)
	}
	if h, ok := p.registry.hints.get(id); ok {
		if len(all) > 0 && all[0].Digest == h.Digest {
			all[0] = h.packed // which knows the size of the tar, too
		} else {
			all = append(all, h.packed)
		}
	}
	return all
}

// find looks for a layer.
func (p *Repository) find(ctx context.Context, id image.Digest) (remote.Layer, bool, error) {
	for _, in := range p.candidates(id) {
		size, err := p.headBlob(ctx, in.Digest)
		switch {
		case err == nil && size >= 0 && in.Size >= 0 && size != in.Size:
			continue // who said so was wrong about it
		case err == nil:
			return p.packedLayer(id, in, size), true, nil
		case !isStatus(err, http.StatusNotFound):
			return remote.Layer{}, false, err
		}
	}
	size, err := p.headBlob(ctx, id)
	if isStatus(err, http.StatusNotFound) {
		return remote.Layer{}, false, nil
	}
	if err != nil {
		return remote.Layer{}, false, err
	}
	return p.plainLayer(id, size), true, nil
}

// plainLayer is what lies in a blob of its own.
func (p *Repository) plainLayer(id image.Digest, size int64) remote.Layer {
	p.registry.settle(p, id)
	return remote.Layer{Digest: id, Size: size, Stored: size, Object: p.object(id)}
}

// packedLayer is a tar that lies compressed in a blob.
func (p *Repository) packedLayer(id image.DiffID, in packed, size int64) remote.Layer {
	p.registry.settle(p, id, in.Digest)
	if size < 0 {
		size = in.Size
	}
	return remote.Layer{Digest: id, Size: in.Plain, Stored: size, Object: p.object(in.Digest), Packed: in.Digest}
}

func (p *Repository) object(id image.Digest) string { return p.path + "@" + id.String() }

// Missing asks for all of c at once. Layers that another repository of the registry
// has, as far as is known, are mounted. Of an image by its config, layers that nothing
// is known of are looked for in images that are there.
func (p *Repository) Missing(ctx context.Context, c remote.Closure) (missing remote.Closure, there []remote.Layer, err error) {
	found, err := p.Look(ctx, c, nil)
	if err != nil {
		return missing, nil, err
	}
	lacks := func() (lost []image.Digest) {
		for _, id := range image.Distinct(c.Layers) {
			if _, ok := found.Layers[id]; !ok {
				lost = append(lost, id)
			}
		}
		return lost
	}
	if lost := lacks(); len(lost) > 0 {
		if err := p.more(ctx, lost, found); err != nil {
			return missing, nil, p.failure(ctx, err, "cannot look into %s", p.where())
		}
	}
	for _, id := range image.Distinct(c.Documents) {
		if _, ok := found.Documents[id]; !ok {
			missing.Documents = append(missing.Documents, id)
		}
	}
	missing.Layers = lacks()
	for _, l := range found.Layers {
		there = append(there, l)
	}
	return missing, there, ctx.Err()
}

// more finds some of the layers that seem to be lost.
func (p *Repository) more(ctx context.Context, lost []image.Digest, found *remote.Found) error {
	p.survey.Do(func() { p.readTags(ctx) })
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asking)
	for _, id := range lost {
		g.Go(func() error {
			l, there, err := p.bring(gctx, id)
			if err == nil && !there && len(p.candidates(id)) > 0 {
				l, there, err = p.find(gctx, id)
			}
			mu.Lock()
			defer mu.Unlock()
			if there {
				found.Layers[id] = l
				delete(found.Torn, id)
			}
			return err
		})
	}
	return g.Wait()
}

// surveyed bounds the images that are read to learn what their layers are compressed
// in, and surveyedPages those of the list of tags.
const (
	surveyed      = 16
	surveyedPages = 10
)

// Expect says that a tag is about to be written. What it names now is read first.
func (p *Repository) Expect(tag string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.expected) < surveyed {
		p.expected = append(p.expected, tag)
	}
}

// readTags reads manifests and configs of some tags of the repository: those that are
// about to be written, `latest`, and the last ones in the order of the list's first
// pages, which is by name and not by age. It is to spare bytes, and has no errors.
func (p *Repository) readTags(ctx context.Context) {
	p.mu.Lock()
	first := append(slices.Clone(p.expected), "latest")
	p.mu.Unlock()
	var last []string
	_ = p.pages(ctx, surveyedPages, func(tag string) bool {
		if last = append(last, tag); len(last) > surveyed {
			last = last[1:]
		}
		return true
	})
	slices.Reverse(last)
	seen := map[string]bool{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asking)
	for _, tag := range append(first, last...) {
		if seen[tag] || len(seen) == surveyed {
			continue
		}
		seen[tag] = true
		g.Go(func() error {
			p.readTag(gctx, tag)
			return nil
		})
	}
	_ = g.Wait() // nobody returns one
}

// readTag reads the manifest and config of an image, of an index those of one.
func (p *Repository) readTag(ctx context.Context, tag string) {
	doc, err := p.get(ctx, "/manifests/"+tag)
	if err != nil {
		return
	}
	p.remember(image.DigestOf(doc), doc)
	if x, err := image.ParseIndex(doc); err == nil {
		for _, c := range x.Manifests {
			if c.Attests.IsZero() && c.Platform.OS != "unknown" {
				if doc, err = p.Document(ctx, c.Digest); err != nil {
					return
				}
				break
			}
		}
	}
	if m, err := image.ParseManifest(doc); err == nil {
		_, _ = p.Document(ctx, m.Config.Digest)
	}
}

// bring makes a layer that another repository of the registry has one of this, where
// the registry can: it mounts the blob (distribution-spec, "Mounting a blob from
// another repository").
func (p *Repository) bring(ctx context.Context, id image.Digest) (remote.Layer, bool, error) {
	var in packed
	from := ""
	if h, ok := p.registry.hints.get(id); ok && h.Path != p.path {
		in, from = h.packed, h.Path
	} else if other := p.registry.home(id); other != nil && other != p {
		from, in = other.path, packed{Digest: id}
		if all := other.candidates(id); len(all) > 0 {
			in = all[0]
		}
	}
	if from == "" {
		return remote.Layer{}, false, nil
	}
	if !p.registry.o.Writes {
		return remote.Layer{}, false, nil
	}
	there, err := p.mount(ctx, in.Digest, from)
	if err != nil || !there {
		return remote.Layer{}, false, err
	}
	size, err := p.headBlob(ctx, in.Digest)
	if p.registry.o.Plan && isStatus(err, http.StatusNotFound) {
		size, err = in.Size, nil // it would be mounted
	}
	if err != nil {
		return remote.Layer{}, false, err
	}
	if in.Digest == id {
		return remote.Layer{Digest: id, Size: size, Stored: size, Object: p.object(id)}, true, nil
	}
	p.notePacked(id, in)
	return p.packedLayer(id, in, size), true, nil
}

// mount mounts a blob of another repository, and reports whether it is there now. A
// registry that does not mount begins an upload instead, which is broken off.
func (p *Repository) mount(ctx context.Context, id image.Digest, from string) (bool, error) {
	if p.registry.o.Plan {
		other := &Repository{registry: p.registry, path: from}
		_, err := other.headBlob(ctx, id)
		return err == nil, orContext(ctx, nil)
	}
	resp, err := p.do(ctx, request{method: http.MethodPost, path: "/blobs/uploads/?mount=" + id.String() + "&from=" + from, from: from})
	if err != nil {
		return false, p.unmountable(ctx, err)
	}
	switch resp.StatusCode {
	case http.StatusCreated:
		drain(resp)
		return true, nil
	case http.StatusAccepted:
		at := location(resp)
		drain(resp)
		p.breakOff(ctx, at)
		return false, nil
	}
	return false, p.unmountable(ctx, answered(resp))
}

// unmountable passes over what a mount failed with: an upload does as well, and tells
// better what is wrong.
func (p *Repository) unmountable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.registry.o.Log.Debug("a blob is not mounted", "repository", p.path, "error", cleaned{err})
	return nil
}

// Held returns the manifests of an index that are there.
func (p *Repository) Held(ctx context.Context, index image.Digest) ([]image.Digest, error) {
	doc, err := p.Document(ctx, index)
	if err != nil {
		return nil, err
	}
	x, err := image.ParseIndex(doc)
	if err != nil {
		return nil, p.damaged("document", index, err)
	}
	c := remote.Closure{}
	for _, m := range x.Manifests {
		c.Documents = append(c.Documents, m.Digest)
	}
	found, err := p.Look(ctx, c, nil)
	if err != nil {
		return nil, err
	}
	var held []image.Digest
	for _, id := range c.Documents {
		if _, ok := found.Documents[id]; ok {
			held = append(held, id)
		}
	}
	return held, nil
}

// Hold makes sure that these manifests of an index are there in full: that they are
// there is all that says so.
func (p *Repository) Hold(ctx context.Context, _ image.Digest, manifests []image.Digest) error {
	if err := p.check(ctx); err != nil {
		return err
	}
	for _, id := range manifests {
		if _, _, err := p.whole(ctx, id); err != nil {
			return err
		}
	}
	return ctx.Err()
}
