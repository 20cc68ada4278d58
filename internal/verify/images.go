package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

const (
	// resolvers bounds the tags that are read at once. It is for remotes far away.
	resolvers = 128
	// treeReaders bounds the images whose documents are in memory at once.
	treeReaders = 32
)

// resolve learns which images there are.
func (r *run) resolve(ctx context.Context) error {
	r.o.Progress.Status("reading tags")
	refs := r.o.Images
	if len(refs) == 0 {
		for tag, err := range r.from.References(ctx, "") {
			if err != nil {
				return err
			}
			refs = append(refs, tag.Reference)
		}
	}
	ids := make([]image.ID, len(refs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(resolvers)
	for i, ref := range refs {
		g.Go(func() (err error) {
			ids[i], err = r.resolveOne(gctx, ref)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, ref := range refs {
		if ids[i].IsZero() {
			continue
		}
		m := r.images[ids[i]]
		if m == nil {
			m = &img{id: ids[i]}
			r.images[m.id] = m
			r.order = append(r.order, m)
		}
		m.tags = append(m.tags, ref)
	}
	if len(r.o.Images) > 0 {
		return ctx.Err()
	}
	return r.members(ctx)
}

// resolveOne returns no ID of a tag that is damaged, or has been removed since it was listed.
func (r *run) resolveOne(ctx context.Context, ref image.Reference) (image.ID, error) {
	id, err := r.from.Resolve(ctx, ref)
	switch {
	case err == nil:
		r.success()
		return id, nil
	case fault.Is(err, fault.NotFound) && len(r.o.Images) == 0:
		return image.ID{}, ctx.Err()
	case fault.Is(err, fault.NotFound) || errors.Is(err, context.Canceled):
		return image.ID{}, err
	case lasting(err) && !ref.Digest.IsZero():
		return ref.Digest, nil // its document is told to be damaged when it is read
	case lasting(err):
		f := findingOf(err, WrongTag, ref.String(), cure{})
		f.Images = []image.Reference{ref}
		r.found(f)
		return image.ID{}, nil
	}
	return image.ID{}, r.failure(ctx, err, ref.String(), cure{}, &img{tags: []image.Reference{ref}})
}

// readImages reads the documents of images and learns which layers they need.
func (r *run) readImages(ctx context.Context, images []*img) error {
	r.o.Progress.Status("reading documents")
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(treeReaders)
	for _, m := range images {
		g.Go(func() error {
			all, err := r.read(gctx, m, m.id)
			if err != nil {
				return err
			}
			r.learn(m, all)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// reading is what could be read of an image: a tree, or a document whose children
// could not, or are in trees of their own.
type reading struct {
	*image.Tree
	alone bool
}

// read reads the document id of an image and those below it. What is damaged
// becomes a finding, and hides nothing beside it.
func (r *run) read(ctx context.Context, m *img, id image.Digest) ([]reading, error) {
	tree, err := remote.ReadTree(ctx, r.from, id, nil)
	switch {
	case err == nil:
		r.success()
		if tree.Kind == image.IndexKind && len(tree.Children) == 0 && len(tree.Index.Manifests) > 0 {
			r.found(&finding{
				Finding: Finding{Object: r.objectOf(id), Problem: Unmarked, Detail: "it is an index, and none of its platforms is said to be here"},
				cure:    cure{unmarked: id}, images: []*img{m},
			})
		}
		return []reading{{tree, false}}, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	doc, docErr := r.from.Document(ctx, id)
	if docErr != nil && id == m.id && len(m.tags) > 0 && errors.Is(docErr, remote.ErrOriginal) && r.originals != nil {
		return nil, r.readOld(ctx, m)
	}
	if docErr != nil {
		return nil, r.lost(ctx, m, id, docErr)
	}
	if index, indexErr := image.ParseIndex(doc); indexErr == nil {
		return r.readHeld(ctx, m, &image.Tree{ID: id, Doc: doc, Kind: image.IndexKind, Index: index})
	}
	alone := &image.Tree{ID: id, Doc: doc}
	if manifest, manifestErr := image.ParseManifest(doc); manifestErr == nil { // its layers are known without its config
		alone.Kind, alone.Manifest = image.ManifestKind, manifest
		id = manifest.Config.Digest
	}
	return []reading{{alone, true}}, r.lost(ctx, m, id, err)
}

// readHeld reads the manifests of an index one by one.
func (r *run) readHeld(ctx context.Context, m *img, index *image.Tree) ([]reading, error) {
	all := []reading{{index, true}}
	held := make([]image.Digest, len(index.Index.Manifests))
	for i, c := range index.Index.Manifests {
		held[i] = c.Digest
	}
	if holder, ok := r.from.(remote.Holder); ok {
		marked, err := holder.Held(ctx, index.ID)
		if err != nil {
			return all, r.lost(ctx, m, index.ID, err)
		}
		held = slices.DeleteFunc(held, func(d image.Digest) bool { return !slices.Contains(marked, d) })
	}
	for _, id := range image.Distinct(held) {
		doc, err := r.from.Document(ctx, id)
		if err == nil {
			if _, err := image.ParseManifest(doc); err != nil {
				r.wrong(m, id, err)
				continue
			}
		}
		more, err := r.read(ctx, m, id)
		if err != nil {
			return all, err
		}
		all = append(all, more...)
	}
	return all, nil
}

// lost notes that a document of an image cannot be read, or makes none.
func (r *run) lost(ctx context.Context, m *img, id image.Digest, err error) error {
	var wrong *image.TreeError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &wrong):
		r.wrong(m, wrong.ID, err)
	case lasting(err):
		r.found(findingOf(err, Damaged, r.objectOf(id), cure{document: id}, m))
	default:
		return r.failure(ctx, err, r.objectOf(id), cure{document: id}, m)
	}
	return nil
}

func (r *run) wrong(m *img, id image.Digest, err error) {
	r.found(&finding{Finding: Finding{Object: r.objectOf(id), Problem: WrongKind, Detail: err.Error()}, images: []*img{m}})
}

// learn notes what an image needs.
func (r *run) learn(m *img, all []reading) {
	for _, t := range all {
		if _, err := packedOf(t); err != nil {
			r.wrong(m, t.ID, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range all {
		ids, _ := t.Documents()
		for _, id := range ids {
			r.documents[id] = true
		}
		for _, d := range t.Layers() {
			l := r.needs(m, d.Digest)
			if l.own.MediaType == "" {
				l.own = d
			}
		}
		packed, _ := packedOf(t)
		for id, d := range packed {
			r.needs(m, id).packed = &d
		}
		r.learnConfigs(m, t.Tree)
	}
	m.reread = true
}

// packedOf is remote.ClosureOf's way to the diffIDs of compressed layers.
func packedOf(t reading) (map[image.DiffID]image.Descriptor, error) {
	if t.alone {
		return nil, nil
	}
	return t.Packed()
}

// needs returns the layer of that name, which m needs. r.mu is held.
func (r *run) needs(m *img, id image.Digest) *layer {
	l := r.layers[id]
	if l == nil {
		l = &layer{digest: id, own: image.Descriptor{Digest: id, Size: -1}}
		r.layers[id], r.toLook = l, append(r.toLook, l)
	}
	l.borrowed = false
	// Within one reading an image comes to a layer more than once, but nobody in between.
	if n := len(l.images); n == 0 || l.images[n-1] != m && (!m.reread || !slices.Contains(l.images, m)) {
		l.images = append(l.images, m)
	}
	return l
}

// confirm drops what is missing of images that are not tagged any more, and belong
// to no repository: they may have been removed while this ran.
func (r *run) confirm(ctx context.Context) error {
	gone := map[*img]bool{}
	var members map[image.ID]bool // nil until somebody asks
	for _, f := range r.findings {
		if f.Problem != Missing || r.open[f.key()] != f {
			continue
		}
		for _, m := range f.images {
			if _, known := gone[m]; known {
				continue
			}
			still := false
			for _, ref := range m.tags {
				id, err := r.from.Resolve(ctx, ref)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if still = still || err != nil && !fault.Is(err, fault.NotFound) || id == m.id; still {
					break
				}
			}
			if !still && len(m.members) > 0 {
				if members == nil {
					var err error
					if members, err = r.belong(ctx); err != nil {
						return err
					}
				}
				still = members[m.id]
			}
			gone[m] = !still
		}
	}
	r.findings = slices.DeleteFunc(r.findings, func(f *finding) bool {
		if f.Problem != Missing || r.open[f.key()] != f {
			return false
		}
		f.images = slices.DeleteFunc(f.images, func(m *img) bool { return gone[m] })
		return len(f.images) == 0 && len(f.Images) == 0
	})
	return nil
}

// countUnreferenced counts the entries that neither tags nor memberships reach.
func (r *run) countUnreferenced(ctx context.Context) error {
	lister, ok := r.from.(remote.Lister)
	if !ok || len(r.o.Images) > 0 {
		return nil
	}
	for _, f := range r.open {
		if f.hides() {
			return nil
		}
	}
	r.o.Progress.Status("listing what is there")
	reached := make(map[image.Digest]bool, len(r.documents)+len(r.layers))
	for id := range r.documents {
		reached[id] = true
	}
	for id := range r.layers {
		reached[id] = true
	}
	for id := range r.old {
		reached[id] = true
	}
	for _, c := range r.configs {
		for _, id := range c.keeps {
			reached[id] = true
		}
	}
	var count Unreferenced
	for e, err := range lister.Entries(ctx) {
		if err != nil {
			return fmt.Errorf("listing all entries: %w", err)
		}
		if reached[e.ID] {
			continue
		}
		count.Entries++
		count.Bytes += e.Bytes
		if r.o.Unreferenced != nil {
			r.o.Unreferenced(e)
		}
	}
	r.unreferenced = &count
	return nil
}
