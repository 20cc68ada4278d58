package readthrough

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dogestry/dogestry/internal/remote"
)

var (
	_ remote.Ranges   = (*Source)(nil)
	_ remote.Unproved = (*Source)(nil)
)

// OpenRange implements remote.Ranges: of what the cache has, else of the remote,
// where that can. Nothing is kept by it.
func (s *Source) OpenRange(ctx context.Context, layer remote.Layer, offset, n int64) (io.ReadCloser, error) {
	if found, ok := s.cache.find(ctx, layer.Digest); ok {
		pinned := entriesOf(found)
		s.cache.room.use(pinned)
		body, err := s.cache.repo.OpenRange(ctx, found, offset, n)
		if err != nil {
			s.cache.room.unuse(pinned)
			return nil, err
		}
		s.cache.touch(ctx, pinned...)
		return &pinnedReader{ReadCloser: body, end: func() { s.cache.room.unuse(pinned) }}, nil
	}
	has, ok := s.from.(remote.Ranges)
	if !ok || layer.Source == remote.InCache {
		return nil, fmt.Errorf("the cache has not layer %s: %w", layer.Digest.Short(), errors.ErrUnsupported)
	}
	return has.OpenRange(ctx, layer, offset, n)
}

// pinnedReader calls end when it is closed.
type pinnedReader struct {
	io.ReadCloser
	end func() // nil once it is called
}

func (r *pinnedReader) Close() error {
	if r.end != nil {
		r.end()
		r.end = nil
	}
	return r.ReadCloser.Close()
}

// OpenDecoded implements remote.Unproved. What comes into the cache just now is proved
// all the same, and so is what a remote gives only so.
func (s *Source) OpenDecoded(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	r, err := s.read(ctx, layer, false, nil)
	if err != nil {
		return nil, err
	}
	if r != nil {
		if r.flight == nil && (r.at.Size < 0 || r.at.Size > small) { // else proved already
			r.proved = readerFunc(r.next)
		}
		return r, nil
	}
	up, err := s.upstream(ctx, layer)
	if err != nil {
		return nil, err
	}
	if from, ok := s.from.(remote.Unproved); ok {
		return from.OpenDecoded(ctx, up)
	}
	return s.from.Open(ctx, up)
}
