package catalog

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// readTree reads the documents of an image, of an index those that the remote has.
func readTree(ctx context.Context, source remote.Source, id image.ID) (*image.Tree, error) {
	tree, err := remote.ReadTree(ctx, source, id, nil)
	var wrong *image.TreeError
	switch {
	case errors.As(err, &wrong):
		return nil, fault.Wrap(fault.Damaged, err, "image %s", id.Short())
	case err != nil:
		return nil, err
	case tree.Kind == image.IndexKind && len(tree.Children) == 0 && len(tree.Index.Manifests) > 0:
		return nil, fault.New(fault.Damaged, "image %s: none of its platforms is there", id.Short())
	}
	return tree, nil
}

// summarize returns what a row needs.
func summarize(tree *image.Tree) summary {
	s := summary{Layers: image.Distinct(layersOf(tree))}
	s.Documents, _ = tree.Documents()
	s.Documents = slices.DeleteFunc(s.Documents, func(d image.Digest) bool { return d == tree.ID })
	var platforms []string
	for _, config := range images(tree) {
		if s.Created == nil {
			s.Created = config.Created
		}
		platforms = append(platforms, told(config.Platform)...)
	}
	s.Platform = strings.Join(platforms, ", ")
	return s
}

// told is a platform as text, nothing where an image does not say: the oldest do not.
func told(p image.Platform) []string {
	if p == (image.Platform{}) {
		return nil
	}
	return []string{p.String()}
}

// layersOf returns an image's layers, bottom first, as often as they occur; of an
// index each once.
func layersOf(tree *image.Tree) []image.Digest {
	var ids []image.Digest
	switch tree.Kind {
	case image.ConfigKind:
		return tree.Config.DiffIDs
	case image.ManifestKind:
		for _, l := range tree.Manifest.Layers {
			ids = append(ids, l.Digest)
		}
	default:
		for _, l := range tree.Layers() {
			ids = append(ids, l.Digest)
		}
	}
	return ids
}

// images returns the configs of the images that an image is: one of each
// platform, attestations left out.
func images(tree *image.Tree) []*image.Config {
	if tree.Kind != image.IndexKind {
		if config := tree.Image(); config != nil {
			return []*image.Config{config}
		}
		return nil
	}
	attestation := map[image.Digest]bool{}
	for _, c := range tree.Index.Manifests {
		attestation[c.Digest] = !c.Attests.IsZero()
	}
	var all []*image.Config
	for _, c := range tree.Children {
		if config := c.Image(); config != nil && !attestation[c.ID] {
			all = append(all, config)
		}
	}
	return all
}

func firstImage(tree *image.Tree) *image.Config {
	for _, config := range images(tree) {
		return config
	}
	return nil
}

// index returns what an index names; of other images nothing.
func index(tree *image.Tree) []Platform {
	if tree.Kind != image.IndexKind {
		return nil
	}
	held := map[image.Digest]bool{}
	for _, c := range tree.Children {
		held[c.ID] = true
	}
	var all []Platform
	for _, c := range tree.Index.Manifests {
		all = append(all, Platform{Digest: c.Digest, Platform: c.Platform.String(), Attests: c.Attests, Held: held[c.Digest]})
	}
	return all
}
