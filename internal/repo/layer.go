package repo

import (
	"context"
	"errors"
	"io"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

// reopenings bounds how often one layer is begun again because its object was
// replaced while it was read.
const reopenings = 3

// Open opens a layer that Look found.
func (r *Repo) Open(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	l, err := r.newLayerReader(ctx, layer)
	if err != nil {
		return nil, err
	}
	l.proved = image.Verify(readerFunc(l.decode), layer.Digest, layer.Size)
	return l, nil
}

// OpenDecoded is Open without the proof: who reads it verifies the bytes. What
// cannot be decoded is a Damaged fault of Read.
func (r *Repo) OpenDecoded(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	l, err := r.newLayerReader(ctx, layer)
	if err != nil {
		return nil, err
	}
	l.proved = readerFunc(l.decode)
	return l, nil
}

// newLayerReader opens a layer. The caller sets proved.
func (r *Repo) newLayerReader(ctx context.Context, layer remote.Layer) (*layerReader, error) {
	id, file, err := r.layerObject(layer)
	if err != nil {
		return nil, err
	}
	c, _ := codecOf(file)
	l := &layerReader{ctx: ctx, repo: r, layer: layer, unpack: func(src io.Reader) io.ReadCloser { return c.DecodeIn(src, remote.RoomOf(ctx)) }}
	if file == entryBlob && id != layer.Digest { // an alias
		l.unpack = codec.Inflate
	}
	return l, l.open()
}

// layerObject returns the entry and the file in it that a layer is to be read from.
func (r *Repo) layerObject(layer remote.Layer) (entry image.Digest, file string, err error) {
	entry, file, ok := parseEntryKey(layer.Object)
	if _, isLayer := codecOf(file); !ok || !isLayer {
		return entry, file, fault.New(fault.Other, "%s in %s is no layer", layer.Object, r.name)
	}
	return entry, file, nil
}

// openLayer opens the object of a layer.
func (r *Repo) openLayer(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	stored, err := r.store.Get(ctx, layer.Object, 0, -1)
	if err := r.unopened(layer, err); err != nil {
		return nil, err
	}
	return stored, nil
}

// unopened makes a fault of the store's error where the object of a layer was to be opened.
func (r *Repo) unopened(layer remote.Layer, err error) error {
	if errors.Is(err, storage.ErrNotFound) { // since Look
		return r.incomplete(missingObject(layer.Object))
	}
	return r.failure(err, "cannot read layer %s from %s", layer.Digest.Short(), r.name)
}

// Damage returns the fault of a layer whose bytes are wrong.
func (r *Repo) Damage(layer remote.Layer, cause error) error {
	where := &remote.Damage{Object: layer.Object, Text: layer.Object + " in " + r.name, Cause: cause}
	return fault.Wrap(fault.Damaged, where, "layer %s is damaged", layer.Digest.Short()).
		Advise("A push does not mend it: `dogestry verify %s` finds all that is damaged, and with `--repair-from` another remote, "+
			"or an engine that has the image (`--repair-from engine`), writes it again.", r.name)
}

// layerReader decodes and verifies. It tells a transport's failure from damage.
type layerReader struct {
	ctx   context.Context
	repo  *Repo
	layer remote.Layer

	unpack func(io.Reader) io.ReadCloser

	stored  io.Closer
	watched *image.Watched // what is read of it
	decoded io.ReadCloser
	read    int64 // decoded bytes so far
	again   int   // how often the object was opened again
	proved  io.Reader
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// open opens the object and a decoder on it.
func (l *layerReader) open() error {
	stored, err := l.repo.openLayer(l.ctx, l.layer)
	if err != nil {
		return err
	}
	l.stored, l.watched = stored, &image.Watched{R: stored}
	l.decoded = l.unpack(l.watched)
	return nil
}

// decode reads on. Where another pusher has replaced the object meanwhile, it
// begins with the new one: its decoded bytes are the same, whatever its encoder
// made of them, and all that is handed out is verified as one.
func (l *layerReader) decode(p []byte) (int, error) {
	for {
		n, err := l.decoded.Read(p)
		l.read += int64(n)
		if err == nil || err == io.EOF {
			return n, err
		}
		if n > 0 {
			return n, nil // the error stays, and comes with the next call
		}
		if !errors.Is(l.watched.Err(), storage.ErrChanged) || l.again == reopenings {
			return 0, err
		}
		l.again++
		l.repo.log.Debug("layer was replaced while it was read, reading it again", "layer", l.layer.Digest)
		if err := l.Close(); err != nil {
			return 0, err
		}
		if err := l.open(); err != nil {
			return 0, err
		}
		if _, err := io.CopyN(io.Discard, l.decoded, l.read); err != nil && !errors.Is(l.watched.Err(), storage.ErrChanged) {
			return 0, err
		}
	}
}

func (l *layerReader) Read(p []byte) (int, error) {
	n, err := l.proved.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	var known *fault.Error
	if errors.As(err, &known) || errors.Is(err, remote.ErrNoRoom) { // from opening it again
		return n, err
	}
	if broken := l.watched.Err(); broken != nil {
		return n, l.repo.failure(broken, "cannot read layer %s from %s", l.layer.Digest.Short(), l.repo.name)
	}
	return n, l.repo.Damage(l.layer, err)
}

// Close ends the decoder before the object that it reads.
func (l *layerReader) Close() error {
	return errors.Join(l.decoded.Close(), l.stored.Close())
}
