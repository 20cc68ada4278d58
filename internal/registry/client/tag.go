package client

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Tag lets ref name id once all of it is there: the manifest or index itself, or, of
// an image by its config, a manifest that is made of that and of the blobs in which
// its layers lie. The registry looks once more when it takes it. What is in another
// repository of the registry is mounted, or copied. What points outside is refused.
func (p *Repository) Tag(ctx context.Context, ref image.Reference, id image.ID) error {
	if err := p.check(ctx); err != nil {
		return err
	}
	doc, docs, err := p.whole(ctx, id)
	var lost *remote.IncompleteError
	if other := p.registry.home(id); errors.As(err, &lost) && other != nil && other != p {
		if err := p.adopt(ctx, other, ref, id); err != nil {
			return err
		}
		doc, docs, err = p.whole(ctx, id)
	}
	if err == nil { // PutDocument has refused it, but others may have stored it
		err = remote.CheckOutside(ref.String(), docs...)
	}
	if err != nil {
		return err
	}
	if err := p.putManifest(ctx, ref.Tag, doc); err != nil {
		return p.failure(ctx, p.incomplete(id, doc, err), "cannot tag %s in %s", ref, p.registry.o.Name)
	}
	p.remember(image.DigestOf(doc), doc)
	return ctx.Err()
}

// whole returns the manifest or index of an image that is there in full, and all of
// its documents; else an *IncompleteError.
func (p *Repository) whole(ctx context.Context, id image.ID) (doc []byte, docs [][]byte, err error) {
	tree, err := p.tree(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	c, err := p.Closure(tree)
	if err != nil {
		return nil, nil, p.noImage(id, err)
	}
	found, err := p.Look(ctx, c, nil)
	if err != nil {
		return nil, nil, err
	}
	var missing remote.Closure
	for _, id := range image.Distinct(c.Documents) {
		if _, ok := found.Documents[id]; !ok {
			missing.Documents = append(missing.Documents, id)
		}
	}
	sizes := map[image.Digest]int64{}
	for _, l := range tree.Layers() {
		if l.Size >= 0 {
			sizes[l.Digest] = l.Size
		}
	}
	for _, id := range image.Distinct(c.Layers) {
		l, ok := found.Layers[id]
		if want, known := sizes[id]; !ok || known && l.Stored >= 0 && l.Stored != want {
			missing.Layers = append(missing.Layers, id)
		}
	}
	if !missing.Empty() {
		return nil, nil, &remote.IncompleteError{ID: id, Missing: missing}
	}
	_, docs = tree.Documents()
	if tree.Kind != image.ConfigKind {
		return tree.Doc, docs, nil
	}
	return p.manifestOf(tree, found.Layers), docs, nil
}

// manifestOf makes the manifest of an image by its config. Where its layers are
// plain tars it is the one that docs/format.md synthesises.
func (p *Repository) manifestOf(tree *image.Tree, there map[image.Digest]remote.Layer) []byte {
	layers := make([]image.Descriptor, len(tree.Config.DiffIDs))
	for i, id := range tree.Config.DiffIDs {
		l := there[id]
		layers[i] = image.Descriptor{MediaType: None.media(), Digest: id, Size: l.Stored}
		for _, in := range p.candidates(id) {
			if in.Digest == l.Packed {
				layers[i] = image.Descriptor{MediaType: in.Media, Digest: in.Digest, Size: l.Stored}
			}
		}
	}
	return image.StackManifest(tree.Doc, layers)
}

// tree reads the documents of an image, of an index those of the manifests that are
// there. One that is missing or damaged is an *IncompleteError.
func (p *Repository) tree(ctx context.Context, id image.ID) (*image.Tree, error) {
	return remote.TreeToTag(ctx, id, p.where(), p.Document, p.Held)
}

func (p *Repository) noImage(id image.ID, err error) error { return remote.NoImage(id, p.where(), err) }

// incomplete turns what a registry says of a document that names what it lacks into
// an *IncompleteError; other errors stay as they are.
func (p *Repository) incomplete(id image.ID, doc []byte, err error) error {
	a := answerOf(err)
	if a == nil {
		return err
	}
	lost := a.digests(errcode.ErrorCodeManifestBlobUnknown, errcode.ErrorCodeBlobUnknown, errcode.ErrorCodeManifestUnknown)
	if len(lost) == 0 {
		return err
	}
	if x, parsed := image.ParseIndex(doc); parsed == nil {
		for _, c := range x.Manifests {
			if slices.Contains(lost, c.Digest) {
				return fault.Wrap(fault.Refused, cleaned{err}, "%s takes no image without all of its platforms, and %s has not all", p.registry.o.Name, id.Short()).
					Advise("Push or copy all of them, or one by its own digest: IMAGE@sha256:… --as NAME:TAG. `dogestry inspect` shows the digests.")
			}
		}
	}
	missing := remote.Closure{}
	for _, d := range lost {
		if p.remembered(d) != nil {
			missing.Documents = append(missing.Documents, d)
			continue
		}
		if tar, ok := p.unpackedOf(d); ok {
			d = tar
		}
		missing.Layers = append(missing.Layers, d)
	}
	return &remote.IncompleteError{ID: id, Missing: missing}
}

// adopt brings here what another repository of the registry has of an image.
func (p *Repository) adopt(ctx context.Context, from *Repository, ref image.Reference, id image.ID) error {
	tree, err := from.tree(ctx, id)
	if err != nil {
		return err
	}
	ids, docs := tree.Documents()
	if err := remote.CheckOutside(ref.String(), docs...); err != nil {
		return err
	}
	c, err := p.Closure(tree)
	if err != nil {
		return p.noImage(id, err)
	}
	missing, _, err := p.Missing(ctx, c)
	if err != nil {
		return err
	}
	found, err := from.Look(ctx, remote.Closure{Layers: missing.Layers}, nil)
	if err != nil {
		return err
	}
	var layers []remote.Layer
	var lost remote.Closure
	for _, id := range missing.Layers {
		if l, ok := found.Layers[id]; ok {
			layers = append(layers, l)
		} else {
			lost.Layers = append(lost.Layers, id)
		}
	}
	if !lost.Empty() {
		return &remote.IncompleteError{ID: id, Missing: lost}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for _, l := range layers {
		g.Go(func() error { return p.take(gctx, from, l) })
	}
	if err := g.Wait(); err != nil {
		return orContext(ctx, err)
	}
	for i, doc := range docs {
		if !slices.Contains(missing.Documents, ids[i]) {
			continue
		}
		if err := p.PutDocument(ctx, doc); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// take copies a blob that could not be mounted.
func (p *Repository) take(ctx context.Context, from *Repository, l remote.Layer) error {
	raw := remote.Layer{Digest: l.Digest, Size: l.Size, Stored: l.Stored}
	if !l.Packed.IsZero() {
		raw = remote.Layer{Digest: l.Packed, Size: l.Stored, Stored: l.Stored}
		for _, in := range from.candidates(l.Digest) {
			if in.Digest == l.Packed {
				p.notePacked(l.Digest, in)
			}
		}
	}
	r, err := from.Open(ctx, raw)
	if err != nil {
		return err
	}
	_, _, err = p.put(ctx, r, l.Stored)
	if err = errors.Join(err, r.Close()); err != nil {
		return p.failure(ctx, err, "cannot store layer %s in %s", l.Digest.Short(), p.where())
	}
	return nil
}

// Untag removes the tag ref while it names id, by a look just before: registries
// know no condition. Some remove images with all their tags only; there it is refused
// while another tag names the image, or an index with it.
func (p *Repository) Untag(ctx context.Context, ref image.Reference, id image.ID) error {
	if err := p.check(ctx); err != nil {
		return err
	}
	now, err := p.headManifest(ctx, ref.Tag)
	if isStatus(err, http.StatusNotFound) {
		return nil
	}
	if err != nil {
		return p.failure(ctx, err, "cannot look for %s in %s", ref, p.registry.o.Name)
	}
	if now != id {
		doc, err := p.Document(ctx, now)
		if err != nil {
			return err
		}
		if m, err := image.ParseManifest(doc); err != nil || m.Config.Digest != id {
			return fault.New(fault.Refused, "%s names another image by now", ref).Advise("Look at it, and run the same command again.")
		}
	}
	remove := func(reference string) error {
		_, err := p.ask(ctx, request{method: http.MethodDelete, path: "/manifests/" + reference, erase: true}, http.StatusAccepted, http.StatusOK, http.StatusNoContent)
		if isStatus(err, http.StatusNotFound) {
			return nil
		}
		return err
	}
	err = remove(ref.Tag)
	if a := answerOf(err); a != nil && (a.status == http.StatusBadRequest || a.status == http.StatusMethodNotAllowed || a.has(errcode.ErrorCodeUnsupported)) {
		others, failed := p.needing(ctx, now, ref.Tag)
		if failed != nil {
			return failed
		}
		if len(others) > 0 {
			return fault.Wrap(fault.Refused, cleaned{err}, "%s removes no tag alone, and other tags need what %s names", p.registry.o.Name, ref).
				Advise("They name it, or an image for several platforms that it is a part of: %s. What removes it breaks them.", strings.Join(others[:min(len(others), 5)], ", "))
		}
		err = remove(now.String())
	}
	return p.failure(ctx, err, "cannot remove %s from %s", ref, p.registry.o.Name)
}

// needing returns the tags but one that name a manifest, or an index that does. It
// fails where it cannot read all of them: what is not known may need it.
func (p *Repository) needing(ctx context.Context, id image.Digest, but string) ([]string, error) {
	var all []string
	err := p.tags(ctx, func(tag string) bool {
		if tag != but {
			all = append(all, tag)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	needs := make([]bool, len(all))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asking)
	for i, tag := range all {
		g.Go(func() (err error) {
			needs[i], err = p.needs(gctx, tag, id)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, orContext(ctx, err)
	}
	var some []string
	for i, tag := range all {
		if needs[i] {
			some = append(some, tag)
		}
	}
	return some, nil
}

// needs reports whether a tag names a manifest, or an index with it.
func (p *Repository) needs(ctx context.Context, tag string, id image.Digest) (bool, error) {
	doc, err := p.get(ctx, "/manifests/"+tag)
	if isStatus(err, http.StatusNotFound) { // since the list
		return false, nil
	}
	if err != nil {
		return false, p.failure(ctx, err, "cannot read %s:%s in %s", p.name, tag, p.registry.o.Name)
	}
	if image.DigestOf(doc) == id {
		return true, nil
	}
	seen := map[image.Digest]bool{}
	var within func(doc []byte, depth int) (bool, error)
	within = func(doc []byte, depth int) (bool, error) {
		kind, err := image.KindOf(doc)
		if err == nil && kind == image.ManifestKind {
			return false, nil
		}
		x, err := image.ParseIndex(doc)
		if err != nil || depth == mostNested {
			return false, fault.New(fault.Refused, "%s:%s in %s is nothing that this version can read", p.name, tag, p.registry.o.Name).
				Advise("It may need what is to be removed, which stays.")
		}
		for _, c := range x.Manifests {
			if c.Digest == id {
				return true, nil
			}
			if slices.Contains(singleTypes, c.MediaType) || seen[c.Digest] {
				continue
			}
			seen[c.Digest] = true
			doc, err := p.Document(ctx, c.Digest)
			if err != nil {
				return false, err
			}
			if found, err := within(doc, depth+1); found || err != nil {
				return found, err
			}
		}
		return false, nil
	}
	return within(doc, 0)
}

// singleTypes are those of manifests that have no others in them.
var singleTypes = []string{ocispec.MediaTypeImageManifest, "application/vnd.docker.distribution.manifest.v2+json"}

// mostNested bounds how deep indexes lie in each other.
const mostNested = 8
