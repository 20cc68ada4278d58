// Package catalog says what a remote holds: which tags, which images behind
// them, what they take and share.
package catalog

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// readers bounds how many tags are read at once.
const readers = 32

// Image is what a tag names.
type Image struct {
	Reference image.Reference `json:"reference"`
	ID        image.ID        `json:"id"`
	Created   *time.Time      `json:"created"` // null where the image does not say
	Platform  string          `json:"platform"`
	Size      int64           `json:"size"`   // bytes of its layers, decoded
	Stored    int64           `json:"stored"` // bytes that its layers take in the remote, shared ones included
	Damage    string          `json:"damage,omitempty"`

	contents *contents
}

// Catalog reads a remote and remembers what it has read: images and layers
// that many tags share are looked up once. It is safe for concurrent use.
type Catalog struct {
	source remote.Source
	mu     sync.Mutex
	images map[image.ID]*contents
	layers map[image.DiffID]remote.Layer
}

// New returns a catalog of source.
func New(source remote.Source) *Catalog {
	return &Catalog{
		source: source,
		images: map[image.ID]*contents{},
		layers: map[image.DiffID]remote.Layer{},
	}
}

// contents is what is known of an image, read once.
type contents struct {
	once   sync.Once
	doc    []byte
	config *image.Config
	layers []remote.Layer // each once
	err    error
}

// List returns what the tags of a repository name, of all repositories where
// it is empty, ordered by repository and tag. Damage of one image is told in
// its row and is not List's error.
func (c *Catalog) List(ctx context.Context, repository string) ([]Image, error) {
	var refs []image.Reference
	for ref, err := range c.source.References(ctx, repository) {
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, image.Reference.Compare)
	rows := make([]Image, len(refs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for i, ref := range refs {
		g.Go(func() (err error) {
			rows[i], err = c.image(gctx, ref)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	// A tag that was removed while it was listed is no row.
	return slices.DeleteFunc(rows, func(r Image) bool { return r.Reference.Tag == "" }), ctx.Err()
}

// image reads one tag. One that has gone gives the zero value.
func (c *Catalog) image(ctx context.Context, ref image.Reference) (Image, error) {
	id, err := c.source.Resolve(ctx, ref)
	if fault.Is(err, fault.NotFound) {
		return Image{}, ctx.Err()
	}
	row := Image{Reference: ref, ID: id}
	if err == nil {
		row.contents = c.contents(ctx, id)
		err = row.contents.err
	}
	if err != nil {
		if lasting(err) {
			row.Damage, row.contents = err.Error(), nil
			return row, nil
		}
		return Image{}, err
	}
	row.Created = row.contents.config.Created
	row.Platform = row.contents.config.Platform.String()
	for _, l := range row.contents.layers {
		row.Size += l.Size
		row.Stored += l.Stored
	}
	return row, nil
}

// lasting reports whether err is about the image and not about the way to it.
func lasting(err error) bool {
	return fault.Is(err, fault.Damaged) || errors.Is(err, errors.ErrUnsupported)
}

// contents reads an image's config and layers, at the first call for its ID.
// What failed on the way is read again by the next call, and at once by those
// who waited for a call that was cancelled.
func (c *Catalog) contents(ctx context.Context, id image.ID) *contents {
	for {
		c.mu.Lock()
		i, ok := c.images[id]
		if !ok {
			i = &contents{}
			c.images[id] = i
		}
		c.mu.Unlock()
		i.once.Do(func() { i.err = c.read(ctx, id, i) })
		if i.err == nil || lasting(i.err) {
			return i
		}
		c.mu.Lock()
		if c.images[id] == i {
			delete(c.images, id)
		}
		c.mu.Unlock()
		if !fault.Interrupted(i.err) || ctx.Err() != nil {
			return i
		}
	}
}

func (c *Catalog) read(ctx context.Context, id image.ID, i *contents) (err error) {
	if i.doc, err = c.source.Document(ctx, id); err != nil {
		return err
	}
	if i.config, err = image.ParseConfig(i.doc); err != nil {
		return fault.Wrap(fault.Damaged, err, "image %s", id.Short())
	}
	ids := image.Distinct(i.config.DiffIDs)
	var unknown []image.DiffID
	c.mu.Lock()
	for _, d := range ids {
		if _, ok := c.layers[d]; !ok {
			unknown = append(unknown, d)
		}
	}
	c.mu.Unlock()
	found, err := c.source.Layers(ctx, unknown)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range found {
		c.layers[l.DiffID] = l
	}
	for _, d := range ids {
		i.layers = append(i.layers, c.layers[d])
	}
	return nil
}

// Details is all about one image.
type Details struct {
	Image
	Layers  []Layer             `json:"layers"` // bottom first, as often as they occur
	History []ocispec.History   `json:"history"`
	Config  ocispec.ImageConfig `json:"config"`
}

// Layer is a layer of an image, and who else has it.
type Layer struct {
	remote.Layer
	Shared []image.Reference `json:"shared"` // other tags whose image has it
}

// Inspect returns all about the image that ref names. It reads every tag of
// the remote, to tell what is shared.
func (c *Catalog) Inspect(ctx context.Context, ref image.Reference) (*Details, error) {
	id, err := c.source.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	if i := c.contents(ctx, id); i.err != nil {
		return nil, i.err
	}
	row, err := c.image(ctx, ref)
	if err != nil {
		return nil, err
	}
	if row.contents == nil { // removed or damaged since
		return nil, fault.New(fault.NotFound, "%s has changed while it was read", ref)
	}
	shared, err := c.sharing(ctx, row)
	if err != nil {
		return nil, err
	}
	d := &Details{Image: row, History: row.contents.config.History, Config: row.contents.config.Run, Layers: []Layer{}}
	for _, diffID := range row.contents.config.DiffIDs {
		d.Layers = append(d.Layers, Layer{Layer: c.layer(diffID), Shared: shared[diffID]})
	}
	return d, nil
}

func (c *Catalog) layer(d image.DiffID) remote.Layer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.layers[d]
}

// sharing returns for each layer of row the other tags that have it.
func (c *Catalog) sharing(ctx context.Context, row Image) (map[image.DiffID][]image.Reference, error) {
	shared := map[image.DiffID][]image.Reference{}
	for _, l := range row.contents.layers {
		shared[l.DiffID] = []image.Reference{}
	}
	all, err := c.List(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, other := range all {
		if other.contents == nil || other.Reference == row.Reference {
			continue
		}
		for _, l := range other.contents.layers {
			if refs, ok := shared[l.DiffID]; ok {
				shared[l.DiffID] = append(refs, other.Reference)
			}
		}
	}
	return shared, nil
}
