package repo

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// bundleWriter writes a repository into one tar, in write order. What is asked of
// it is whether it has written something: it reads nothing back.
type bundleWriter struct {
	name  string
	list  *remote.Bundle
	there map[image.Digest]remote.Layer // the layers of all images, as the source has them
	now   time.Time

	documents map[image.Digest]bool // those of the list
	tagged    map[image.ID]bool

	mu      sync.Mutex // what follows; held while a member is written
	tar     *tar.Writer
	layers  map[image.Digest]bool // which can be asked for: in the tar, or left out
	written map[string]bool       // keys
	broken  error                 // a member is cut short: nothing can follow it
}

var (
	_ remote.BundleTarget = (*bundleWriter)(nil)
	_ remote.Signatures   = (*bundleWriter)(nil)
)

// NewBundle begins a bundle on w, with its list. there are the layers that its
// images need, as they are asked for, also those that are left out. What writes to
// w, and name, which is for messages, are the caller's; it is written from several goroutines,
// one at a time.
func NewBundle(w io.Writer, name string, list *remote.Bundle, there map[image.Digest]remote.Layer) (remote.BundleTarget, error) {
	b := &bundleWriter{
		name: name, list: list, there: there, now: time.Now().Truncate(time.Second), tar: tar.NewWriter(w),
		documents: map[image.Digest]bool{}, tagged: map[image.ID]bool{}, layers: map[image.Digest]bool{}, written: map[string]bool{},
	}
	for _, id := range list.Documents {
		b.documents[id] = true
	}
	for _, t := range list.Tags {
		b.tagged[t.ID] = true
	}
	for _, id := range list.Without {
		b.layers[id] = true
	}
	content, err := encodeBundle(list)
	if err == nil {
		err = b.put(bundleList, content)
	}
	if err == nil {
		err = b.put(rootMarker, []byte(formatVersion))
	}
	return b, b.failure(err)
}

// member writes one member. What it cannot write whole breaks the tar.
func (b *bundleWriter) member(key string, size int64, body io.Reader) error {
	if b.broken != nil {
		return b.broken
	}
	err := b.tar.WriteHeader(&tar.Header{Name: key, Mode: 0o644, Size: size, ModTime: b.now})
	if err == nil {
		var n int64
		n, err = io.CopyBuffer(struct{ io.Writer }{b.tar}, body, make([]byte, 256<<10))
		if err == nil && n < size || errors.Is(err, tar.ErrWriteTooLong) {
			err = fault.New(fault.Other, "%s was replaced while it was read", key).Advise("Run the same command again.")
		}
	}
	b.written[key] = err == nil
	if err != nil {
		b.broken = b.behind(key, err)
	}
	return err
}

// behind is the fault of what would come behind a member that is cut short. It is
// not about the layer that comes there, so it has no StoredError in it.
func (b *bundleWriter) behind(key string, err error) error {
	var wrong *remote.StoredError
	if errors.As(err, &wrong) {
		return fault.New(fault.Damaged, "%s could not be written whole, and nothing can follow it: %s", key, wrong)
	}
	if told := b.failure(err); told != err { //nolint:errorlint // it is the output that fails
		return told
	}
	return fault.Wrap(fault.KindOf(err), err, "%s could not be written whole, and nothing can follow it", key)
}

// put writes a small member, once.
func (b *bundleWriter) put(key string, content []byte) error {
	if b.written[key] {
		return nil
	}
	return b.member(key, int64(len(content)), bytes.NewReader(content))
}

// failure tells of an output that cannot be written. What is wrong with what was
// to be written passes as it is.
func (b *bundleWriter) failure(err error) error {
	var known *fault.Error
	var wrong *remote.StoredError
	if err == nil || errors.As(err, &known) || errors.As(err, &wrong) || fault.Interrupted(err) {
		return err
	}
	return fault.Wrap(fault.Other, err, "cannot write the bundle %s", b.name)
}

// entry makes an entry exist whose file is written, unless it is a document too:
// that comes, and has the same bytes.
func (b *bundleWriter) entry(id image.Digest, m metadata) error {
	if b.documents[id] {
		return nil
	}
	content, err := json.Marshal(m)
	if err == nil {
		err = b.put(entryKey(id, entryVersion), []byte(formatVersion))
	}
	if err == nil {
		err = b.put(entryKey(id, entryJSON), append(content, '\n'))
	}
	return err
}

// Missing tells what has not been written and is not left out.
func (b *bundleWriter) Missing(_ context.Context, c remote.Closure) (missing remote.Closure, there []remote.Layer, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range c.Layers {
		if b.layers[id] {
			there = append(there, b.there[id])
		} else {
			missing.Layers = append(missing.Layers, id)
		}
	}
	for _, id := range c.Documents {
		if !b.written[entryKey(id, entryJSON)] {
			missing.Documents = append(missing.Documents, id)
		}
	}
	return missing, there, nil
}

// PutLayer writes a tar as it is, for want of a size that it would be encoded in.
func (b *bundleWriter) PutLayer(ctx context.Context, layer image.Descriptor, r io.Reader) (remote.Layer, error) {
	stored := remote.Stored{File: entryBlob, Size: layer.Size, Body: io.NopCloser(r)}
	if isTar, compressed := layer.Tar(); isTar && !compressed {
		stored.File = layerFile(codec.None)
	}
	return b.PutStored(ctx, layer, stored)
}

// PutStored writes a layer in the bytes in which a repository keeps it.
func (b *bundleWriter) PutStored(ctx context.Context, layer image.Descriptor, stored remote.Stored) (remote.Layer, error) {
	c, known := codecOf(stored.File)
	isTar, compressed := layer.Tar()
	switch {
	case !known, stored.File != entryBlob && (!isTar || compressed):
		return remote.Layer{}, fmt.Errorf("%.100q of a layer %s: %w", stored.File, layer.MediaType, errors.ErrUnsupported)
	case stored.Size < 0:
		return remote.Layer{}, fmt.Errorf("layer %s, whose size is not known: %w", layer.Digest.Short(), errors.ErrUnsupported)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return remote.Layer{}, err
	}
	if stored.File == entryBlob {
		done, err := b.putBlob(layer, stored)
		return done, b.failure(err)
	}
	done, err := b.putFile(c, layer, stored)
	return done, b.failure(err)
}

func (b *bundleWriter) putFile(c codec.Codec, layer image.Descriptor, stored remote.Stored) (remote.Layer, error) {
	decoding := newDecoding(c.Decode, layer.Digest, layer.Size)
	done := remote.Layer{Digest: layer.Digest, Stored: stored.Size, Object: entryKey(layer.Digest, stored.File)}
	err := b.member(done.Object, stored.Size, image.HoldBack(io.TeeReader(stored.Body, decoding), decoding.end))
	decoding.stop()
	if err != nil {
		return remote.Layer{}, err
	}
	done.Size = decoding.size
	b.layers[layer.Digest] = true
	return done, b.entry(layer.Digest, metadata{DiffID: layer.Digest, Size: done.Size, File: stored.File, StoredSize: &done.Stored})
}

// putBlob writes a blob, and an alias where a tar is compressed in it. Layer is
// that tar where stored.Blob is set, else the blob.
func (b *bundleWriter) putBlob(layer image.Descriptor, stored remote.Stored) (remote.Layer, error) {
	id := layer.Digest
	if !stored.Blob.IsZero() {
		id = stored.Blob
	}
	done := remote.Layer{Digest: layer.Digest, Size: layer.Size, Stored: stored.Size, Object: entryKey(id, entryBlob)}
	packed := codec.NewContents()
	verified := image.Verify(stored.Body, id, stored.Size)
	err := b.member(done.Object, stored.Size, readerFunc(func(p []byte) (int, error) {
		n, err := io.TeeReader(verified, packed).Read(p)
		var wrong *image.MismatchError
		if errors.As(err, &wrong) {
			err = &remote.StoredError{Cause: wrong}
		}
		return n, err
	}))
	sum, size, unpackErr := packed.End(err)
	switch {
	case err != nil:
		return remote.Layer{}, err
	case !stored.Blob.IsZero() && (unpackErr != nil || image.DiffID(sum) != layer.Digest):
		return remote.Layer{}, &remote.StoredError{Cause: fmt.Errorf("blob %s has not this layer in it", id.Short())}
	}
	b.layers[id] = true
	err = b.entry(id, metadata{Size: stored.Size, File: entryBlob, StoredSize: &stored.Size})
	if err == nil && unpackErr == nil {
		done.Tar = image.DiffID(sum)
		b.layers[done.Tar] = true
		err = b.entry(done.Tar, metadata{DiffID: done.Tar, Size: size, Blob: id})
	}
	return done, err
}

// PutDocument writes a document, and behind a config that a tag names its
// synthesised manifest.
func (b *bundleWriter) PutDocument(_ context.Context, doc []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := image.DigestOf(doc)
	err := b.document(id, doc)
	if kind, wrong := image.KindOf(doc); err != nil || !b.tagged[id] || wrong != nil || kind != image.ConfigKind {
		return b.failure(err)
	}
	config, err := image.ParseConfig(doc)
	if err != nil {
		return err
	}
	layers := make([]image.Descriptor, len(config.DiffIDs))
	for i, d := range config.DiffIDs {
		layers[i] = image.Descriptor{Digest: d, Size: b.there[d].Size}
	}
	manifest := image.SynthesizeManifest(doc, layers)
	if err = b.document(image.DigestOf(manifest), manifest); err == nil {
		err = b.put(entryKey(id, entryManifest), []byte(image.DigestOf(manifest).Hex()))
	}
	return b.failure(err)
}

func (b *bundleWriter) document(id image.Digest, doc []byte) error {
	err := b.put(entryKey(id, entryVersion), []byte(formatVersion))
	if err == nil {
		err = b.put(entryKey(id, entryJSON), doc)
	}
	return err
}

// Hold writes marks of an index.
func (b *bundleWriter) Hold(_ context.Context, index image.Digest, manifests []image.Digest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range manifests {
		if err := b.put(entryKey(index, heldBase+id.Hex()), nil); err != nil {
			return b.failure(err)
		}
	}
	return nil
}

// Held is for nobody: who writes a bundle knows.
func (b *bundleWriter) Held(context.Context, image.Digest) ([]image.Digest, error) {
	return nil, errors.ErrUnsupported
}

// Tag writes a tag of the list. That its image is there the list and the order of
// writing say; who imports it looks.
func (b *bundleWriter) Tag(_ context.Context, ref image.Reference, id image.ID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failure(b.put(tagKey(ref), []byte(id.Hex())))
}

// PutSignature writes a signature.
func (b *bundleWriter) PutSignature(_ context.Context, ref image.Reference, id image.ID, key string, content []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failure(b.put(signatureKey(ref, id, key), content))
}

// Signature finds none: a bundle is written once.
func (b *bundleWriter) Signature(_ context.Context, ref image.Reference, _ image.ID, _ string) ([]byte, error) {
	return nil, fault.New(fault.NotFound, "no signature of %s in %s yet", ref, b.name)
}

// CurrentSignature finds none either.
func (b *bundleWriter) CurrentSignature(ctx context.Context, ref image.Reference, key string) ([]byte, error) {
	return b.Signature(ctx, ref, image.ID{}, key)
}

// Signed yields none.
func (b *bundleWriter) Signed(context.Context, image.Reference, image.ID) iter.Seq2[remote.Signature, error] {
	return func(func(remote.Signature, error) bool) {}
}

// Close writes the end of the tar.
func (b *bundleWriter) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return b.broken
	}
	return b.failure(b.tar.Close())
}
