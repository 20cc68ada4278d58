package catalog_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
)

// far is a store far away: it counts what would be requests, a page of 1,000
// keys among them, and takes its time for each.
type far struct {
	storage.Store
	latency  time.Duration
	requests atomic.Int64
	before   func(ctx context.Context, key string) error // of each Get; may be nil
	plain    bool                                        // it has no versions
}

func (f *far) request(ctx context.Context) error {
	f.requests.Add(1)
	if f.latency == 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(f.latency):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *far) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := f.request(ctx); err != nil {
		return nil, err
	}
	if f.before != nil {
		if err := f.before(ctx, key); err != nil {
			return nil, err
		}
	}
	return f.Store.Get(ctx, key, offset, length)
}

func (f *far) Stat(ctx context.Context, key string) (storage.Info, error) {
	if err := f.request(ctx); err != nil {
		return storage.Info{}, err
	}
	return f.Store.Stat(ctx, key)
}

func (f *far) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		if err := f.request(ctx); err != nil {
			yield(storage.Info{}, err)
			return
		}
		n := 0
		for info, err := range f.Store.List(ctx, prefix) {
			if n++; n > 1000 {
				n = 1
				if err := f.request(ctx); err != nil {
					yield(storage.Info{}, err)
					return
				}
			}
			if f.plain {
				info.Version = ""
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// count returns how many requests do makes.
func (f *far) count(do func()) int {
	before := f.requests.Load()
	do()
	return int(f.requests.Load() - before)
}

// fill writes images of two layers of their own, as pushes leave them, without
// the looks of a push: image number i is named repository:i.
func fill(t testing.TB, s storage.Store, repository string, n int) []remotetest.Image {
	t.Helper()
	images := make([]remotetest.Image, n)
	for i := range images {
		name := fmt.Sprintf("%s-%d", repository, i)
		images[i] = remotetest.NewImage(t, name, []byte("a of "+name), []byte("the other of "+name))
		fillImage(t, s, fmt.Sprintf("%s/%d", repository, i), images[i])
	}
	return images
}

func fillImage(t testing.TB, s storage.Store, tag string, img remotetest.Image) {
	t.Helper()
	manifest := image.DigestOf(img.Manifest()).Hex()
	objects := [][2]string{}
	for _, l := range img.Layers {
		id := image.DigestOf(l)
		objects = append(objects,
			[2]string{"images/" + id.Hex() + "/layer.tar", string(l)},
			[2]string{"images/" + id.Hex() + "/VERSION", "2.0"},
			[2]string{"images/" + id.Hex() + "/json", fmt.Sprintf(`{"diffID":"%s","size":%d,"file":"layer.tar","storedSize":%d}`+"\n", id, len(l), len(l))},
		)
	}
	objects = append(objects,
		[2]string{"images/" + img.ID.Hex() + "/VERSION", "2.0"},
		[2]string{"images/" + img.ID.Hex() + "/json", string(img.Config)},
		[2]string{"images/" + manifest + "/VERSION", "2.0"},
		[2]string{"images/" + manifest + "/json", string(img.Manifest())},
		[2]string{"images/" + img.ID.Hex() + "/manifest", manifest},
		[2]string{"repositories/" + tag, img.ID.Hex()},
	)
	for _, o := range objects {
		if err := s.Put(t.Context(), o[0], strings.NewReader(o[1])); err != nil {
			t.Fatal(err)
		}
	}
}

func openBench(ctx context.Context, s storage.Store) (*repo.Repo, error) {
	return repo.Open(ctx, s, repo.Options{Name: "the-remote", Codec: codec.None})
}
