package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

// metadata is the json of a layer's entry.
type metadata struct {
	DiffID     image.DiffID `json:"diffID"`
	Size       int64        `json:"size"`       // bytes, decoded; binding
	File       string       `json:"file"`       // what its writer wrote beside it
	StoredSize int64        `json:"storedSize"` // bytes of that file; a hint

	document bool // the json is a document, and says nothing of files
}

// layerEntry is what a look at images/<id>/ found of a layer.
type layerEntry struct {
	remote.Layer
	file string // the file to read
	fits bool   // the file is the one that the metadata names, in the size it names
}

// tornError says what a layer's entry lacks. It is no failure for a push,
// which completes it.
type tornError struct{ what string }

func (e *tornError) Error() string { return e.what }

// layer looks an entry up. Its error is a *tornError where the entry is not
// there or not whole: it exists when its json parses and a file is beside it.
func (r *Repo) layer(ctx context.Context, id image.DiffID) (layerEntry, error) {
	prefix := entryPrefix(id)
	sizes := map[string]int64{}
	for info, err := range r.store.List(ctx, prefix) {
		if err != nil {
			return layerEntry{}, err
		}
		sizes[strings.TrimPrefix(info.Key, prefix)] = info.Size
	}
	if len(sizes) == 0 {
		return layerEntry{}, &tornError{"entry " + entryPrefix(id) + " is missing"}
	}
	if _, ok := sizes[entryJSON]; !ok {
		return layerEntry{}, &tornError{entryKey(id, entryJSON) + " is missing"}
	}
	meta, err := r.metadata(ctx, id)
	if err != nil {
		return layerEntry{}, err
	}
	e := layerEntry{Layer: remote.Layer{DiffID: id, Size: meta.Size}}
	e.file = chooseFile(meta.File, sizes)
	if e.file == "" {
		return layerEntry{}, &tornError{entryKey(id, layerFile(r.codec)) + " is missing"}
	}
	e.Stored = sizes[e.file]
	e.Object = entryKey(id, e.file)
	e.fits = meta.document || e.file == meta.File && e.Stored == meta.StoredSize
	return e, nil
}

// chooseFile prefers the file that the metadata names.
func chooseFile(named string, sizes map[string]int64) string {
	if _, ok := codecOf(named); ok {
		if _, ok := sizes[named]; ok {
			return named
		}
	}
	for _, c := range readOrder {
		if _, ok := sizes[layerFile(c)]; ok {
			return layerFile(c)
		}
	}
	return ""
}

// metadata reads the json of a layer's entry. Where that is a document, the
// layer has the same sha256 and therefore the same bytes.
func (r *Repo) metadata(ctx context.Context, id image.DiffID) (metadata, error) {
	key := entryKey(id, entryJSON)
	b, err := r.read(ctx, key, image.MaxDocument)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return metadata{}, &tornError{key + " is missing"}
	case fault.Is(err, fault.Damaged):
		return metadata{}, &tornError{key + " is too large"}
	case err != nil:
		return metadata{}, err
	}
	if image.DigestOf(b) == id {
		return metadata{DiffID: id, Size: int64(len(b)), document: true}, nil
	}
	var m metadata
	if len(b) > maxSmall {
		return metadata{}, &tornError{key + " is too large"}
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return metadata{}, &tornError{fmt.Sprintf("%s does not parse: %v", key, err)}
	}
	if m.DiffID != id || m.Size < 0 {
		return metadata{}, &tornError{key + " is of another layer"}
	}
	return m, nil
}

// layers looks many entries up, several at once. The two slices are as long as
// ids: what was found, and why not.
func (r *Repo) layers(ctx context.Context, ids []image.DiffID) ([]layerEntry, []*tornError, error) {
	found := make([]layerEntry, len(ids))
	torn := make([]*tornError, len(ids))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, id := range ids {
		g.Go(func() error {
			e, err := r.layer(gctx, id)
			if errors.As(err, &torn[i]) {
				return nil
			}
			found[i] = e
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, r.failure(err, "cannot look into %s", r.name)
	}
	return found, torn, ctx.Err()
}

// Missing returns the part of c that is not there, or that is there in another
// size than its metadata says: writing it again mends it.
func (r *Repo) Missing(ctx context.Context, c remote.Closure) (missing remote.Closure, there []remote.Layer, err error) {
	return r.missing(ctx, c, true)
}

// missing is Missing, but asks for the size that the metadata says only where
// strict is true: two that push the same layer at once with different encoders
// may leave the json of one beside the file of the other. Each file proves itself.
func (r *Repo) missing(ctx context.Context, c remote.Closure, strict bool) (missing remote.Closure, there []remote.Layer, err error) {
	found, torn, err := r.layers(ctx, c.Layers)
	if err != nil {
		return missing, nil, err
	}
	for i, e := range found {
		switch {
		case torn[i] != nil:
			r.log.Debug("layer is to be written", "layer", c.Layers[i], "why", torn[i].what)
			missing.Layers = append(missing.Layers, c.Layers[i])
		case strict && !e.fits:
			r.log.Debug("layer is to be written again: its size is not what its json says", "layer", e.DiffID)
			missing.Layers = append(missing.Layers, c.Layers[i])
		default:
			there = append(there, e.Layer)
		}
	}
	missing.Documents, err = r.absent(ctx, c.Documents)
	return missing, there, err
}

// absent returns those documents that are not there or damaged.
func (r *Repo) absent(ctx context.Context, ids []image.Digest) ([]image.Digest, error) {
	absent := make([]bool, len(ids))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, id := range ids {
		g.Go(func() error {
			_, err := r.document(gctx, id)
			var t *tornError
			if errors.As(err, &t) {
				absent[i] = true
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, r.failure(err, "cannot look into %s", r.name)
	}
	var gone []image.Digest
	for i, id := range ids {
		if absent[i] {
			gone = append(gone, id)
		}
	}
	return gone, ctx.Err()
}

// document reads a document; its error is a *tornError where it is not there
// or not what its id says.
func (r *Repo) document(ctx context.Context, id image.Digest) ([]byte, error) {
	key := entryKey(id, entryJSON)
	b, err := r.read(ctx, key, image.MaxDocument)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, &tornError{key + " is missing"}
	case fault.Is(err, fault.Damaged):
		return nil, &tornError{key + " is too large for a document"}
	case err != nil:
		return nil, err
	}
	if image.DigestOf(b) != id {
		return nil, &tornError{key + " is not the document that its name says"}
	}
	return b, nil
}
