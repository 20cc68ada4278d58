package remotetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// mendings is as in package transfer.
const mendings = 3

// Push makes the calls that a push makes, one after the other: Begin, Missing,
// PutLayer for each layer that is missing, PutDocument, Tag; and again what
// Tag says has vanished. It returns what was missing at first.
func Push(ctx context.Context, to remote.Target, ref image.Reference, img Image) (remote.Closure, error) {
	to, end := remote.Begin(to, nil)
	defer end(ctx)
	first, _, err := to.Missing(ctx, img.Closure())
	if err != nil {
		return first, err
	}
	missing := first
	for range mendings {
		if err = Put(ctx, to, img, missing); err != nil {
			return first, err
		}
		err = to.Tag(ctx, ref, img.ID)
		var incomplete *remote.IncompleteError
		if !errors.As(err, &incomplete) {
			return first, err
		}
		missing = incomplete.Missing
	}
	return first, err
}

// Put writes the part of img that is missing, layers first.
func Put(ctx context.Context, to remote.Target, img Image, missing remote.Closure) error {
	for _, id := range missing.Layers {
		tar := img.Layer(id)
		stored, err := to.PutLayer(ctx, image.Descriptor{Digest: id, Size: int64(len(tar))}, bytes.NewReader(tar))
		if err != nil {
			return err
		}
		if stored.Digest != id || stored.Size != int64(len(tar)) {
			return fmt.Errorf("layer %s of %d bytes was stored as %s of %d bytes", id, len(tar), stored.Digest, stored.Size)
		}
	}
	for _, id := range missing.Documents {
		if id != img.ID {
			return fmt.Errorf("the remote wants %s, which is no document of the image", id)
		}
		if err := to.PutDocument(ctx, img.Config); err != nil {
			return err
		}
	}
	return nil
}

// Pull reads all that ref names and proves it with digests of its own.
func Pull(ctx context.Context, from remote.Source, ref image.Reference) (Image, error) {
	id, err := from.Resolve(ctx, ref)
	if err != nil {
		return Image{}, err
	}
	tree, err := remote.ReadTree(ctx, from, id, nil)
	if err != nil {
		return Image{}, err
	}
	ids, docs := tree.Documents()
	for i, doc := range docs {
		if sha256.Sum256(doc) != ids[i] {
			return Image{}, fmt.Errorf("the document %s came with other bytes", ids[i])
		}
	}
	config := tree.Image()
	if config == nil {
		return Image{}, fmt.Errorf("%s is %s, and no image", id, tree.Kind)
	}
	layers, err := remote.Layers(ctx, from, config.DiffIDs)
	if err != nil {
		return Image{}, err
	}
	if len(layers) != len(config.DiffIDs) {
		return Image{}, fmt.Errorf("%d layers came for %d diffIDs", len(layers), len(config.DiffIDs))
	}
	img := Image{ID: ids[0], Config: docs[0]} // the config, which is named by others
	for i, l := range layers {
		if l.Digest != config.DiffIDs[i] {
			return Image{}, fmt.Errorf("layer %d is %s, not %s", i, l.Digest, config.DiffIDs[i])
		}
		tar, err := Read(ctx, from, l)
		if err != nil {
			return Image{}, err
		}
		if sha256.Sum256(tar) != l.Digest || l.Size >= 0 && int64(len(tar)) != l.Size {
			return Image{}, fmt.Errorf("the layer %s of %d bytes came with %d other bytes", l.Digest, l.Size, len(tar))
		}
		img.Layers = append(img.Layers, tar)
	}
	return img, nil
}

// Read returns a layer's tar. After an error it returns what came before it.
func Read(ctx context.Context, from remote.Source, l remote.Layer) ([]byte, error) {
	r, err := from.Open(ctx, l)
	if err != nil {
		return nil, err
	}
	tar, err := io.ReadAll(r)
	return tar, errors.Join(err, r.Close())
}
