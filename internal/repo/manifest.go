package repo

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

var _ remote.Manifests = (*Repo)(nil)

// ManifestOf returns the manifest that a push has stored for a config, where it
// follows from the config; else, as where there is none, the one that does. It
// writes nothing. The sizes of a stored one are those that the push had.
func (r *Repo) ManifestOf(ctx context.Context, config image.ID) ([]byte, error) {
	doc, err := r.Document(ctx, config)
	if err != nil {
		return nil, err
	}
	stored, err := r.storedManifest(ctx, config)
	if err != nil {
		return nil, err
	}
	if stored != nil && follows(doc, stored) {
		return stored, nil
	}
	return remote.MakeManifest(ctx, r, doc)
}

// storedManifest returns the manifest that the pointer of a config names, nil where
// there is none that could be read.
func (r *Repo) storedManifest(ctx context.Context, config image.ID) ([]byte, error) {
	pointer, err := r.small(ctx, entryKey(config, entryManifest))
	switch {
	case errors.Is(err, storage.ErrNotFound), fault.Is(err, fault.Damaged):
		return nil, nil
	case err != nil:
		return nil, r.failure(err, "cannot read %s", r.name)
	}
	id, err := parseID(pointer)
	if err != nil {
		return nil, nil //nolint:nilerr // it is made anew
	}
	manifest, err := r.document(ctx, id)
	var torn *tornError
	if errors.As(err, &torn) {
		return nil, nil
	}
	return manifest, r.failure(err, "cannot read %s", r.name)
}

// follows reports whether a manifest is the synthesised one of a config, with
// whatever sizes of layers.
func follows(config, manifest []byte) bool {
	m, err := image.ParseManifest(manifest)
	if err != nil {
		return false
	}
	c, err := image.ParseConfig(config)
	if err != nil {
		return false
	}
	sameLayers := slices.EqualFunc(m.Layers, c.DiffIDs, func(l image.Descriptor, d image.DiffID) bool { return l.Digest == d })
	return sameLayers && bytes.Equal(image.SynthesizeManifest(config, m.Layers), manifest)
}
