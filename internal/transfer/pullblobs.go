package transfer

import (
	"context"
	"slices"
	"sync"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// This file is what a pull does otherwise for an engine with the containerd image
// store, which keeps an image's documents and layers as blobs, by their digests
// (docs/decisions/0011-containerd-image-store.md).

// synthesize makes of a config the manifest that the remote's format has for it,
// and so an image that the engine has a name for.
func (p *pull) synthesize() {
	doc := image.SynthesizeManifest(p.tree.Doc, p.descriptors(p.tree.Config.DiffIDs))
	manifest, err := image.ParseManifest(doc)
	if err != nil {
		panic(err) // it is ours
	}
	p.tree = &image.Tree{ID: image.DigestOf(doc), Doc: doc, Kind: image.ManifestKind, Manifest: manifest, Children: []*image.Tree{p.tree}}
	p.id = p.tree.ID
}

// root is what the archive is of.
func (p *pull) root() image.Descriptor {
	if p.tree.Kind == image.IndexKind {
		return image.Descriptor{MediaType: image.MediaTypeOf(p.tree.Doc, ocispec.MediaTypeImageIndex), Digest: p.tree.ID, Size: int64(len(p.tree.Doc))}
	}
	return manifestDescriptor(p.tree.Doc)
}

// native returns the manifest of the image that the engine unpacks, nil where
// there is none for its platform.
func (p *pull) native() *image.Tree {
	for _, m := range p.manifests() {
		config := m.Image()
		if config != nil && len(config.DiffIDs) == len(m.Manifest.Layers) && platforms.Only(oci(p.to.Platform())).Match(oci(config.Platform)) {
			return m
		}
	}
	return nil
}

// blobStack returns the documents of an image of the lowest n layers of a manifest alone.
func blobStack(m *image.Tree, n int) (config, manifest []byte) {
	c := m.Image()
	config = image.StackConfig(c.Platform, c.DiffIDs[:n])
	return config, image.StackManifest(config, m.Manifest.Layers[:n])
}

// blobParts cuts the image between layers. Blobs that the engine has are left out
// wherever they are.
func (p *pull) blobParts(send []image.Digest, piece int64) []part {
	m := p.native()
	if m == nil {
		return []part{p.whole(send)}
	}
	var parts []part
	var some []image.Digest
	size, left, rest := int64(0), total(p.descriptors(send)), slices.Clone(send)
	for i, l := range m.Manifest.Layers {
		at := slices.Index(rest, l.Digest)
		if at < 0 {
			continue
		}
		rest = slices.Delete(rest, at, at+1)
		some = append(some, l.Digest)
		if size += l.Size; size < piece || left-size < piece || i == len(m.Manifest.Layers)-1 {
			continue
		}
		config, manifest := blobStack(m, i+1)
		parts = append(parts, part{id: image.DigestOf(manifest), root: manifestDescriptor(manifest), docs: [][]byte{config, manifest}, send: some})
		left, size, some = left-size, 0, nil
	}
	return append(parts, p.whole(append(some, rest...)))
}

// manifests are those that the engine is to have whole.
func (p *pull) manifests() []*image.Tree {
	if p.tree.Kind == image.IndexKind {
		return p.tree.Children
	}
	return []*image.Tree{p.tree}
}

// hasWhole reports whether the engine has all of the image.
func (p *pull) hasWhole(ctx context.Context) (bool, error) {
	var ids []image.Digest
	for _, m := range p.manifests() {
		ids = append(ids, m.ID)
	}
	has, err := p.to.Has(ctx, p.id, ids...)
	if has && err == nil {
		p.remember()
	}
	return has, err
}

// remember keeps what the image's manifests name: a later pull asks what the
// engine has by then.
func (p *pull) remember() {
	manifests := map[image.Digest]*image.Manifest{}
	for _, m := range p.manifests() {
		manifests[m.ID] = m.Manifest
	}
	p.to.Remember(manifests)
}

// unknownManifests bounds the manifests in the engine that the remote is asked
// about. The newest come first.
const unknownManifests = 128

// readManifests returns the manifests that this pull knows, and reads those that
// the remote has too.
func (p *pull) readManifests(ctx context.Context, ids []image.Digest) (map[image.Digest]*image.Manifest, error) {
	found := map[image.Digest]*image.Manifest{}
	for _, m := range p.manifests() {
		found[m.ID] = m.Manifest
	}
	if m := p.native(); m != nil { // what a killed pull has left
		for n := range m.Manifest.Layers {
			_, stack := blobStack(m, n+1)
			found[image.DigestOf(stack)] = &image.Manifest{Layers: m.Manifest.Layers[:n+1]}
		}
	}
	var ask []image.Digest
	for _, id := range ids {
		if found[id] == nil && len(ask) < unknownManifests {
			ask = append(ask, id)
		}
	}
	there, err := p.from.Look(ctx, remote.Closure{Documents: ask}, nil)
	if err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(manifestReaders)
	var mu sync.Mutex
	for id := range there.Documents {
		g.Go(func() error {
			doc, err := p.from.Document(gctx, id)
			if fault.Is(err, fault.Damaged) {
				return nil // not this pull's concern
			}
			if err != nil {
				return err
			}
			if m, err := image.ParseManifest(doc); err == nil {
				mu.Lock()
				defer mu.Unlock()
				found[id] = m
			}
			return nil
		})
	}
	return found, g.Wait()
}

// manifestReaders bounds the manifests that are read at once.
const manifestReaders = 16

// lackingBlobs returns the layers that the engine has not as blobs. An
// engine matches what it has unpacked before it looks for blobs, so what is left
// out must be there as a blob, or the image could not be exported again.
func (p *pull) lackingBlobs(ctx context.Context) ([]image.Digest, error) {
	wanted := image.Distinct(p.order)
	var stacks []image.ID
	if m := p.native(); m != nil {
		for n := range m.Manifest.Layers {
			_, stack := blobStack(m, n+1)
			stacks = append(stacks, image.DigestOf(stack))
		}
	}
	have, err := p.to.HeldBlobs(ctx, slices.Concat(wanted, stacks), p.readManifests)
	if err != nil {
		return nil, err
	}
	for _, id := range stacks {
		if have[id] {
			p.left = append(p.left, id)
		}
	}
	return slices.DeleteFunc(wanted, func(d image.Digest) bool { return have[d] }), nil
}
