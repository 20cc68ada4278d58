package readthrough

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// reader reads a layer out of the cache, also while it comes. Where the cache fails
// it goes on from the remote.
type reader struct {
	source *Source
	ctx    context.Context
	cancel context.CancelFunc

	layer  remote.Layer // as it was asked for
	at     remote.Layer // as the cache has it
	raw    bool         // in the bytes in which it is stored; else decoded
	flight *flight      // nil where the layer is there
	pinned []image.Digest

	body   io.ReadCloser
	stored remote.Stored // of raw
	n      int64         // bytes that were read
	aside  bool          // body is the remote's
	proved io.Reader     // of bytes that are decoded
	closed bool
}

// newReader opens a layer that lies in a cache as at, or is on its way there. An
// error has closed everything.
func (s *Source) newReader(ctx context.Context, in cacheReader, layer, at remote.Layer, f *flight, raw bool) (*reader, error) {
	r := &reader{source: s, layer: layer, at: at, raw: raw, flight: f, pinned: entriesOf(at)}
	r.ctx, r.cancel = context.WithCancel(ctx)
	s.cache.room.use(r.pinned)
	var err error
	if raw {
		r.stored, err = in.OpenStored(r.ctx, at)
		r.body = r.stored.Body
	} else {
		r.body, err = in.OpenDecoded(r.ctx, at)
		r.proved = image.Verify(readerFunc(r.next), layer.Digest, layer.Size)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// cacheReader is the cache, or the cache as a flight sees it.
type cacheReader interface {
	OpenDecoded(ctx context.Context, layer remote.Layer) (io.ReadCloser, error)
	OpenStored(ctx context.Context, layer remote.Layer) (remote.Stored, error)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Read hands out proved bytes, unless they are raw.
func (r *reader) Read(p []byte) (int, error) {
	if r.raw {
		return r.next(p)
	}
	n, err := r.proved.Read(p)
	var wrong *image.MismatchError
	if errors.As(err, &wrong) {
		err = r.mismatch(wrong)
	}
	return n, err
}

// next reads on, from the remote where the cache cannot.
func (r *reader) next(p []byte) (int, error) {
	for {
		n, err := r.body.Read(p)
		r.n += int64(n)
		if n > 0 && err != io.EOF {
			err = nil // it comes again
		}
		if err == io.EOF && n == 0 && !r.raw && r.n < r.layer.Size {
			err = fmt.Errorf("it ends after %d of %d bytes", r.n, r.layer.Size)
		}
		if err == nil || err == io.EOF || r.aside {
			return n, err
		}
		if r.ctx.Err() != nil || errors.Is(err, remote.ErrNoRoom) {
			return 0, err
		}
		if err := r.turnAside(err); err != nil {
			return 0, err
		}
	}
}

// turnAside goes on from the remote, where the cache has failed with cause. What is
// handed out is proved as one.
func (r *reader) turnAside(cause error) error {
	if err := r.blame(cause); err != nil {
		return err
	}
	_ = r.body.Close()
	r.body, r.aside = io.NopCloser(nil), true
	body, err := r.direct()
	if err != nil {
		return err
	}
	r.body = body
	_, err = io.CopyN(io.Discard, body, r.n)
	if err == io.EOF {
		err = fault.Wrap(fault.Other, io.ErrUnexpectedEOF, "layer %s has changed while it was read", r.layer.Digest.Short())
	}
	return err
}

// direct opens the layer in the remote, as it is being read.
func (r *reader) direct() (io.ReadCloser, error) {
	up, err := r.source.upstream(r.ctx, r.layer)
	if err != nil {
		return nil, err
	}
	if !r.raw {
		return r.source.from.Open(r.ctx, up)
	}
	stored, err := r.source.openStored(r.ctx, up)
	if err != nil {
		return nil, err
	}
	if stored.File != r.stored.File || stored.Blob != r.stored.Blob {
		_ = stored.Body.Close()
		return nil, fault.Wrap(fault.Other, remote.ErrReplaced, "cannot read layer %s", r.layer.Digest.Short())
	}
	return stored.Body, nil
}

// blame finds out what a failure means: it returns that of the remote, and nil where
// the cache alone has failed, after what is damaged there was removed.
func (r *reader) blame(cause error) error {
	if r.flight != nil {
		select {
		case <-r.flight.done:
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
		var failed *remoteError
		if errors.As(r.flight.err, &failed) {
			return failed.cause
		}
		if r.flight.err != nil { // told already
			return nil
		}
	}
	r.source.cache.lost(r.ctx, r.at, cause)
	return nil
}

// mismatch is the failure of bytes that decode, and are wrong. They have been handed
// out, but for the last.
func (r *reader) mismatch(wrong *image.MismatchError) error {
	if err := r.blame(wrong); err != nil {
		return err
	}
	return r.source.cache.damage(r.at, wrong)
}

// damage is the fault of a layer that the cache had damaged. As it is not used again,
// whoever can asks for the layer once more (remote.ErrReplaced).
func (c *Cache) damage(layer remote.Layer, cause error) error {
	where := &remote.Damage{Object: layer.Object, Text: layer.Object + " in the cache " + c.name, Cause: replacedError{cause}}
	return fault.Wrap(fault.Damaged, where, "layer %s is damaged", layer.Digest.Short()).
		Advise("It is removed from the cache: run the same command again, which reads it from the remote.")
}

// replacedError is a remote.ErrReplaced with another text.
type replacedError struct{ error }

func (e replacedError) Is(target error) bool { return target == remote.ErrReplaced }

func (e replacedError) Unwrap() error { return e.error }

// Close ends reading. It may be called again.
func (r *reader) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	r.cancel() // a decoder may wait for bytes
	if r.body != nil {
		_ = r.body.Close()
	}
	r.source.cache.room.unuse(r.pinned)
	if r.flight != nil {
		r.source.flights.leave(r.flight)
	}
	return nil
}
