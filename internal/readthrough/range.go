package readthrough

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dogestry/dogestry/internal/remote"
)

var _ remote.Ranges = (*Source)(nil)

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
	if !ok || layer.Source == inCache {
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

// ObjectVersion returns a text that is another one whenever the object that a layer
// would be read from now was written again: the cache's, or else the remote's.
func (s *Source) ObjectVersion(ctx context.Context, layer remote.Layer) (string, error) {
	if found, ok := s.cache.find(ctx, layer.Digest); ok {
		version, err := s.cache.repo.ObjectVersion(ctx, found)
		if err == nil {
			return "cache " + version, nil
		}
	}
	has, ok := s.from.(remote.Versions)
	if !ok || layer.Source == inCache {
		return fmt.Sprintf("read %d", s.unknown.Add(1)), nil // nobody knows whether it is the same
	}
	return has.ObjectVersion(ctx, layer)
}
