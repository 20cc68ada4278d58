package readthrough_test

import (
	"bytes"
	"context"
	"io"
	"iter"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/readthrough"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cached is a repository that is written directly, and read through a cache.
type cached struct {
	*repo.Repo
	through *readthrough.Source
}

func (c cached) Resolve(ctx context.Context, ref image.Reference) (image.ID, error) {
	return c.through.Resolve(ctx, ref)
}

func (c cached) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	return c.through.Document(ctx, id)
}

func (c cached) Look(ctx context.Context, want remote.Closure, known map[image.Digest]remote.Layer) (*remote.Found, error) {
	return c.through.Look(ctx, want, known)
}

func (c cached) Open(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	return c.through.Open(ctx, layer)
}

func (c cached) References(ctx context.Context, repository string) iter.Seq2[remote.Tag, error] {
	return c.through.References(ctx, repository)
}

func (c cached) OpenStored(ctx context.Context, layer remote.Layer) (remote.Stored, error) {
	return c.through.OpenStored(ctx, layer)
}

func (c cached) Damage(layer remote.Layer, cause error) error {
	return c.through.Damage(layer, cause)
}

// TestRemote: a remote that is read through a cache, which two processes share, keeps
// what remotes promise.
func TestRemote(t *testing.T) {
	remotetest.Run(t, remotetest.Harness{
		Conflicts: true, Sessions: true, Untags: true, Signs: true, Stored: true, Memberships: true, Uploads: true, Exclusive: true, Large: 600_000,
		Open: func(t *testing.T) remotetest.Target {
			s, dir := mem.New(), t.TempDir()
			side := func() remote.Remote {
				r := open(t, s)
				return cached{r, cacheIn(t, dir, 1<<30, nil).New(r)}
			}
			return remotetest.Target{
				A: side(), B: side(),
				Collect: func(t *testing.T) {
					t.Helper()
					time.Sleep(10 * time.Millisecond) // for entries of this instant to be older
					if _, err := open(t, s).Collect(t.Context(), repo.CollectOptions{Grace: time.Nanosecond}); err != nil {
						t.Fatal(err)
					}
				},
				Forge: func(t *testing.T, l remote.Layer, tar []byte) {
					t.Helper()
					encoded := codec.LZ4.Encode(bytes.NewReader(tar))
					defer encoded.Close()
					if err := s.Put(t.Context(), l.Object, encoded); err != nil {
						t.Fatal(err)
					}
				},
			}
		},
	})
}

func open(t testing.TB, s storage.Store) *repo.Repo {
	t.Helper()
	r, err := repo.Open(context.Background(), s, repo.Options{Name: "the-remote", Codec: codec.LZ4})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func directory(t testing.TB, dir string) *file.Store {
	t.Helper()
	s, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// cacheIn returns the cache in dir.
func cacheIn(t testing.TB, dir string, limit int64, notify func(string)) *readthrough.Cache {
	t.Helper()
	return cacheOn(t, directory(t, dir), limit, notify)
}

func cacheOn(t testing.TB, s readthrough.Store, limit int64, notify func(string)) *readthrough.Cache {
	t.Helper()
	c, err := readthrough.Open(context.Background(), s, readthrough.Options{Name: "the-cache", Limit: limit, Notify: notify})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
