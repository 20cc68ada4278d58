package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

// Contents is where a Source reads: bytes by their digests, and an index of what
// they are called. It proves nothing; Source does. Its methods are safe for
// concurrent use, and so are those of its readers by one goroutine each.
type Contents interface {
	// Items returns the images that the index names, in its order.
	Items(ctx context.Context) ([]Item, error)

	// Stat says where the bytes of a digest lie. Its error wraps storage.ErrNotFound
	// where they do not.
	Stat(ctx context.Context, id image.Digest) (Blob, error)

	// Open opens what Stat has found. The caller closes it.
	Open(ctx context.Context, b Blob) (io.ReadCloser, error)
}

// Blob is bytes in Contents.
type Blob struct {
	Object string // what it is called there
	Size   int64  // of what lies there, in bytes
	Packed bool   // the bytes that have the digest are compressed in it, by gzip or zstd
}

// Source is Contents as a remote.Source. Layers are there by the digests by which
// manifests name them, and not by the diffIDs of what is compressed in them.
type Source struct {
	Contents
	Name string // as the user named it, for messages
}

var (
	_ remote.Source = (*Source)(nil)
	_ remote.Holder = (*Source)(nil)
)

// Resolve returns the ID that ref names. An image that came from where it is known
// by its config is known by it here too.
func (s *Source) Resolve(ctx context.Context, ref image.Reference) (image.ID, error) {
	if err := ctx.Err(); err != nil {
		return image.ID{}, err
	}
	if !ref.Digest.IsZero() {
		return s.resolveDigest(ctx, ref)
	}
	items, err := s.Items(ctx)
	if err != nil {
		return image.ID{}, s.failure(err, "cannot read %s", s.Name)
	}
	item, err := find(s.Name, items, ref)
	if err != nil {
		return image.ID{}, err
	}
	return s.idOf(ctx, item)
}

func (s *Source) resolveDigest(ctx context.Context, ref image.Reference) (image.ID, error) {
	none := fault.New(fault.NotFound, "no image %s in %s", ref, s.Name).
		Advise("Name the digest of a manifest, index or config that is there.")
	switch b, err := s.Stat(ctx, ref.Digest); {
	case errors.Is(err, storage.ErrNotFound):
		return image.ID{}, none
	case err != nil:
		return image.ID{}, s.failure(err, "cannot read %s", s.Name)
	case b.Packed || b.Size > image.MaxDocument: // a layer's
		return image.ID{}, none
	}
	doc, err := s.Document(ctx, ref.Digest)
	if err != nil {
		return image.ID{}, err
	}
	if _, err := image.KindOf(doc); err != nil {
		return image.ID{}, none
	}
	return ref.Digest, nil
}

// idOf returns the ID of an item: its config's where the index says so and it is true.
func (s *Source) idOf(ctx context.Context, item Item) (image.ID, error) {
	if item.Config.IsZero() {
		return item.Root.Digest, nil
	}
	doc, err := s.Document(ctx, item.Root.Digest)
	if err != nil {
		return image.ID{}, err
	}
	m, err := image.ParseManifest(doc)
	if err != nil || m.Config.Digest != item.Config {
		return item.Root.Digest, nil
	}
	config, err := s.Document(ctx, item.Config)
	if err != nil {
		return image.ID{}, err
	}
	if !bytes.Equal(image.SynthesizeManifest(config, m.Layers), doc) {
		return item.Root.Digest, nil
	}
	return item.Config, nil
}

// Document returns a document, verified.
func (s *Source) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := s.Stat(ctx, id)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, s.missing(id, "")
	}
	if err != nil {
		return nil, s.failure(err, "cannot read %s", s.Name)
	}
	if b.Size > image.MaxDocument {
		return nil, s.damaged("document", id, b, image.ErrTooLarge)
	}
	r, err := s.Contents.Open(ctx, b)
	if err != nil {
		return nil, s.failure(err, "cannot read %s", s.Name)
	}
	defer r.Close()
	doc, err := image.ReadDocument(r, id)
	var wrong *image.MismatchError
	if errors.As(err, &wrong) || errors.Is(err, image.ErrTooLarge) {
		return nil, s.damaged("document", id, b, err)
	}
	return doc, s.failure(err, "cannot read %s", s.Name)
}

// Look looks the blobs of c up.
func (s *Source) Look(ctx context.Context, c remote.Closure, _ map[image.Digest]remote.Layer) (*remote.Found, error) {
	found := &remote.Found{Documents: map[image.Digest]string{}, Layers: map[image.Digest]remote.Layer{}, Torn: map[image.Digest]error{}}
	for _, id := range c.Documents {
		switch _, err := s.Stat(ctx, id); {
		case err == nil:
			found.Documents[id] = ""
		case !errors.Is(err, storage.ErrNotFound):
			return nil, s.failure(err, "cannot look into %s", s.Name)
		}
	}
	var torn []image.Digest
	for _, id := range c.Layers {
		switch b, err := s.Stat(ctx, id); {
		case err == nil:
			found.Layers[id] = layerOf(id, b)
		case errors.Is(err, storage.ErrNotFound):
			torn = append(torn, id)
		default:
			return nil, s.failure(err, "cannot look into %s", s.Name)
		}
	}
	if len(torn) > 0 {
		urls := s.elsewhere(ctx)
		for _, id := range torn {
			found.Torn[id] = s.missing(id, urls[id])
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return found, nil
}

func layerOf(id image.Digest, b Blob) remote.Layer {
	l := remote.Layer{Digest: id, Size: b.Size, Stored: b.Size, Object: b.Object}
	if b.Packed {
		l.Size = -1
	}
	return l
}

// Open opens a layer that Look found.
func (s *Source) Open(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := s.Stat(ctx, layer.Digest)
	if errors.Is(err, storage.ErrNotFound) { // since Look
		return nil, s.missing(layer.Digest, "")
	}
	var stored io.ReadCloser
	if err == nil {
		stored, err = s.Contents.Open(ctx, b)
	}
	if err != nil {
		return nil, s.failure(err, "cannot read layer %s from %s", layer.Digest.Short(), s.Name)
	}
	l := &layerReader{source: s, id: layer.Digest, blob: b, stored: stored, watched: &image.Watched{R: stored}}
	l.decoded = io.NopCloser(l.watched)
	if b.Packed {
		l.decoded = codec.Inflate(l.watched)
	}
	l.proved = image.Verify(l.decoded, layer.Digest, layer.Size)
	return l, nil
}

// layerReader verifies, and tells a failure to read from damage.
type layerReader struct {
	source  *Source
	id      image.Digest
	blob    Blob
	stored  io.Closer
	watched *image.Watched // what is read of it
	decoded io.ReadCloser
	proved  io.Reader
}

func (l *layerReader) Read(p []byte) (int, error) {
	n, err := l.proved.Read(p)
	switch {
	case err == nil, err == io.EOF:
		return n, err
	case l.watched.Err() != nil:
		return n, l.source.failure(l.watched.Err(), "cannot read layer %s from %s", l.id.Short(), l.source.Name)
	}
	return n, l.source.damaged("layer", l.id, l.blob, err)
}

// Close ends the decoder before the blob that it reads.
func (l *layerReader) Close() error { return errors.Join(l.decoded.Close(), l.stored.Close()) }

// References yields the names that the index has. Of all repositories it ends with
// an error where an image's is not said.
func (s *Source) References(ctx context.Context, repository string) iter.Seq2[remote.Tag, error] {
	items, err := s.Items(ctx)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return func(yield func(remote.Tag, error) bool) {
			yield(remote.Tag{}, s.failure(err, "cannot read %s", s.Name))
		}
	}
	return references(s.Name, items, repository)
}

// Held returns the manifests of an index that are there.
func (s *Source) Held(ctx context.Context, index image.Digest) ([]image.Digest, error) {
	doc, err := s.Document(ctx, index)
	if err != nil {
		return nil, err
	}
	x, err := image.ParseIndex(doc)
	if err != nil {
		return nil, s.damaged("document", index, Blob{Object: index.String()}, err)
	}
	var held []image.Digest
	for _, c := range x.Manifests {
		switch _, err := s.Stat(ctx, c.Digest); {
		case err == nil:
			held = append(held, c.Digest)
		case !errors.Is(err, storage.ErrNotFound):
			return nil, s.failure(err, "cannot look into %s", s.Name)
		}
	}
	return held, nil
}

// Hold fails: what is there says that it is there.
func (s *Source) Hold(context.Context, image.Digest, []image.Digest) error {
	return fmt.Errorf("%s is only read: %w", s.Name, errors.ErrUnsupported)
}

// missing is the fault of bytes that an image needs. url is where a manifest says
// that they lie.
func (s *Source) missing(id image.Digest, url string) error {
	where := &remote.Damage{Object: objectOf(id), Missing: true, Text: objectOf(id) + " is missing in " + s.Name}
	f := fault.Wrap(fault.Damaged, where, "incomplete image")
	if url != "" {
		return f.Advise("Its manifest says that this layer is to be fetched from %.200q. dogestry contacts nothing that an image names: "+
			"get the image from where the layer is with it.", url)
	}
	return f.Advise("Copy the image there again, with what wrote it.")
}

// mostManifests bounds what elsewhere reads.
const mostManifests = 1000

// elsewhere returns of the layers that manifests say lie elsewhere the first URL of
// each. It is for messages, and so has no errors.
func (s *Source) elsewhere(ctx context.Context) map[image.Digest]string {
	items, err := s.Items(ctx)
	if err != nil {
		return nil
	}
	var look []image.Digest
	for _, i := range items {
		look = append(look, i.Root.Digest)
	}
	urls := map[image.Digest]string{}
	for n := 0; n < len(look) && n < mostManifests; n++ {
		doc, err := s.Document(ctx, look[n])
		if err != nil {
			continue
		}
		if x, err := image.ParseIndex(doc); err == nil {
			for _, c := range x.Manifests {
				look = append(look, c.Digest)
			}
			continue
		}
		var m struct {
			Layers []struct {
				Digest image.Digest `json:"digest"`
				URLs   []string     `json:"urls"`
			} `json:"layers"`
		}
		if json.Unmarshal(doc, &m) != nil {
			continue
		}
		for _, l := range m.Layers {
			if len(l.URLs) > 0 {
				urls[l.Digest] = l.URLs[0]
			}
		}
	}
	return urls
}

func (s *Source) damaged(what string, id image.Digest, b Blob, cause error) error {
	where := &remote.Damage{Object: b.Object, Text: b.Object + " in " + s.Name, Cause: cause}
	return fault.Wrap(fault.Damaged, where, "%s %s is damaged", what, id.Short()).
		Advise("Copy the image there again, with what wrote it.")
}

// failure turns an error of Contents into a fault that names the place. Faults and
// the end of a context pass as they are.
func (s *Source) failure(err error, format string, args ...any) error {
	var known *fault.Error
	var wrong *image.MismatchError
	switch {
	case err == nil, errors.As(err, &known), errors.As(err, &wrong), fault.Interrupted(err):
		return err
	case errors.Is(err, storage.ErrPermission):
		return fault.Wrap(fault.Refused, err, format, args...)
	case errors.Is(err, storage.ErrNoSpace):
		return fault.Wrap(fault.Other, err, format, args...).Advise("Make room and run the same command again.")
	case errors.Is(err, storage.ErrTooLarge):
		return fault.Wrap(fault.Damaged, err, format, args...)
	}
	return fault.Wrap(fault.Other, err, format, args...)
}

// objectOf is what the bytes of a digest are called in a layout.
func objectOf(id image.Digest) string { return fmt.Sprintf("%s/%s", blobs, id.Hex()) }
