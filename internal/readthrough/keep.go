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
	// mostBlobs bounds the blobs that are looked into for it: most are gzip, in which nothing can be found.
	mostBlobs = 4 * mostKept
	// leastKept is from how many bytes on a layer is of use to others: smaller ones have no index.
	leastKept = 64 << 10
)

var _ remote.Keeper = (*Source)(nil)

// Kept implements remote.Keeper, by a listing of the cache. A cache that cannot be listed has none.
func (s *Source) Kept(ctx context.Context, without []image.Digest) ([]remote.Layer, error) {
	var all []aged
	blobs := map[image.Digest]bool{} // which lie there as they came
	for e, err := range s.cache.repo.Entries(ctx) {
		if err != nil {
			s.cache.trouble(err)
			return nil, ctx.Err()
		}
		encoded := slices.ContainsFunc(e.Files, func(name string) bool { return strings.HasPrefix(name, "layer.tar.") })
		blob := !encoded && slices.Contains(e.Files, "blob")
		if e.Bytes >= leastKept && (encoded || blob) {
			all = append(all, aged{e.ID, e.Bytes, e.Modified})
			if blob {
				blobs[e.ID] = true
			}
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
	var ids []image.Digest
	room := map[bool]int{false: mostKept, true: mostBlobs}
	for _, e := range all {
		if room[blobs[e.id]] > 0 {
			room[blobs[e.id]]--
			ids = append(ids, e.id)
		}
	}
	there := s.cache.look(ctx, remote.Closure{Layers: ids})
	slices.SortFunc(there, func(a, b remote.Layer) int { return slices.Index(ids, a.Digest) - slices.Index(ids, b.Digest) })
	var kept []remote.Layer
	for _, l := range there {
		l.Source, l.Version = remote.InCache, ""
		if len(kept) < mostKept && (!blobs[l.Digest] || s.inFrames(ctx, l)) {
			kept = append(kept, l)
		}
	}
	return kept, ctx.Err()
}

// inFrames reports whether a blob of the cache may be one of frames with an index, by its first bytes: it is zstd.
func (s *Source) inFrames(ctx context.Context, blob remote.Layer) bool {
	body, err := s.OpenPart(ctx, blob, 0, int64(len(zstdMagic)))
	if err != nil {
		return false
	}
	defer body.Close()
	start, err := io.ReadAll(body)
	return err == nil && string(start) == zstdMagic
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
