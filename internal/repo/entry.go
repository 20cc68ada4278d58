package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

// metadata is the json of an entry that is no document: of a layer, of a blob,
// which has no DiffID, or of an alias, which has a Blob and no files.
type metadata struct {
	DiffID     image.DiffID `json:"diffID,omitzero"`
	Size       int64        `json:"size"`                // bytes, decoded; binding
	File       string       `json:"file,omitempty"`      // what its writer wrote beside it
	StoredSize *int64       `json:"storedSize,omitzero"` // bytes of that file; a hint
	Blob       image.Digest `json:"blob,omitzero"`       // the entry that holds the layer, compressed

	document bool // the json is a document, and says nothing of files
}

// layerEntry is what a look at images/<id>/ found of a layer.
type layerEntry struct {
	remote.Layer
	file string // the file to read
	fits bool   // the file is the one that the metadata names, in the size it names
}

// tornError says what an entry lacks. It is no failure for a push, which
// completes it.
type tornError struct {
	what    string // names the object
	object  string // the key of what is missing or wrong
	missing bool
}

func (e *tornError) Error() string { return e.what }

func missingObject(key string) *tornError { return &tornError{key + " is missing", key, true} }

func wrongObject(key, how string) *tornError { return &tornError{key + " " + how, key, false} }

// incomplete is the fault of a reader that meets e.
func (r *Repo) incomplete(e *tornError) error {
	return fault.Wrap(fault.Damaged, &remote.Damage{Object: e.object, Missing: e.missing, Text: e.what + " in " + r.name}, "incomplete copy").
		Advise(tornAdvice, r.name)
}

// layer judges an entry by what lies in it. Its error is a *tornError where the
// entry is not there or not whole: it exists when its json parses and a file is
// beside it, or, of an alias, in the entry that it names. The json is not read
// again where known comes from the same version of it; fits is not set then.
func (r *Repo) layer(ctx context.Context, id image.Digest, in *files, known remote.Layer) (layerEntry, error) {
	if in == nil {
		return layerEntry{}, &tornError{"entry " + entryPrefix(id) + " is missing", entryKey(id, entryJSON), true}
	}
	if !in.json {
		return layerEntry{}, missingObject(entryKey(id, entryJSON))
	}
	meta := metadata{Size: known.Size}
	// Of several files the json says which one it is: then it is read again.
	if in.version == "" || in.version != known.Version || len(in.layers) != 1 {
		var err error
		if meta, err = r.metadata(ctx, id); err != nil {
			return layerEntry{}, err
		}
	}
	e := layerEntry{Layer: remote.Layer{Digest: id, Size: meta.Size, Source: entryKey(id, entryJSON), Version: in.version}}
	e.file = chooseFile(meta.File, in.layers)
	if !meta.Blob.IsZero() { // a file beside it is a push's that has not come to its json yet
		byAlias, err := r.aliased(ctx, e, meta.Blob)
		var torn *tornError
		if e.file == "" || !errors.As(err, &torn) {
			return byAlias, err
		}
	}
	if e.file == "" {
		named := meta.File
		if _, ok := codecOf(named); !ok {
			named = layerFile(r.codec)
		}
		return layerEntry{}, missingObject(entryKey(id, named))
	}
	e.Stored = in.layers[e.file]
	e.Object = entryKey(id, e.file)
	e.fits = meta.document || e.file == meta.File && meta.StoredSize != nil && e.Stored == *meta.StoredSize
	return e, nil
}

// aliased completes e from the blob that holds its layer.
func (r *Repo) aliased(ctx context.Context, e layerEntry, blob image.Digest) (layerEntry, error) {
	e.file, e.Object, e.Packed = entryBlob, entryKey(blob, entryBlob), blob
	in, err := r.files(ctx, blob)
	if err != nil {
		return layerEntry{}, err
	}
	lacks := ""
	if in == nil || !in.json {
		lacks = entryKey(blob, entryJSON)
	} else if _, ok := in.layers[entryBlob]; !ok {
		lacks = e.Object
	}
	if lacks != "" {
		return layerEntry{}, &tornError{lacks + " is missing, where " + e.Source + " says that its layer is", lacks, true}
	}
	stored := in.layers[entryBlob]
	e.Stored, e.fits = stored, true
	return e, nil
}

// chooseFile prefers the file that the metadata names.
func chooseFile(named string, sizes map[string]int64) string {
	if _, ok := sizes[named]; ok {
		return named
	}
	for _, c := range readOrder {
		if _, ok := sizes[layerFile(c)]; ok {
			return layerFile(c)
		}
	}
	if _, ok := sizes[entryBlob]; ok {
		return entryBlob
	}
	return ""
}

// metadata reads the json of an entry. Where that is a document, a layer beside
// it has the same sha256 and therefore the same bytes.
func (r *Repo) metadata(ctx context.Context, id image.Digest) (metadata, error) {
	key := entryKey(id, entryJSON)
	b, err := r.read(ctx, key, image.MaxDocument)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return metadata{}, missingObject(key)
	case fault.Is(err, fault.Damaged):
		return metadata{}, wrongObject(key, "is too large")
	case err != nil:
		return metadata{}, err
	}
	if image.DigestOf(b) == id {
		return metadata{DiffID: id, Size: int64(len(b)), document: true}, nil
	}
	var m metadata
	if len(b) > maxSmall {
		return metadata{}, wrongObject(key, "is too large")
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return metadata{}, wrongObject(key, fmt.Sprintf("does not parse: %v", err))
	}
	isBlob := m.File == entryBlob && m.DiffID.IsZero()
	if m.DiffID != id && !isBlob || m.Size < 0 {
		return metadata{}, wrongObject(key, "is of another layer")
	}
	return m, nil
}

// layers looks many entries up, several at once. The two slices are as long as
// ids: what was found, and why not.
func (r *Repo) layers(ctx context.Context, ids []image.Digest, filesOf filesOf, known map[image.Digest]remote.Layer) ([]layerEntry, []*tornError, error) {
	found := make([]layerEntry, len(ids))
	torn := make([]*tornError, len(ids))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, id := range ids {
		g.Go(func() error {
			in, err := filesOf(gctx, id)
			if err != nil {
				return err
			}
			e, err := r.layer(gctx, id, in, known[id])
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
	found, torn, err := r.layers(ctx, c.Layers, r.files, nil)
	if err != nil {
		return missing, nil, err
	}
	for i, e := range found {
		switch {
		case torn[i] != nil:
			r.log.Debug("layer is to be written", "layer", c.Layers[i], "why", torn[i].what)
			missing.Layers = append(missing.Layers, c.Layers[i])
		case strict && !e.fits:
			r.log.Debug("layer is to be written again: its size is not what its json says", "layer", e.Digest)
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
		return nil, missingObject(key)
	case fault.Is(err, fault.Damaged):
		return nil, wrongObject(key, "is too large for a document")
	case err != nil:
		return nil, err
	}
	if image.DigestOf(b) != id {
		return nil, wrongObject(key, "is not the document that its name says")
	}
	return b, nil
}
