package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// Image is what the engine tells about an image without exporting it.
type Image struct {
	ID       image.ID
	DiffIDs  []image.DiffID // bottom first
	Tags     []string       // as the engine shows them
	Platform image.Platform
	Size     int64 // bytes unpacked, as the engine counts them

	// Manifests are what an index names, or the one manifest that the image is, in
	// a containerd image store; of other stores none.
	Manifests []Manifest
}

// Manifest is one of an image's manifests in a containerd image store.
type Manifest struct {
	Digest   image.Digest
	Whole    bool           // the engine has all that it names
	Platform image.Platform // of an image
	Attests  image.Digest   // of an attestation: what it is about
}

// Inspect looks up an image by reference or ID (GET /images/{name}/json). A
// missing one is a NotFound fault that lists the nearest names.
func (c *Client) Inspect(ctx context.Context, name string) (Image, error) {
	r, err := c.api.ImageInspect(ctx, name, client.ImageInspectWithManifests(c.kind == Containerd))
	if errdefs.IsNotFound(err) {
		f := fault.New(fault.NotFound, "no image %q in the engine at %s", name, c.host)
		if near := c.near(ctx, name); len(near) > 0 {
			f = f.Advise("Did you mean %s?", strings.Join(near, ", "))
		}
		return Image{}, f
	}
	if err != nil {
		return Image{}, c.failure(ctx, err, "cannot inspect %s", name)
	}
	img := Image{
		Tags:     r.RepoTags,
		Platform: image.Platform{OS: r.Os, Architecture: r.Architecture, Variant: r.Variant, OSVersion: r.OsVersion},
		Size:     r.Size,
	}
	if img.ID, err = image.ParseDigest(r.ID); err != nil {
		return Image{}, fault.Wrap(fault.Other, err, "the engine at %s gave image %s a strange ID", c.host, name)
	}
	if c.kind == Containerd {
		img.Manifests = manifests(r.Manifests)
		return img, nil
	}
	if len(r.RootFS.Layers) > image.MaxLayers {
		return Image{}, fault.New(fault.Other, "image %s has %d layers, more than %d", name, len(r.RootFS.Layers), image.MaxLayers)
	}
	for _, l := range r.RootFS.Layers {
		d, err := image.ParseDigest(l)
		if err != nil {
			return Image{}, fault.Wrap(fault.Other, err, "the engine at %s gave image %s a strange layer", c.host, name)
		}
		img.DiffIDs = append(img.DiffIDs, d)
	}
	return img, nil
}

// Has reports whether the engine holds an image, and all that these manifests of
// it name: an engine with the containerd image store may list an image that it
// has not all of.
func (c *Client) Has(ctx context.Context, id image.ID, whole ...image.Digest) (bool, error) {
	r, err := c.api.ImageInspect(ctx, id.String(), client.ImageInspectWithManifests(len(whole) > 0))
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, c.failure(ctx, err, "cannot inspect %s", id.Short())
	}
	has := map[image.Digest]bool{}
	for _, m := range manifests(r.Manifests) {
		has[m.Digest] = m.Whole
	}
	for _, d := range whole {
		if !has[d] {
			return false, nil
		}
	}
	return true, nil
}

// Tag lets ref name an image that the engine holds (POST /images/{name}/tag).
func (c *Client) Tag(ctx context.Context, id image.ID, ref image.Reference) error {
	target := ref.Repository + ":" + ref.Tag
	if _, err := c.api.ImageTag(ctx, client.ImageTagOptions{Source: id.String(), Target: target}); err != nil {
		return c.failure(ctx, err, "cannot tag %s as %s", id.Short(), target)
	}
	return nil
}

// RemoveUntagged removes an image that no tag names and no container uses, and
// leaves any other alone (DELETE /images/{name}).
func (c *Client) RemoveUntagged(ctx context.Context, id image.ID) error {
	r, err := c.api.ImageInspect(ctx, id.String())
	if errdefs.IsNotFound(err) || (err == nil && len(r.RepoTags) > 0) {
		return nil
	}
	if err == nil {
		_, err = c.api.ImageRemove(ctx, id.String(), client.ImageRemoveOptions{})
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return c.failure(ctx, err, "cannot remove %s", id.Short())
	}
	return nil
}

// near returns the names in the engine that resemble name, best first, a few
// at most. Failing to list gives none: the caller has an error to tell already.
func (c *Client) near(ctx context.Context, name string) []string {
	list, err := c.api.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return nil
	}
	var tags []string
	for _, i := range list.Items {
		tags = append(tags, i.RepoTags...)
	}
	return Near(name, tags)
}

// Near returns those of names that resemble name: another tag of the same
// repository, the same last element, or a few letters different; at most five.
func Near(name string, names []string) []string {
	const most = 5
	repository, tag := splitTag(name)
	type scored struct {
		name  string
		score int
	}
	var found []scored
	for _, n := range names {
		r, t := splitTag(n)
		d := fault.Distance(repository, r)
		switch {
		case r == repository:
			d = 0
		case lastElement(r) == lastElement(repository):
			d = 1
		}
		if d <= max(1, len(repository)/4) {
			found = append(found, scored{n, 100*d + fault.Distance(tag, t)})
		}
	}
	slices.SortFunc(found, func(a, b scored) int {
		if a.score != b.score {
			return a.score - b.score
		}
		return strings.Compare(a.name, b.name)
	})
	var near []string
	for _, f := range found[:min(most, len(found))] {
		near = append(near, f.name)
	}
	return near
}

func splitTag(name string) (repository, tag string) {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:]
	}
	return name, "latest"
}

func lastElement(repository string) string {
	return repository[strings.LastIndexByte(repository, '/')+1:]
}

// String names the image for people.
func (i Image) String() string {
	if len(i.Tags) > 0 {
		return i.Tags[0]
	}
	return fmt.Sprintf("image %s", i.ID.Short())
}
