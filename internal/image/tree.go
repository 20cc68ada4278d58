package image

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Tree is an image as its documents tell it: a config; a manifest and its
// config; or an index and those of its manifests that are meant.
type Tree struct {
	ID   Digest
	Doc  []byte
	Kind Kind // of Doc; UnknownKind where it is the config of something else than an image

	Config   *Config   // of a config
	Manifest *Manifest // of a manifest
	Index    *Index    // of an index
	Children []*Tree   // of a manifest its config; of an index the manifests that are meant, in the order of the index
}

// Reader says where ReadTree reads.
type Reader struct {
	// Document returns a document that has been verified.
	Document func(context.Context, Digest) ([]byte, error)
	// Pick says which manifests of an index are meant. It has to be given where
	// there may be indexes.
	Pick func(ctx context.Context, id Digest, index *Index) ([]Digest, error)
}

// MaxTree bounds the documents of an image together, in bytes. What is read at
// once may go beyond it before it is noticed.
const MaxTree int64 = 64 << 20

// treeReaders bounds the documents that are read at once.
const treeReaders = 16

// ReadTree reads the documents of an image. Its own errors say that they make no
// image; those of r come out as they are.
func ReadTree(ctx context.Context, id Digest, r Reader) (*Tree, error) {
	var size atomic.Int64
	read := r.Document
	r.Document = func(ctx context.Context, doc Digest) ([]byte, error) {
		b, err := read(ctx, doc)
		if err == nil && size.Add(int64(len(b))) > MaxTree {
			return nil, &TreeError{id, fmt.Errorf("its documents have more than %d bytes", MaxTree)}
		}
		return b, err
	}
	doc, err := r.Document(ctx, id)
	if err != nil {
		return nil, err
	}
	t := &Tree{ID: id, Doc: doc}
	if t.Kind, err = KindOf(doc); err != nil {
		return nil, t.wrong(err)
	}
	switch t.Kind {
	case ConfigKind:
		if t.Config, err = ParseConfig(doc); err != nil {
			return nil, t.wrong(err)
		}
		return t, nil
	case ManifestKind:
		return t, t.readManifest(ctx, r)
	default:
		return t, t.readIndex(ctx, r)
	}
}

// TreeError says that documents make no image.
type TreeError struct {
	ID    Digest // of the document that is wrong
	cause error
}

func (e *TreeError) Error() string { return fmt.Sprintf("document %s: %v", e.ID.Short(), e.cause) }

func (e *TreeError) Unwrap() error { return e.cause }

func (t *Tree) wrong(err error) error { return &TreeError{t.ID, err} }

func (t *Tree) readManifest(ctx context.Context, r Reader) (err error) {
	if t.Manifest, err = ParseManifest(t.Doc); err != nil {
		return t.wrong(err)
	}
	if t.Manifest.Config.Size > MaxDocument {
		return t.wrong(ErrTooLarge)
	}
	doc, err := r.Document(ctx, t.Manifest.Config.Digest)
	if err != nil {
		return err
	}
	config := &Tree{ID: t.Manifest.Config.Digest, Doc: doc}
	t.Children = []*Tree{config}
	if keys, err := uniqueKeys(doc, "rootfs", "layers", "manifests"); err != nil {
		return config.wrong(err)
	} else if len(keys) == 0 {
		return nil // of something else than an image
	}
	if config.Kind, err = KindOf(doc); err == nil {
		config.Config, err = ParseConfig(doc)
	}
	if err != nil {
		return config.wrong(err)
	}
	t.Manifest.sayPlain(config.Config)
	return nil
}

// sayPlain gives layers that the config has by the same digest, so that nothing is
// compressed in them, the media type of what they are: docker calls each layer
// that it pushes compressed, also one that it has pulled plain.
func (m *Manifest) sayPlain(c *Config) {
	if len(c.DiffIDs) != len(m.Layers) {
		return
	}
	for i, l := range m.Layers {
		if tar, compressed := l.Tar(); tar && compressed && l.Digest == c.DiffIDs[i] {
			m.Layers[i].MediaType = ocispec.MediaTypeImageLayer
		}
	}
}

func (t *Tree) readIndex(ctx context.Context, r Reader) (err error) {
	if t.Index, err = ParseIndex(t.Doc); err != nil {
		return t.wrong(err)
	}
	picked, err := r.Pick(ctx, t.ID, t.Index)
	if err != nil {
		return err
	}
	meant := make(map[Digest]bool, len(picked))
	for _, d := range picked {
		meant[d] = true
	}
	var ids []Digest
	for _, c := range t.Index.Manifests {
		if meant[c.Digest] {
			ids = append(ids, c.Digest)
		}
	}
	ids = Distinct(ids)
	t.Children = make([]*Tree, len(ids))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(treeReaders)
	for i, id := range ids {
		g.Go(func() error {
			doc, err := r.Document(gctx, id)
			if err != nil {
				return err
			}
			t.Children[i] = &Tree{ID: id, Doc: doc, Kind: ManifestKind}
			return t.Children[i].readManifest(gctx, r)
		})
	}
	return g.Wait()
}

// Image returns the config of the image that t is, nil where it is an index or
// something else than an image.
func (t *Tree) Image() *Config {
	if t.Kind == ManifestKind {
		return t.Children[0].Config
	}
	return t.Config
}

// Documents returns the IDs and the bytes of all documents, each once, those
// before that others name.
func (t *Tree) Documents() (ids []Digest, docs [][]byte) {
	seen := map[Digest]bool{}
	var add func(*Tree)
	add = func(t *Tree) {
		for _, c := range t.Children {
			add(c)
		}
		if !seen[t.ID] {
			seen[t.ID] = true
			ids, docs = append(ids, t.ID), append(docs, t.Doc)
		}
	}
	add(t)
	return ids, docs
}

// Layers returns what holds the image's files, each once, bottom first: what its
// manifests name, or, of a config alone, its diffIDs. Sizes are -1 where no
// document tells them.
func (t *Tree) Layers() []Descriptor {
	var layers []Descriptor
	seen := map[Digest]bool{}
	add := func(d Descriptor) {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			layers = append(layers, d)
		}
	}
	switch t.Kind {
	case ConfigKind:
		for _, d := range t.Config.DiffIDs {
			add(Descriptor{Digest: d, Size: -1})
		}
	case ManifestKind:
		for _, d := range t.Manifest.Layers {
			add(d)
		}
	case IndexKind:
		for _, c := range t.Children {
			for _, d := range c.Layers() {
				add(d)
			}
		}
	}
	return layers
}

// errLayers says that a manifest and its config have not the same number of layers.
var errLayers = errors.New("its config has another number of layers")

// Packed returns the diffIDs of layers that the image's manifests name
// compressed, and how they name them.
func (t *Tree) Packed() (map[DiffID]Descriptor, error) {
	packed := map[DiffID]Descriptor{}
	if t.Kind == IndexKind {
		for _, c := range t.Children {
			more, err := c.Packed()
			if err != nil {
				return nil, err
			}
			for id, d := range more {
				packed[id] = d
			}
		}
	}
	if config := t.Image(); t.Kind == ManifestKind && config != nil {
		if len(config.DiffIDs) != len(t.Manifest.Layers) {
			return nil, t.wrong(errLayers)
		}
		for i, d := range t.Manifest.Layers {
			if tar, compressed := d.Tar(); tar && compressed {
				packed[config.DiffIDs[i]] = d
			}
		}
	}
	return packed, nil
}
