package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Closure returns an image's documents, and its layers as manifests name them.
func (p *Repository) Closure(tree *image.Tree) (remote.Closure, error) {
	return remote.NamedClosure(tree)
}

// PutLayer stores a tar that no manifest names compressed, as the options say, and
// anything else as it is. Nothing is published before all of r is proved.
func (p *Repository) PutLayer(ctx context.Context, layer image.Descriptor, r io.Reader) (remote.Layer, error) {
	if err := p.check(ctx); err != nil {
		return remote.Layer{}, err
	}
	if other := p.registry.placedIn(layer.Digest); other != nil && other != p && layer.MediaType != "" {
		l, there, err := p.bring(ctx, layer.Digest)
		if tar, compressed := layer.Tar(); err == nil && there && !(tar && compressed) {
			return l, nil
		}
	}
	count := &image.Watched{R: r}
	body := image.Verify(count, layer.Digest, layer.Size)
	method := p.registry.o.Compression
	pack := layer.MediaType == "" && method != None
	tar, compressed := layer.Tar()
	var within *codec.Contents
	var encoder io.ReadCloser
	stream, most := io.Reader(body), layer.Size
	switch {
	case pack:
		if most >= 0 { // what cannot be compressed grows
			most += most/8 + 64<<10
		}
		encoder = p.registry.o.encode(body)
		stream = encoder
	case !tar || compressed: // a push or copy has to know what is in it
		head := bufio.NewReader(body)
		if b, _ := head.Peek(codec.Magic); compressed || codec.Compressed(b) { // an error comes again
			within = codec.NewContents()
			stream = io.TeeReader(head, within)
		} else {
			stream = head
		}
	}
	id, size, err := p.put(ctx, stream, most)
	if encoder != nil {
		err = errors.Join(err, encoder.Close()) // before r is the caller's again
	}
	done := remote.Layer{Digest: layer.Digest, Size: count.Count(), Stored: size, Object: p.object(id)}
	if within != nil {
		sum, _, unpackErr := within.End(err)
		if unpackErr == nil {
			done.Tar = sum
		}
		if err == nil && unpackErr != nil && compressed {
			return remote.Layer{}, fault.Wrap(fault.Damaged, unpackErr, "layer %s is not what its media type %.100q says", layer.Digest.Short(), layer.MediaType)
		}
	}
	if err != nil {
		if count.Err() != nil && ctx.Err() == nil {
			return remote.Layer{}, err // the body's
		}
		return remote.Layer{}, p.failure(ctx, err, "cannot store layer %s in %s", layer.Digest.Short(), p.where())
	}
	if pack {
		in := packed{Digest: id, Size: size, Media: method.media(), Plain: done.Size}
		done.Packed = id
		p.registry.hints.add(layer.Digest, hint{packed: in, Path: p.path})
		p.registry.settle(p, layer.Digest)
		p.registry.place(p, layer.Digest)
		p.notePacked(layer.Digest, in)
	}
	return done, nil
}

// PutDocument stores a manifest or index, and as a blob what is neither. One that
// points outside is a Refused fault.
func (p *Repository) PutDocument(ctx context.Context, doc []byte) error {
	if err := p.check(ctx); err != nil {
		return err
	}
	if len(doc) > image.MaxDocument {
		return image.ErrTooLarge
	}
	if err := image.CheckDocument(doc); err != nil {
		return fault.Wrap(fault.Other, err, "%s is no document for %s", image.DigestOf(doc).Short(), p.registry.o.Name)
	}
	id := image.DigestOf(doc)
	if err := remote.CheckOutside(id.Short(), doc); err != nil {
		return err
	}
	var err error
	switch kind, _ := image.KindOf(doc); kind {
	case image.ManifestKind, image.IndexKind:
		err = p.putManifest(ctx, id.String(), doc)
	default:
		_, err = p.headBlob(ctx, id)
		if isStatus(err, http.StatusNotFound) {
			_, _, err = p.put(ctx, bytes.NewReader(doc), int64(len(doc)))
		}
	}
	if err != nil {
		return p.failure(ctx, p.incomplete(id, doc, err), "cannot store %s in %s", id.Short(), p.where())
	}
	p.remember(id, doc)
	return nil
}

// putManifest stores a manifest or index under its digest or a tag. Where the
// registry does not tell by itself which manifests refer to which, a list of them is
// kept as the specification says ("Referrers Tag Schema").
func (p *Repository) putManifest(ctx context.Context, reference string, doc []byte) error {
	list, err := p.listing(ctx)
	if err != nil {
		return err
	}
	media := mediaOf(doc)
	as := ocispec.Descriptor{MediaType: media, Digest: digest.Digest(image.DigestOf(doc).String()), Size: int64(len(doc))}
	return list.Manifests().PushReference(ctx, as, bytes.NewReader(doc), reference)
}

// mediaOf is what a manifest or index says it is.
func mediaOf(doc []byte) string {
	fallback := ocispec.MediaTypeImageManifest
	if kind, _ := image.KindOf(doc); kind == image.IndexKind {
		fallback = ocispec.MediaTypeImageIndex
	}
	return image.MediaTypeOf(doc, fallback)
}
