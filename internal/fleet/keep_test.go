package fleet

import (
	"context"
	"io"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// cached is a remote that is read through a cache.
type cached struct{ *store }

func (cached) OpenPart(context.Context, remote.Layer, int64, int64) (io.ReadCloser, error) {
	return nil, io.EOF
}

func (cached) Kept(context.Context, []image.Digest) ([]remote.Layer, error) {
	return []remote.Layer{{Source: remote.InCache}}, nil
}

func (cached) Use(context.Context, remote.Layer) func() { return nil }

func (cached) OpenMade(context.Context, remote.Layer, func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
	return nil, io.EOF
}

// TestHostsHaveTheCache: a host that reads at its own pace may put layers together out of the cache; one that shares
// what is read may not.
func TestHostsHaveTheCache(t *testing.T) {
	s, _ := newStore(t, 0, 1)
	for name, c := range map[string]struct {
		from        remote.Source
		member      *member
		parts, keep bool
	}{
		"a cache":              {cached{s}, nil, true, true},
		"a cache, and sharing": {cached{s}, &member{}, false, false},
		"no parts":             {s, nil, false, false},
	} {
		from := share(c.from).sourceFor(c.member)
		_, parts := from.(remote.Parts)
		keeper, keeps := from.(remote.Keeper)
		if parts != c.parts || keeps != c.keep {
			t.Errorf("%s: parts %v, keeps %v", name, parts, keeps)
		}
		if keeps {
			if kept, err := keeper.Kept(t.Context(), nil); len(kept) != 1 || err != nil {
				t.Errorf("%s: %v, %v", name, kept, err)
			}
		}
	}
}
