package engine

import (
	"context"

	mobyimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"

	"github.com/dogestry/dogestry/internal/engine/contentstore"
	"github.com/dogestry/dogestry/internal/image"
)

// manifests reads what an engine with the containerd image store says of an
// image's manifests. What it says of something else than images is left out.
func manifests(list []mobyimage.ManifestSummary) []Manifest {
	var all []Manifest
	for _, s := range list[:min(len(list), image.MaxManifests)] {
		m := Manifest{Whole: s.Available}
		var err error
		if m.Digest, err = image.ParseDigest(s.ID); err != nil {
			continue
		}
		if s.ImageData != nil {
			p := s.ImageData.Platform
			m.Platform = image.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion}
		}
		if s.AttestationData != nil {
			m.Attests, _ = image.ParseDigest(string(s.AttestationData.For))
		}
		all = append(all, m)
	}
	return all
}

// ManifestReader returns those of the manifests that it can, by their digests.
type ManifestReader func(ctx context.Context, ids []image.Digest) (map[image.Digest]*image.Manifest, error)

// HeldBlobs returns which of the wanted blobs an engine with the containerd image
// store has: layers, and images by their manifests. It looks into the content
// store where that can be read: an engine takes some 20 ms for each image that it
// lists. What is there and about to be removed, or of another namespace, counts
// too; a load without it fails or leaves an image that is not whole, which the
// caller has to notice in any case.
//
// Else the engine is asked for all its images. Held are those that it lists, whole
// or not, and the layers of the manifests that it says it has whole. What a
// manifest names is remembered, else asked of read; layers of a manifest of which
// nothing is known are left out. That the engine has unpacked a layer (RootFS)
// proves no blob: what was pulled compressed it has under another digest, and what
// it lacks it cannot export.
func (c *Client) HeldBlobs(ctx context.Context, wanted []image.Digest, read ManifestReader) (held map[image.Digest]bool, err error) {
	held, err = c.blobsInStore(wanted)
	if err == nil {
		return held, nil
	}
	c.log.Debug("the engine is asked which layers it has: its own store is not read", "why", err)
	return c.blobsOfImages(ctx, read)
}

// blobsInStore looks into the engine's content store.
func (c *Client) blobsInStore(wanted []image.Digest) (map[image.Digest]bool, error) {
	root, err := c.storeRoot()
	if err != nil {
		return nil, err
	}
	store, err := contentstore.OpenOf(root, c.containerd)
	if err != nil {
		return nil, err
	}
	held := map[image.Digest]bool{}
	for _, d := range wanted {
		if held[d], err = store.Has(d); err != nil {
			return nil, err
		}
	}
	return held, nil
}

// blobsOfImages asks the engine for all of its images.
func (c *Client) blobsOfImages(ctx context.Context, read ManifestReader) (map[image.Digest]bool, error) {
	list, err := c.api.ImageList(ctx, client.ImageListOptions{All: true, Manifests: true})
	if err != nil {
		return nil, c.failure(ctx, err, "cannot list images")
	}
	known := c.layers.load()
	held := map[image.Digest]bool{}
	var unknown []image.Digest
	for _, item := range list.Items {
		if id, err := image.ParseDigest(item.ID); err == nil {
			held[id] = true
		}
		for _, m := range manifests(item.Manifests) {
			if !m.Whole {
				continue
			}
			layers, ok := known[m.Digest]
			if !ok {
				unknown = append(unknown, m.Digest)
			}
			for _, d := range layers {
				held[d] = true
			}
		}
	}
	if len(unknown) == 0 {
		return held, nil
	}
	found, err := read(ctx, image.Distinct(unknown))
	if err != nil {
		return nil, err
	}
	learned := map[image.Digest]*image.Manifest{}
	for _, id := range unknown {
		if m := found[id]; m != nil {
			learned[id] = m
			for _, l := range m.Layers {
				held[l.Digest] = true
			}
		}
	}
	c.Remember(learned)
	return held, nil
}

// Remember keeps what manifests name, for HeldBlobs.
func (c *Client) Remember(manifests map[image.Digest]*image.Manifest) {
	lists := make(map[image.Digest][]image.Digest, len(manifests))
	for id, m := range manifests {
		lists[id] = []image.Digest{}
		for _, l := range m.Layers {
			lists[id] = append(lists[id], l.Digest)
		}
	}
	c.layers.add(lists)
}
