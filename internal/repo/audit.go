package repo

import (
	"context"
	"errors"
	"fmt"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

var _ remote.Auditor = (*Repo)(nil)

// ObjectOf returns the key of a document.
func (r *Repo) ObjectOf(document image.Digest) string { return entryKey(document, entryJSON) }

// Audit proves the synthesised manifest of a config, and the pointer to it. That
// one of them is missing is no damage: they follow from config and layers, and
// the next push writes them again. Where the layers are not all known, nothing is proved.
func (r *Repo) Audit(ctx context.Context, config image.Digest, layers []remote.Layer) (keeps []image.Digest, damage []error, err error) {
	key := entryKey(config, entryManifest)
	pointer, err := r.small(ctx, key)
	tooLarge := fault.Is(err, fault.Damaged)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, nil, nil
	case err != nil && !tooLarge:
		return nil, nil, r.failure(err, "cannot read %s", r.name)
	}
	named, parseErr := parseID(pointer)
	manifest, err := r.synthesize(ctx, config, layers)
	switch {
	case err != nil:
		return nil, nil, err
	case manifest == nil && parseErr != nil:
		return nil, nil, nil
	case manifest == nil:
		return []image.Digest{named}, nil, nil
	}
	id := image.DigestOf(manifest)
	switch {
	case tooLarge:
		damage = append(damage, r.wrongPointer(key, "is too large"))
	case parseErr != nil:
		damage = append(damage, r.wrongPointer(key, parseErr.Error()))
	case named != id:
		damage = append(damage, r.wrongPointer(key, fmt.Sprintf("names %s, and not %s, which follows from the config and the sizes of the layers", named.Short(), id.Short())))
	}
	_, err = r.document(ctx, id)
	var torn *tornError
	switch {
	case errors.As(err, &torn) && !torn.missing:
		damage = append(damage, r.incomplete(torn))
	case err != nil && torn == nil:
		return nil, nil, r.failure(err, "cannot read %s", r.name)
	}
	return []image.Digest{id}, damage, nil
}

func (r *Repo) wrongPointer(key, how string) error {
	where := &remote.Damage{Object: key, Text: key + " in " + r.name + ": " + how}
	return fault.Wrap(fault.Damaged, where, "the pointer to a manifest is damaged").Advise("Push the image again to write it anew.")
}

// synthesize returns the manifest of a config, nil where that is damaged or is
// none, or not all of its layers are known.
func (r *Repo) synthesize(ctx context.Context, id image.Digest, layers []remote.Layer) ([]byte, error) {
	doc, err := r.document(ctx, id)
	var torn *tornError
	if errors.As(err, &torn) {
		return nil, nil
	}
	if err != nil {
		return nil, r.failure(err, "cannot read %s", r.name)
	}
	config, err := image.ParseConfig(doc)
	if err != nil {
		return nil, nil // whoever needs it says so
	}
	known := make(map[image.Digest]bool, len(layers))
	for _, l := range layers {
		known[l.Digest] = true
	}
	for _, d := range config.DiffIDs {
		if !known[d] {
			return nil, nil
		}
	}
	return image.SynthesizeManifest(doc, remote.Ordered(config.DiffIDs, layers)), nil
}

// Restore writes manifest and pointer.
func (r *Repo) Restore(ctx context.Context, config image.Digest, layers []remote.Layer) error {
	manifest, err := r.synthesize(ctx, config, layers)
	if err == nil && manifest != nil {
		err = r.putManifest(ctx, config, manifest)
	}
	return r.failure(err, "cannot write to %s", r.name)
}
