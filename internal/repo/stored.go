package repo

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

var (
	_ remote.StoredSource = (*Repo)(nil)
	_ remote.StoredTarget = (*Repo)(nil)
)

// OpenStored opens the file or blob of a layer that Look found.
func (r *Repo) OpenStored(ctx context.Context, layer remote.Layer) (remote.Stored, error) {
	id, file, err := r.layerObject(layer)
	if err != nil {
		return remote.Stored{}, err
	}
	body, err := r.openLayer(ctx, layer)
	if err != nil {
		return remote.Stored{}, err
	}
	s := remote.Stored{File: file, Size: layer.Stored, Body: &storedReader{body, r, layer}}
	if id != layer.Digest { // an alias
		s.Blob = id
	}
	return s, nil
}

// storedReader makes faults of a store's errors.
type storedReader struct {
	io.ReadCloser
	repo  *Repo
	layer remote.Layer
}

func (s *storedReader) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	switch {
	case err == nil, err == io.EOF:
		return n, err
	case errors.Is(err, storage.ErrChanged):
		return n, fault.Wrap(fault.Other, remote.ErrReplaced, "cannot read layer %s from %s", s.layer.Digest.Short(), s.repo.name)
	}
	return n, s.repo.failure(err, "cannot read layer %s from %s", s.layer.Digest.Short(), s.repo.name)
}

// PutStored stores the bytes of a layer in the file that they come from.
func (r *Repo) PutStored(ctx context.Context, layer image.Descriptor, stored remote.Stored) (remote.Layer, error) {
	c, known := codecOf(stored.File)
	tar, compressed := layer.Tar()
	switch {
	case !known:
		return remote.Layer{}, fmt.Errorf("%.100q is no file of a layer: %w", stored.File, errors.ErrUnsupported)
	case stored.File != entryBlob && (!tar || compressed):
		// It is to be a blob, so that the tar in it is found by its diffID.
		return remote.Layer{}, fmt.Errorf("%s of a blob: %w", stored.File, errors.ErrUnsupported)
	case stored.File == entryBlob && !stored.Blob.IsZero():
		return r.putAliased(ctx, layer, stored)
	case stored.File == entryBlob:
		if !compressed { // no need to find a tar in it
			layer.MediaType = anyBlob
		}
		return r.putStoredBlob(ctx, layer, stored.Body)
	}
	decode := c.Decode
	if remote.RoomOf(ctx) != nil { // serve reckons with the memory of one goroutine
		decode = c.DecodeAlone
	}
	decoding := newDecoding(decode, layer.Digest, layer.Size)
	count := &image.Watched{R: image.HoldBack(io.TeeReader(stored.Body, decoding), decoding.end)}
	done := remote.Layer{Digest: layer.Digest, Object: entryKey(layer.Digest, stored.File)}
	err := r.store.Put(ctx, done.Object, bounded{count, stored.Size})
	decoding.stop()
	if err != nil {
		return remote.Layer{}, r.storedFailure(err, layer.Digest)
	}
	done.Size, done.Stored = decoding.size, count.Count()
	err = r.putEntry(ctx, layer.Digest, metadata{DiffID: layer.Digest, Size: done.Size, File: stored.File, StoredSize: &done.Stored})
	if err != nil {
		return remote.Layer{}, r.storedFailure(err, layer.Digest)
	}
	return done, nil
}

// putStoredBlob stores a blob that is asked for by its own digest.
func (r *Repo) putStoredBlob(ctx context.Context, layer image.Descriptor, body io.Reader) (remote.Layer, error) {
	done, err := r.putBlob(ctx, layer, body)
	var wrong *image.MismatchError
	if errors.As(err, &wrong) {
		err = &remote.StoredError{Cause: wrong}
	}
	return done, err
}

// putAliased stores the blob that a layer is compressed in, and so an alias for
// the layer. A blob that is what its name says, and has not that layer in it, is
// stored as what it is.
func (r *Repo) putAliased(ctx context.Context, layer image.Descriptor, stored remote.Stored) (remote.Layer, error) {
	blob := image.Descriptor{MediaType: anyBlob, Digest: stored.Blob, Size: stored.Size}
	done, err := r.putStoredBlob(ctx, blob, stored.Body)
	if err != nil {
		return done, err
	}
	if done.Tar != layer.Digest {
		return remote.Layer{}, &remote.StoredError{Cause: fmt.Errorf("blob %s has not this layer in it", stored.Blob.Short())}
	}
	done.Digest, done.Size = layer.Digest, layer.Size
	return done, nil
}

// anyBlob is the media type of a blob of which nobody has said that it is a tar.
const anyBlob = image.UnknownMediaType

func (r *Repo) storedFailure(err error, id image.Digest) error {
	var wrong *remote.StoredError
	if errors.As(err, &wrong) {
		return wrong
	}
	return r.failure(err, "cannot store layer %s in %s", id.Short(), r.name)
}

// decoding decodes what is written to it, and proves it.
type decoding struct {
	*io.PipeWriter
	done chan struct{}

	size int64 // of the decoded bytes; these are to be read when done is closed
	err  error
}

// newDecoding begins to decode and prove a layer. The caller calls stop.
func newDecoding(decode func(io.Reader) io.ReadCloser, digest image.Digest, size int64) *decoding {
	from, to := io.Pipe()
	d := &decoding{PipeWriter: to, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		decoded := decode(from)
		n, err := readAll(image.Verify(decoded, digest, size))
		if err != nil {
			err = &remote.StoredError{Cause: err}
		}
		d.size, d.err = n, err
		_ = from.CloseWithError(err) // a decoder that still waits for bytes ends, and who writes them fails at once
		_ = decoded.Close()
	}()
	return d
}

// end is called when all is written, and returns whether it was right.
func (d *decoding) end() error {
	_ = d.PipeWriter.Close()
	<-d.done
	return d.err
}

// stop ends the goroutine, wherever it is.
func (d *decoding) stop() {
	_ = d.CloseWithError(errStopped)
	<-d.done
}

var errStopped = errors.New("no more is written")

// readAll reads to the end, in pieces that are worth their while, and returns how
// many bytes there were.
func readAll(r io.Reader) (size int64, err error) {
	buffer := make([]byte, 128<<10)
	for err == nil {
		var n int
		n, err = r.Read(buffer)
		size += int64(n)
	}
	if err == io.EOF {
		err = nil
	}
	return size, err
}
