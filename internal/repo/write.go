package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

// PutLayer stores a tar encoded, anything else as it is, then VERSION, then json.
func (r *Repo) PutLayer(ctx context.Context, layer image.Descriptor, from io.Reader) (remote.Layer, error) {
	if layer.MediaType == image.UnknownMediaType {
		layer.MediaType, from = guess(from)
	}
	if tar, compressed := layer.Tar(); !tar || compressed {
		return r.putBlob(ctx, layer, from)
	}
	file := layerFile(r.codec)
	source := &image.Watched{R: from}
	// A failed source or a wrong digest comes out of the encoder as an error,
	// so the store publishes nothing.
	encoded := r.encode(image.Verify(source, layer.Digest, layer.Size))
	defer encoded.Close()
	stored := &image.Watched{R: encoded}
	done := remote.Layer{Digest: layer.Digest, Object: entryKey(layer.Digest, file)}
	if err := r.putFile(ctx, done, sized(stored, layer.Size)); err != nil {
		return remote.Layer{}, err
	}
	done.Size, done.Stored = source.Count(), stored.Count()
	err := r.putEntry(ctx, layer.Digest, metadata{
		DiffID: layer.Digest, Size: done.Size, File: file, StoredSize: &done.Stored,
	})
	if err != nil {
		return remote.Layer{}, r.failure(err, "cannot store layer %s in %s", layer.Digest.Short(), r.name)
	}
	return done, nil
}

// encode returns a layer as it is stored.
func (r *Repo) encode(tar io.Reader) io.ReadCloser {
	if r.bare {
		return r.codec.Encode(tar)
	}
	return chunk.Encode(r.codec, tar)
}

// putFile stores the file of a layer.
func (r *Repo) putFile(ctx context.Context, layer remote.Layer, body io.Reader) error {
	err := r.store.Put(ctx, layer.Object, body)
	var wrong *image.MismatchError
	if errors.As(err, &wrong) {
		return wrong
	}
	return r.failure(err, "cannot store layer %s in %s", layer.Digest.Short(), r.name)
}

// sized lets a store know how long the encoded layer can be. No codec makes one
// longer by more than a part in 128 and a few blocks; an index has at most a
// sixteenth of it in literals, and less than a part in 32 in its table.
func sized(encoded io.Reader, size int64) io.Reader {
	if size < 0 {
		return encoded
	}
	return bounded{encoded, size + size/8 + 1<<20}
}

type bounded struct {
	io.Reader
	most int64
}

func (b bounded) AtMost() int64 { return b.most }

// putEntry makes an entry exist. A json that is a document stays: the layer with
// its id has the same bytes. So does one that cannot be read: it may be one.
func (r *Repo) putEntry(ctx context.Context, id image.Digest, m metadata) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	there, err := r.entryJSON(ctx, id)
	if m.Size <= image.MaxDocument && (err != nil || there != nil && image.DigestOf(there) == id) {
		return err
	}
	return r.putJSON(ctx, id, there, append(b, '\n'))
}

// entryJSON returns the json of an entry, nil where there is none, or none that
// could be a document.
func (r *Repo) entryJSON(ctx context.Context, id image.Digest) ([]byte, error) {
	there, err := r.read(ctx, entryKey(id, entryJSON), image.MaxDocument)
	if errors.Is(err, storage.ErrNotFound) || fault.Is(err, fault.Damaged) {
		return nil, nil
	}
	return there, err
}

// putJSON writes VERSION and json of an entry, where the json there now is known:
// a new entry, without one, need not be asked for what it has.
func (r *Repo) putJSON(ctx context.Context, id image.Digest, there, content []byte) error {
	var err error
	if version := entryKey(id, entryVersion); there == nil {
		err = r.store.Put(ctx, version, strings.NewReader(formatVersion))
	} else {
		err = r.putSmall(ctx, version, []byte(formatVersion))
	}
	if err != nil || there != nil && bytes.Equal(there, content) {
		return err
	}
	return r.store.Put(r.guarded(ctx), entryKey(id, entryJSON), bytes.NewReader(content))
}

// PutDocument stores a config, manifest or index, byte for byte. One that points
// outside is a Refused fault.
func (r *Repo) PutDocument(ctx context.Context, doc []byte) error {
	id := image.DigestOf(doc)
	if len(doc) > image.MaxDocument {
		return image.ErrTooLarge
	}
	if err := image.CheckDocument(doc); err != nil {
		return r.failure(err, "%s is no document for %s", id.Short(), r.name)
	}
	if err := remote.CheckOutside(id.Short(), doc); err != nil {
		return err
	}
	there, err := r.entryJSON(ctx, id)
	if err == nil && there != nil && bytes.Equal(there, doc) {
		return nil
	}
	return r.failure(r.putJSON(ctx, id, there, doc), "cannot store %s in %s", id.Short(), r.name)
}

// putSmall writes an object from memory, unless it is there with this content.
func (r *Repo) putSmall(ctx context.Context, key string, content []byte) error {
	if there, err := r.read(ctx, key, image.MaxDocument); err == nil && bytes.Equal(there, content) {
		return nil
	}
	return r.store.Put(ctx, key, bytes.NewReader(content))
}

// markRoot says that this is a repository, and of which version.
func (r *Repo) markRoot(ctx context.Context) error {
	if there, err := r.small(ctx, rootMarker); err == nil && strings.TrimSpace(string(there)) != "" {
		return nil
	} else if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	return r.store.Put(ctx, rootMarker, strings.NewReader(formatVersion))
}
