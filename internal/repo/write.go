package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

// PutLayer stores the tar of a layer, encoded, then VERSION, then json.
func (r *Repo) PutLayer(ctx context.Context, layer image.Descriptor, tar io.Reader) (remote.Layer, error) {
	file := layerFile(r.codec)
	source := &counter{r: tar}
	// A failed source or a wrong digest comes out of the encoder as an error,
	// so the store publishes nothing.
	encoded := r.codec.Encode(image.Verify(source, layer.Digest, layer.Size))
	defer encoded.Close()
	stored := &counter{r: encoded}
	done := remote.Layer{DiffID: layer.Digest, Object: entryKey(layer.Digest, file)}
	if err := r.store.Put(ctx, done.Object, stored); err != nil {
		var wrong *image.MismatchError
		if errors.As(err, &wrong) {
			return remote.Layer{}, wrong
		}
		return remote.Layer{}, r.failure(err, "cannot store layer %s in %s", layer.Digest.Short(), r.name)
	}
	done.Size, done.Stored = source.n, stored.n
	err := r.putEntry(ctx, layer.Digest, metadata{
		DiffID: layer.Digest, Size: done.Size, File: file, StoredSize: done.Stored,
	})
	if err != nil {
		return remote.Layer{}, r.failure(err, "cannot store layer %s in %s", layer.Digest.Short(), r.name)
	}
	return done, nil
}

// putEntry makes a layer's entry exist. A json that is a document stays: the
// layer with its id has the same bytes. So does one that cannot be read: it may be one.
func (r *Repo) putEntry(ctx context.Context, id image.DiffID, m metadata) error {
	if m.Size <= image.MaxDocument {
		_, err := r.document(ctx, id)
		var torn *tornError
		if !errors.As(err, &torn) {
			return err
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := r.putSmall(ctx, entryKey(id, entryVersion), []byte(formatVersion)); err != nil {
		return err
	}
	return r.putSmall(ctx, entryKey(id, entryJSON), append(b, '\n'))
}

// PutDocument stores a config, manifest or index, byte for byte.
func (r *Repo) PutDocument(ctx context.Context, doc []byte) error {
	id := image.DigestOf(doc)
	if len(doc) > image.MaxDocument {
		return image.ErrTooLarge
	}
	if _, err := image.KindOf(doc); err != nil {
		return r.failure(err, "%s is no document for %s", id.Short(), r.name)
	}
	if _, err := r.document(ctx, id); err == nil {
		return nil
	}
	if err := r.putSmall(ctx, entryKey(id, entryVersion), []byte(formatVersion)); err != nil {
		return r.failure(err, "cannot store %s in %s", id.Short(), r.name)
	}
	if err := r.putSmall(ctx, entryKey(id, entryJSON), doc); err != nil {
		return r.failure(err, "cannot store %s in %s", id.Short(), r.name)
	}
	return nil
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

// counter counts what is read. Its count is read once reading has ended.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// keeper remembers the error that a store's reader ended with. A decoder may
// read it from a goroutine of its own.
type keeper struct {
	io.ReadCloser
	mu  sync.Mutex
	err error
}

func (k *keeper) Read(p []byte) (int, error) {
	n, err := k.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.err = err
	}
	return n, err
}

func (k *keeper) failed() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}
