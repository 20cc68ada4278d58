package repo

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

const tornAdvice = "The copy of this remote is not complete: copy it again, or push the image again to complete it."

// Document returns a document, verified.
func (r *Repo) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	doc, err := r.document(ctx, id)
	var torn *tornError
	if !errors.As(err, &torn) {
		return doc, r.failure(err, "cannot read %s", r.name)
	}
	if r.isOriginal(ctx, id) {
		return nil, fault.Wrap(fault.Other, errOriginal{}, "image %s in %s was written by the original dogestry (format 1.0)", id.Short(), r.name)
	}
	return nil, fault.New(fault.Damaged, "incomplete copy: %s in %s", torn.what, r.name).Advise(tornAdvice)
}

// errOriginal says that an image is sound and of no use here.
type errOriginal struct{}

func (errOriginal) Error() string { return "this version does not read it" }

func (errOriginal) Is(target error) bool { return target == errors.ErrUnsupported }

// isOriginal reports whether an entry is one of the original dogestry's.
func (r *Repo) isOriginal(ctx context.Context, id image.Digest) bool {
	version, err := r.small(ctx, entryKey(id, entryVersion))
	return err == nil && strings.TrimSpace(string(version)) == "1.0"
}

// Layers looks all of them up.
func (r *Repo) Layers(ctx context.Context, ids []image.DiffID) ([]remote.Layer, error) {
	found, torn, err := r.layers(ctx, ids)
	if err != nil {
		return nil, err
	}
	layers := make([]remote.Layer, len(found))
	for i, e := range found {
		if torn[i] != nil {
			return nil, fault.New(fault.Damaged, "incomplete copy: %s in %s", torn[i].what, r.name).Advise(tornAdvice)
		}
		layers[i] = e.Layer
	}
	return layers, nil
}

// Open opens a layer that Layers returned.
func (r *Repo) Open(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	c, ok := codecOf(strings.TrimPrefix(layer.Object, entryPrefix(layer.DiffID)))
	if !ok {
		return nil, fault.New(fault.Other, "%s in %s is no layer", layer.Object, r.name)
	}
	stored, err := r.store.Get(ctx, layer.Object, 0, -1)
	if errors.Is(err, storage.ErrNotFound) { // since Layers looked
		return nil, fault.New(fault.Damaged, "incomplete copy: %s is missing in %s", layer.Object, r.name).Advise(tornAdvice)
	}
	if err != nil {
		return nil, r.failure(err, "cannot read layer %s from %s", layer.DiffID.Short(), r.name)
	}
	return newLayerReader(r, layer, c, stored), nil
}

// layerReader decodes and verifies. It tells a transport's failure from damage.
type layerReader struct {
	repo    *Repo
	layer   remote.Layer
	stored  *keeper
	decoded io.ReadCloser
	proved  io.Reader
}

func newLayerReader(r *Repo, layer remote.Layer, c codec.Codec, stored io.ReadCloser) *layerReader {
	l := &layerReader{repo: r, layer: layer, stored: &keeper{ReadCloser: stored}}
	l.decoded = c.Decode(l.stored)
	l.proved = image.Verify(l.decoded, layer.DiffID, layer.Size)
	return l
}

func (l *layerReader) Read(p []byte) (int, error) {
	n, err := l.proved.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	if broken := l.stored.failed(); broken != nil {
		return n, l.repo.failure(broken, "cannot read layer %s from %s", l.layer.DiffID.Short(), l.repo.name)
	}
	return n, fault.Wrap(fault.Damaged, err, "layer %s is damaged: %s in %s", l.layer.DiffID.Short(), l.layer.Object, l.repo.name).
		Advise("Remove the folder %s from the remote and push the image again from an engine that has it.",
			strings.TrimSuffix(entryPrefix(l.layer.DiffID), "/"))
}

// Close ends the decoder before the object that it reads.
func (l *layerReader) Close() error {
	return errors.Join(l.decoded.Close(), l.stored.Close())
}
