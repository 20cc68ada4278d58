package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	mobyimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"

	"github.com/dogestry/dogestry/internal/engine/contentstore"
	"github.com/dogestry/dogestry/internal/engine/layerstore"
	"github.com/dogestry/dogestry/internal/image"
)

// Tar is a layer's tar in the engine's own store. It is safe for concurrent use.
// ReadAt reads contents of files; of the rest of the tar it may say that it is an
// errors.ErrUnsupported. Nothing is verified: the engine may change or delete the
// layer meanwhile.
type Tar interface {
	io.ReaderAt
	io.Closer
	Size() int64 // bytes
}

// Relative is a layer that the engine has.
type Relative struct {
	Digest image.Digest // its diffID; in a containerd image store the blob's digest, which for a plain tar is the same
	Size   int64        // of its tar in bytes, -1 where only opening it tells
	// Open opens the tar, which may take time and memory in proportion to its files.
	// What it returns ends with ctx, and is closed by the caller. An error says
	// no more than that this layer cannot be used.
	Open func(ctx context.Context) (Tar, error)
}

const (
	// maxKin bounds the images, in a containerd image store manifests, whose layers are looked for.
	maxKin = 64
	// maxRelatives bounds the layers that Relatives returns.
	maxRelatives = 256
)

// Relatives returns layers of the engine's images that can be read at any offset:
// data that a new version of a layer most likely has too. Those come first that
// most likely resemble what the images of these names will have: layers of the
// same repositories, of the newest image first, and then those of other images.
// Layers without, which the new images have themselves, come last. There are at
// most 256, each once, of at most 64 images.
//
// It fails with errors.ErrUnsupported where the engine's own store cannot be read or is
// not to be, and of Podman, which keeps layers in another way. Of a containerd
// image store there are only layers that it has as plain tars; and other
// images are asked for only where those of the repositories give nothing new: it
// takes some 20 ms for each image that it lists.
func (c *Client) Relatives(ctx context.Context, names []image.Reference, without []image.Digest) ([]Relative, error) {
	store, err := c.openTars()
	if errors.Is(err, fs.ErrNotExist) { // it has no layers yet
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: no layers of the engine are read at offsets: %w", errors.ErrUnsupported, err)
	}
	repositories := map[string]bool{}
	for _, n := range names {
		repositories[n.Repository] = true
	}
	known := map[image.Digest]bool{}
	for _, d := range without {
		known[d] = true
	}
	var options client.ImageListOptions
	if c.kind == Containerd {
		for r := range repositories {
			if options.Filters == nil {
				options.Filters = client.Filters{}
			}
			options.Filters.Add("reference", r)
		}
	}
	for {
		list, err := c.api.ImageList(ctx, options)
		if err != nil {
			return nil, c.failure(ctx, err, "cannot list images")
		}
		layers, err := store.layers(ctx, kin(list.Items, repositories))
		if err != nil {
			return nil, err
		}
		found := pick(layers, known)
		if len(found) > 0 && !known[found[0].Digest] || options.Filters == nil {
			return found, nil
		}
		options.Filters = nil
	}
}

// kin returns the images that most likely resemble those of these repositories,
// the likeliest first.
func kin(list []mobyimage.Summary, repositories map[string]bool) []image.ID {
	near := func(s mobyimage.Summary) int {
		for _, name := range s.RepoTags {
			if r, _ := splitTag(name); repositories[r] {
				return 0
			}
		}
		for _, name := range s.RepoDigests {
			if r, _, _ := strings.Cut(name, "@"); repositories[r] {
				return 0
			}
		}
		return 1
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b mobyimage.Summary) int {
		return cmp.Or(near(a)-near(b), cmp.Compare(b.Created, a.Created), cmp.Compare(a.ID, b.ID))
	})
	var ids []image.ID
	for _, s := range list {
		if id, err := image.ParseDigest(s.ID); err == nil && len(ids) < maxKin {
			ids = append(ids, id)
		}
	}
	return ids
}

// pick returns each layer once, those that are known behind the others.
func pick(layers []Relative, known map[image.Digest]bool) []Relative {
	seen := map[image.Digest]bool{}
	var fresh, rest []Relative
	for _, l := range layers {
		switch {
		case seen[l.Digest]:
		case known[l.Digest]:
			rest = append(rest, l)
		default:
			fresh = append(fresh, l)
		}
		seen[l.Digest] = true
	}
	all := append(fresh, rest...)
	return all[:min(maxRelatives, len(all))]
}

// tarStore is an engine's own store, as Relatives reads it.
type tarStore interface {
	// layers returns the layers of images, in their order. An image that is not there gives none.
	layers(ctx context.Context, ids []image.ID) ([]Relative, error)
}

func (c *Client) openTars() (tarStore, error) {
	root, err := c.storeRoot()
	if err != nil {
		return nil, err
	}
	switch c.kind {
	case Classic:
		store, err := layerstore.Open(root, c.driver)
		return classicTars{c, store}, err
	case Containerd:
		store, err := contentstore.OpenOf(root, c.containerd)
		return contentTars{contentStore{store}}, err
	}
	return nil, fmt.Errorf("an engine of the kind %s", c.kind)
}

type classicTars struct {
	client *Client
	store  *layerstore.Store
}

func (s classicTars) layers(ctx context.Context, ids []image.ID) ([]Relative, error) {
	lists, err := s.client.listsOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	var all []Relative
	for _, id := range ids {
		diffIDs := lists[id]
		for i, stack := range image.ChainIDs(diffIDs) {
			all = append(all, Relative{Digest: diffIDs[i], Size: -1, Open: func(ctx context.Context) (Tar, error) {
				return opened(s.store.Tar(ctx, stack))
			}})
		}
	}
	return all, nil
}

type contentTars struct{ store contentStore }

func (s contentTars) layers(ctx context.Context, ids []image.ID) ([]Relative, error) {
	var all []Relative
	for _, m := range s.manifests(ctx, ids) {
		for _, l := range m.Layers {
			if tar, compressed := l.Tar(); !tar || compressed {
				continue
			}
			if has, err := s.store.Has(l.Digest); err != nil || !has {
				continue
			}
			all = append(all, Relative{Digest: l.Digest, Size: l.Size, Open: func(context.Context) (Tar, error) {
				return opened(s.store.Tar(l.Digest))
			}})
		}
	}
	return all, ctx.Err()
}

// manifests reads the manifests of images, also those that their indexes name, until
// ctx ends. What is not there or makes no sense is left out.
func (s contentTars) manifests(ctx context.Context, ids []image.Digest) []*image.Manifest {
	var found []*image.Manifest
	for looked := 0; len(ids) > 0 && len(found) < maxKin && looked < 4*maxKin && ctx.Err() == nil; looked++ {
		doc, err := s.store.Document(ids[0])
		ids = ids[1:]
		if err != nil {
			continue
		}
		if m, err := image.ParseManifest(doc); err == nil {
			found = append(found, m)
		} else if x, err := image.ParseIndex(doc); err == nil {
			ids = append(s.children(x), ids...)
		}
	}
	return found
}

// children returns which manifests of an index are there.
func (s contentTars) children(x *image.Index) []image.Digest {
	var ids []image.Digest
	for _, c := range x.Manifests {
		if has, err := s.store.Has(c.Digest); err == nil && has && c.Attests.IsZero() {
			ids = append(ids, c.Digest)
		}
	}
	return ids
}

// opened makes nil of what could not be opened.
func opened[T Tar](tar T, err error) (Tar, error) {
	if err != nil {
		return nil, err
	}
	return tar, nil
}
