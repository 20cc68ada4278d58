package layout

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

// Place is Contents that can be written. Its methods are safe for concurrent use.
type Place interface {
	Contents

	// Put stores the bytes of a digest, size of them or, where that is negative, as
	// many as come; they are proved by the end of body. Where body or ctx fails it
	// stores nothing, and returns an error that wraps body's.
	Put(ctx context.Context, id image.Digest, size int64, body io.Reader) error

	// Set lets the index name an item, instead of what had its name, and keeps all
	// others. Where only is set and the name is another item's, it changes nothing
	// and its error wraps storage.ErrExists.
	Set(ctx context.Context, item Item, only bool) error
}

// Target is a Place as a remote.Target. It holds layers as manifests name them: a
// compressed one is not there by its diffID.
type Target struct {
	*Source
	place Place

	mu     sync.Mutex
	proved map[image.Digest]int64 // layers whose bytes were hashed, and their sizes
	once   sync.Once              // for what manifests say of them
}

var (
	_ remote.Remote     = (*Target)(nil)
	_ remote.Closures   = (*Target)(nil)
	_ remote.TagCreator = (*Target)(nil)
)

// NewTarget returns the remote that a place is. name is what the user calls it.
func NewTarget(place Place, name string) *Target {
	return &Target{Source: &Source{place, name}, place: place, proved: map[image.Digest]int64{}}
}

// Closure returns an image's documents, and its layers as manifests name them.
func (t *Target) Closure(tree *image.Tree) (remote.Closure, error) {
	return remote.NamedClosure(tree)
}

// Missing looks the blobs of c up. Documents are proved, layers are not: Tag
// compares their sizes with what manifests say.
func (t *Target) Missing(ctx context.Context, c remote.Closure) (missing remote.Closure, there []remote.Layer, err error) {
	for _, id := range c.Documents {
		_, err := t.Document(ctx, id)
		var damage *remote.Damage
		switch {
		case errors.As(err, &damage):
			missing.Documents = append(missing.Documents, id)
		case err != nil:
			return missing, nil, err
		}
	}
	for _, id := range c.Layers {
		b, err := t.Stat(ctx, id)
		switch {
		case err == nil:
			there = append(there, layerOf(id, b))
		case errors.Is(err, storage.ErrNotFound):
			missing.Layers = append(missing.Layers, id)
		default:
			return missing, nil, t.failure(err, "cannot look into %s", t.Name)
		}
	}
	return missing, there, ctx.Err()
}

// PutLayer stores bytes as they are.
func (t *Target) PutLayer(ctx context.Context, layer image.Descriptor, r io.Reader) (remote.Layer, error) {
	count := &image.Watched{R: r}
	body := image.Verify(count, layer.Digest, layer.Size)
	tar, compressed := layer.Tar()
	var packed *codec.Contents
	if tar && compressed { // a copy has to know what is in it
		packed = codec.NewContents()
		body = io.TeeReader(body, packed)
	}
	err := t.place.Put(ctx, layer.Digest, layer.Size, body)
	done := remote.Layer{Digest: layer.Digest, Size: count.Count(), Stored: count.Count(), Object: objectOf(layer.Digest)}
	if packed != nil {
		sum, _, unpackErr := packed.End(err)
		done.Tar = sum
		if err == nil && unpackErr != nil {
			return remote.Layer{}, fault.Wrap(fault.Damaged, unpackErr, "layer %s is not what its media type %.100q says", layer.Digest.Short(), layer.MediaType)
		}
	}
	if err != nil {
		return remote.Layer{}, t.failure(err, "cannot store layer %s in %s", layer.Digest.Short(), t.Name)
	}
	t.mu.Lock()
	t.proved[layer.Digest] = done.Size
	t.mu.Unlock()
	return done, nil
}

// PutDocument stores a document, unless it is there.
func (t *Target) PutDocument(ctx context.Context, doc []byte) error {
	id := image.DigestOf(doc)
	if len(doc) > image.MaxDocument {
		return image.ErrTooLarge
	}
	if err := image.CheckDocument(doc); err != nil {
		return fault.Wrap(fault.Other, err, "%s is no document for %s", id.Short(), t.Name)
	}
	if _, err := t.Document(ctx, id); err == nil {
		return nil
	}
	err := t.place.Put(ctx, id, int64(len(doc)), image.Verify(bytes.NewReader(doc), id, int64(len(doc))))
	return t.failure(err, "cannot store %s in %s", id.Short(), t.Name)
}

// Tag lets ref name id once all of it is there. Of an image that has only a config
// it names the synthesised manifest, which it writes.
func (t *Target) Tag(ctx context.Context, ref image.Reference, id image.ID) error {
	return t.tag(ctx, ref, id, false)
}

// CreateTag is Tag for a name that nothing has.
func (t *Target) CreateTag(ctx context.Context, ref image.Reference, id image.ID) error {
	return t.tag(ctx, ref, id, true)
}

// MayCreate looks whether CreateTag would be refused.
func (t *Target) MayCreate(ctx context.Context, ref image.Reference, id image.ID, _ bool) error {
	items, err := t.Items(ctx)
	if err != nil {
		return t.failure(err, "cannot read %s", t.Name)
	}
	for _, item := range distinct(items, ref) {
		if item.Root.Digest != id && item.Config != id {
			return t.taken(ref)
		}
	}
	return ctx.Err()
}

func (t *Target) taken(ref image.Reference) error {
	return fault.New(fault.Refused, "%s exists in %s and names another image", ref, t.Name).
		Advise("Choose another name, or leave out --if-absent to move it.")
}

func (t *Target) tag(ctx context.Context, ref image.Reference, id image.ID, only bool) error {
	tree, sizes, err := t.whole(ctx, id)
	if err != nil {
		return err
	}
	item := Item{Name: ref, Root: image.Descriptor{Digest: id, Size: int64(len(tree.Doc))}}
	switch tree.Kind {
	case image.ConfigKind:
		layers := make([]image.Descriptor, len(tree.Config.DiffIDs))
		for i, d := range tree.Config.DiffIDs {
			layers[i] = image.Descriptor{Digest: d, Size: sizes[d]}
		}
		manifest := image.SynthesizeManifest(tree.Doc, layers)
		if err := t.PutDocument(ctx, manifest); err != nil {
			return err
		}
		item.Config = id
		item.Root = image.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: image.DigestOf(manifest), Size: int64(len(manifest))}
	case image.ManifestKind:
		item.Root.MediaType = image.MediaTypeOf(tree.Doc, ocispec.MediaTypeImageManifest)
	default:
		item.Root.MediaType = image.MediaTypeOf(tree.Doc, ocispec.MediaTypeImageIndex)
	}
	switch err := t.place.Set(ctx, item, only); {
	case errors.Is(err, storage.ErrExists):
		return t.taken(ref)
	case err != nil:
		return t.failure(err, "cannot write the name %s in %s", ref, t.Name)
	}
	_, _, err = t.whole(ctx, id)
	var lost *remote.IncompleteError
	if errors.As(err, &lost) {
		lost.Tagged = true
	}
	return err
}

// whole returns an image that is there in full, and the sizes of its layers; else an
// *IncompleteError.
func (t *Target) whole(ctx context.Context, id image.ID) (*image.Tree, map[image.Digest]int64, error) {
	tree, err := t.tree(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	if _, err := tree.Packed(); err != nil {
		return nil, nil, remote.NoImage(id, t.Name, err)
	}
	sizes := map[image.Digest]int64{}
	var missing remote.Closure
	for _, l := range tree.Layers() {
		size, err := t.sizeOf(ctx, l)
		switch {
		case errors.Is(err, storage.ErrNotFound):
			missing.Layers = append(missing.Layers, l.Digest)
		case err != nil:
			return nil, nil, t.failure(err, "cannot look into %s", t.Name)
		}
		sizes[l.Digest] = size
	}
	if !missing.Empty() {
		return nil, nil, &remote.IncompleteError{ID: id, Missing: missing}
	}
	return tree, sizes, ctx.Err()
}

// sizeOf returns the size of a layer that is there. ErrNotFound, wrapped, where it is
// not, or is another. Where no document tells its size, only its bytes prove that it
// is not a part of itself.
func (t *Target) sizeOf(ctx context.Context, l image.Descriptor) (int64, error) {
	b, err := t.Stat(ctx, l.Digest)
	if err != nil || l.Size == b.Size {
		return l.Size, err
	}
	torn := fmt.Errorf("%s has %d bytes: %w", b.Object, b.Size, storage.ErrNotFound)
	if l.Size >= 0 {
		return 0, torn
	}
	t.once.Do(func() { t.recall(ctx) })
	t.mu.Lock()
	size, known := t.proved[l.Digest]
	t.mu.Unlock()
	if known && size == b.Size {
		return size, nil
	}
	r, err := t.Contents.Open(ctx, b)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	hash := sha256.New()
	if size, err = io.CopyBuffer(hash, onlyReader{r}, make([]byte, 256<<10)); err != nil {
		return 0, err
	}
	if image.Digest(hash.Sum(nil)) != l.Digest {
		return 0, torn
	}
	t.mu.Lock()
	t.proved[l.Digest] = size
	t.mu.Unlock()
	return size, nil
}

// mostRecalled bounds the layers that recall remembers.
const mostRecalled = 100_000

// recall learns sizes of layers from the manifests that were synthesised for images
// which are named already: what they name was proved then. What it does not learn is
// hashed, so it has no errors.
func (t *Target) recall(ctx context.Context) {
	items, err := t.Items(ctx)
	if err != nil {
		return
	}
	sizes := map[image.Digest]int64{}
	for _, item := range items {
		if item.Config.IsZero() || len(sizes) > mostRecalled {
			continue
		}
		doc, err := t.Document(ctx, item.Root.Digest)
		if err != nil {
			continue
		}
		if m, err := image.ParseManifest(doc); err == nil {
			for _, l := range m.Layers {
				sizes[l.Digest] = l.Size
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, size := range sizes {
		if _, known := t.proved[id]; !known {
			t.proved[id] = size
		}
	}
}

type onlyReader struct{ io.Reader }

// tree reads the documents of an image, of an index those of the manifests that are
// there. One that is missing or damaged is an *IncompleteError.
func (t *Target) tree(ctx context.Context, id image.ID) (*image.Tree, error) {
	return remote.TreeToTag(ctx, id, t.Name, t.Document, t.Held)
}

// Hold makes sure that these manifests of an index are there in full: that they are
// there is all that says so.
func (t *Target) Hold(ctx context.Context, _ image.Digest, manifests []image.Digest) error {
	for _, id := range manifests {
		if _, _, err := t.whole(ctx, id); err != nil {
			return err
		}
	}
	return ctx.Err()
}
