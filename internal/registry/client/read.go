package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Resolve returns the ID that ref names: a manifest's or index's. By its digest a
// config is found, too.
func (p *Repository) Resolve(ctx context.Context, ref image.Reference) (image.ID, error) {
	if err := p.check(ctx); err != nil {
		return image.ID{}, err
	}
	if !ref.Digest.IsZero() {
		if err := p.resolveDigest(ctx, ref); err != nil {
			return image.ID{}, err
		}
		return ref.Digest, nil
	}
	id, err := p.headManifest(ctx, ref.Tag)
	if isNone(err) {
		return image.ID{}, p.notFound(ctx, ref)
	}
	if err != nil {
		return image.ID{}, p.failure(ctx, err, "cannot look for %s in %s", ref, p.registry.o.Name)
	}
	p.registry.settle(p, id)
	return id, nil
}

// resolveDigest makes sure that an image is there by its digest.
func (p *Repository) resolveDigest(ctx context.Context, ref image.Reference) error {
	at, err := p.locate(ctx, ref.Digest)
	switch {
	case err != nil:
		return p.failure(ctx, err, "cannot look for %s in %s", ref, p.registry.o.Name)
	case at == inManifests:
		p.registry.settle(p, ref.Digest)
		return nil
	case at == inBlobs:
		if is, err := p.isConfig(ctx, ref.Digest); is || err != nil {
			return err
		}
	}
	return p.notFound(ctx, ref)
}

// isConfig reports whether a blob is the config of an image.
func (p *Repository) isConfig(ctx context.Context, id image.Digest) (bool, error) {
	size, err := p.headBlob(ctx, id)
	if isStatus(err, http.StatusNotFound) || err == nil && size > image.MaxDocument {
		return false, nil
	}
	if err != nil {
		return false, p.failure(ctx, err, "cannot look for %s in %s", id.Short(), p.where())
	}
	doc, err := p.get(ctx, "/blobs/"+id.String())
	if err != nil {
		return false, p.failure(ctx, err, "cannot look for %s in %s", id.Short(), p.where())
	}
	if kind, err := image.KindOf(doc); err != nil || kind != image.ConfigKind || image.DigestOf(doc) != id {
		return false, nil
	}
	p.remember(id, doc)
	return true, nil
}

// Open opens a layer that Look found. A download that breaks off goes on from there.
func (p *Repository) Open(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	if err := p.check(ctx); err != nil {
		return nil, err
	}
	id, size := layer.Digest, layer.Size
	if !layer.Packed.IsZero() {
		id, size = layer.Packed, layer.Stored
	}
	d := &download{repository: p, id: id}
	d.ctx, d.end = context.WithCancel(ctx)
	if err := d.open(); err != nil {
		d.end()
		if isStatus(err, http.StatusNotFound) { // since Look
			return nil, p.missing("layer", layer.Digest)
		}
		return nil, p.failure(ctx, err, "cannot read layer %s of %s", layer.Digest.Short(), p.where())
	}
	r := &layerReader{repository: p, layer: layer, from: d, decoded: io.NopCloser(d)}
	if layer.Packed.IsZero() {
		r.proved = image.Verify(d, id, size)
		return r, nil
	}
	r.decoded = codec.Inflate(image.Verify(d, id, size))
	r.proved = image.Verify(r.decoded, layer.Digest, layer.Size)
	return r, nil
}

// layerReader verifies, and tells a failure to read from damage.
type layerReader struct {
	repository *Repository
	layer      remote.Layer
	from       *download
	decoded    io.ReadCloser
	proved     io.Reader
}

func (r *layerReader) Read(b []byte) (int, error) {
	n, err := r.proved.Read(b)
	switch {
	case err == nil, err == io.EOF:
		return n, err
	case r.from.failed() != nil:
		return n, r.repository.failure(r.from.ctx, r.from.failed(), "cannot read layer %s of %s", r.layer.Digest.Short(), r.repository.where())
	}
	return n, r.repository.damaged("layer", r.layer.Digest, err)
}

// Close ends the decoder before the download that it reads.
func (r *layerReader) Close() error {
	r.from.end() // a Read that waits ends
	return errors.Join(r.decoded.Close(), r.from.Close())
}

// download is a blob on its way. One goroutine reads it; another one may stop it.
type download struct {
	repository *Repository
	ctx        context.Context
	end        context.CancelFunc // of all requests
	id         image.Digest

	at    int64 // of the blob, where the next byte belongs
	size  int64 // of the blob, -1 where the registry does not say; of a part where it ends
	part  bool  // of the blob alone, from at on
	body  io.ReadCloser
	err   error // why no more comes
	tries int   // since bytes came
}

// open asks for what has not come yet.
func (d *download) open() error {
	q := request{method: http.MethodGet, path: "/blobs/" + d.id.String(), header: http.Header{}}
	switch {
	case d.part:
		q.header.Set("Range", fmt.Sprintf("bytes=%d-%d", d.at, d.size-1))
	case d.at > 0:
		q.header.Set("Range", fmt.Sprintf("bytes=%d-", d.at))
	}
	resp, err := d.repository.do(d.ctx, q)
	if err != nil {
		return err
	}
	skip := int64(0)
	switch {
	case d.part && resp.StatusCode == http.StatusOK: // all of it, however much that is
		resp.Body.Close()
		return errNoRanges
	case d.at == 0 && resp.StatusCode == http.StatusOK:
		d.size = resp.ContentLength
	case (d.at > 0 || d.part) && resp.StatusCode == http.StatusPartialContent:
		if got := resp.Header.Get("Content-Range"); !strings.HasPrefix(got, fmt.Sprintf("bytes %d-", d.at)) {
			resp.Body.Close()
			return errors.New("it gives another part of the blob than it was asked for")
		}
	case d.at > 0 && resp.StatusCode == http.StatusOK: // it knows no ranges
		skip = d.at
	default:
		return answered(resp)
	}
	d.body = resp.Body
	if d.part { // whatever else comes
		d.body = limitedBody{io.LimitReader(resp.Body, d.size-d.at), resp.Body}
	}
	if _, err := io.CopyN(io.Discard, d.body, skip); err != nil {
		d.shut()
		return err
	}
	return nil
}

type limitedBody struct {
	io.Reader
	io.Closer
}

func (d *download) shut() {
	if d.body == nil {
		return
	}
	d.body.Close()
	d.body = nil
}

// Read goes on where the connection broke.
func (d *download) Read(b []byte) (int, error) {
	for d.err == nil {
		if d.body == nil {
			if err := d.open(); err != nil {
				d.again(err)
				continue
			}
		}
		n, err := d.body.Read(b)
		if n > 0 {
			d.at, d.tries = d.at+int64(n), 0
		}
		switch {
		case err == nil:
		case err == io.EOF && (d.size < 0 || d.at >= d.size):
			d.err = io.EOF
		default:
			d.shut()
			d.again(err)
		}
		if n > 0 || err == nil {
			return n, nil
		}
	}
	return 0, d.err
}

// again waits before the next try, unless there is none.
func (d *download) again(err error) {
	o := d.repository.registry.o
	if d.ctx.Err() != nil {
		d.err = d.ctx.Err()
		return
	}
	if a := answerOf(err); a != nil || errors.Is(err, errNoRanges) || d.tries >= attempts-1 || d.size < 0 && d.at > 0 {
		d.err = err
		return
	}
	pause, _ := pauseFor(nil, d.tries)
	d.tries++
	o.tell(nil, err, pause)
	if err := o.Wait(d.ctx, pause); err != nil {
		d.err = err
	}
}

// failed returns why the download broke off, nil where it has not.
func (d *download) failed() error {
	if d.err == io.EOF {
		return nil
	}
	return d.err
}

// Close ends the download.
func (d *download) Close() error {
	d.end()
	d.shut()
	return nil
}
