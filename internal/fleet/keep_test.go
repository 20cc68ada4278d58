package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
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

// ofRegistry is a registry that has one repository.
type ofRegistry struct {
	*store
	member remote.Remote
}

func (r ofRegistry) In(string) remote.Remote { return r.member }

// cachedRemote is a repository of a registry that is read through a cache, and remoteOf one that is not.
type (
	cachedRemote struct {
		cached
		remote.Target
	}
	remoteOf struct {
		*store
		remote.Target
	}
)

// TestHostsHaveTheCache: a host that reads at its own pace may put layers together out of the cache; one that shares
// what is read may not.
func TestHostsHaveTheCache(t *testing.T) {
	s, _ := newStore(t, 0, 1)
	for name, c := range map[string]struct {
		from        remote.Source
		member      *member
		parts, keep bool
	}{
		"a cache":                                {cached{s}, nil, true, true},
		"a cache, and sharing":                   {cached{s}, &member{}, false, false},
		"no parts":                               {s, nil, false, false},
		"a registry's, and a cache":              {ofRegistry{s, cachedRemote{cached: cached{s}}}, nil, true, true},
		"a registry's, and a cache, and sharing": {ofRegistry{s, cachedRemote{cached: cached{s}}}, &member{}, false, false},
		"a registry's, which has no parts":       {ofRegistry{s, remoteOf{store: s}}, nil, false, false},
	} {
		from := remote.SourceOf(share(c.from).sourceFor(c.member), "app")
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

// TestRebuiltOnce: one host finds out whether a layer is to be put together, and how large it is then, for all; also where
// it is not.
func TestRebuiltOnce(t *testing.T) {
	not := errors.New("it is read whole")
	s, l := newStore(t, 0, 1, 1)
	var found atomic.Int32
	ask := func(ctx context.Context, job Job) error {
		size, err := job.Options.Rebuild(ctx, l[0], func() (int64, error) { found.Add(1); return 17, nil })
		if size != 17 || err != nil {
			return fmt.Errorf("%d bytes, %w", size, err)
		}
		if _, err := job.Options.Rebuild(ctx, l[1], func() (int64, error) { found.Add(1); return 0, not }); !errors.Is(err, not) {
			return fmt.Errorf("the other: %w", err)
		}
		return nil
	}
	var all []*host
	for range 3 {
		all = append(all, &host{lacks: [][]image.Digest{nil}, before: ask})
	}
	if _, err := Pull(t.Context(), hostsOf(all), jobOf(t, s, 1), Options{Cached: true}); err != nil || found.Load() != 2 {
		t.Errorf("error %v, found out %d times", err, found.Load())
	}
}
