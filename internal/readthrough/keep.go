package readthrough

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

const (
	// mostKept bounds the layers that Kept returns.
	mostKept = 64
	// leastKept is from how many bytes on a layer is of use to others: smaller ones have no index.
	leastKept = 64 << 10
)

var _ remote.Keeper = (*Source)(nil)

// Kept implements remote.Keeper, by a listing of the cache. A cache that cannot be listed has none.
func (s *Source) Kept(ctx context.Context, without []image.Digest) ([]remote.Layer, error) {
	var all []aged
	for e, err := range s.cache.repo.Entries(ctx) {
		if err != nil {
			s.cache.trouble(err)
			return nil, ctx.Err()
		}
		if e.Bytes >= leastKept && slices.ContainsFunc(e.Files, func(name string) bool { return strings.HasPrefix(name, "layer.tar.") }) {
			all = append(all, aged{e.ID, e.Bytes, e.Modified})
		}
	}
	known := map[image.Digest]bool{}
	for _, id := range without {
		known[id] = true
	}
	slices.SortFunc(all, func(a, b aged) int {
		if known[a.id] != known[b.id] {
			if known[a.id] {
				return 1
			}
			return -1
		}
		return b.used.Compare(a.used)
	})
	ids := make([]image.Digest, 0, mostKept)
	for _, e := range all[:min(len(all), mostKept)] {
		ids = append(ids, e.id)
	}
	there := s.cache.look(ctx, remote.Closure{Layers: ids})
	for i := range there {
		there[i].Source, there[i].Version = remote.InCache, ""
	}
	slices.SortFunc(there, func(a, b remote.Layer) int { return slices.Index(ids, a.Digest) - slices.Index(ids, b.Digest) })
	return there, ctx.Err()
}

// Use implements remote.Keeper.
func (s *Source) Use(ctx context.Context, layer remote.Layer) (done func()) {
	entries := entriesOf(layer)
	s.cache.room.use(entries)
	s.cache.touch(ctx, entries...)
	return func() { s.cache.room.unuse(entries) }
}

// OpenMade implements remote.Keeper.
func (s *Source) OpenMade(ctx context.Context, layer remote.Layer, open func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
	r, err := s.read(ctx, layer, false, open)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, fmt.Errorf("layer %s cannot be kept: %w", layer.Digest.Short(), errors.ErrUnsupported)
	}
	return r, nil
}
