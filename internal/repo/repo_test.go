package repo_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/s3"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRemoteMem has two codecs in each run, since the two sides differ. With
// -short it leaves out those that TestRemoteFlat has too.
func TestRemoteMem(t *testing.T) {
	codecs := []codec.Codec{codec.LZ4, codec.Zstd, codec.None}
	if testing.Short() {
		codecs = codecs[:1]
	}
	for _, c := range codecs {
		t.Run(c.Name(), func(t *testing.T) {
			remotetest.Run(t, remotetest.Harness{
				Conflicts: true, Sessions: true, Untags: true, Signs: true, Stored: true, Memberships: true, Uploads: true, Exclusive: true,
				Open: func(t *testing.T) remotetest.Target {
					s := mem.New()
					return target(t, s, s, c)
				},
			})
		})
	}
}

// TestRemoteFlat is about a store that lets "a" and "a/b" live side by side, as
// buckets do.
func TestRemoteFlat(t *testing.T) {
	remotetest.Run(t, remotetest.Harness{
		Conflicts: true, Sessions: true, Untags: true, Signs: true, Stored: true, Memberships: true, Uploads: true,
		Open: func(t *testing.T) remotetest.Target {
			s := newFlat()
			return target(t, s, s, codec.None)
		},
	})
}

func TestRemoteFile(t *testing.T) {
	remotetest.Run(t, remotetest.Harness{
		Conflicts: true, Sessions: true, Untags: true, Signs: true, Stored: true, Memberships: true, Uploads: true, Exclusive: true,
		Open: func(t *testing.T) remotetest.Target {
			dir := t.TempDir()
			return target(t, openDir(t, dir), openDir(t, dir), codec.LZ4)
		},
	})
}

// target opens a repository twice. The second pusher stores with another codec
// where that makes no difference to what the suite looks at.
func target(t *testing.T, a, b storage.Store, c codec.Codec) remotetest.Target {
	var collect func(t *testing.T)
	if _, ok := a.(storage.Swapper); ok {
		collect = func(t *testing.T) {
			t.Helper()
			if _, ok := a.(*s3.Store); ok { // whose clock goes by seconds
				time.Sleep(1100 * time.Millisecond)
			}
			if err := collectNow(t, a); err != nil {
				t.Fatal(err)
			}
		}
	}
	return remotetest.Target{
		A:       open(t, a, c),
		B:       open(t, b, (c+1)%3),
		Collect: collect,
		Forge: func(t *testing.T, l remote.Layer, tar []byte) {
			t.Helper()
			put(t, a, l.Object, encode(t, codecOf(t, l.Object), tar))
		},
	}
}

func collectNow(t *testing.T, s storage.Store) error {
	time.Sleep(10 * time.Millisecond) // for entries of this instant to be older
	_, err := open(t, s, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: soon})
	return err
}

func open(t testing.TB, s storage.Store, c codec.Codec) *repo.Repo {
	t.Helper()
	r, err := repo.Open(context.Background(), s, repo.Options{Name: "the-remote", Codec: c})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func openDir(t testing.TB, dir string) *file.Store {
	t.Helper()
	s, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// tagKey is where docs/format.md says that a tag lies.
func tagKey(ref string) string {
	slash, colon := strings.LastIndexByte(ref, '/'), strings.LastIndexByte(ref, ':')
	if colon < slash {
		ref, colon = ref+":latest", len(ref)
	}
	return "repositories/" + strings.ReplaceAll(ref[:colon], ":", "%3A") + "/" + ref[colon+1:]
}

// codecOf tells a layer's codec from its key.
func codecOf(t testing.TB, key string) codec.Codec {
	t.Helper()
	switch {
	case strings.HasSuffix(key, "/layer.tar.lz4"):
		return codec.LZ4
	case strings.HasSuffix(key, "/layer.tar.zst"):
		return codec.Zstd
	case strings.HasSuffix(key, "/layer.tar"):
		return codec.None
	}
	t.Fatalf("%s is no layer", key)
	return 0
}

func encode(t testing.TB, c codec.Codec, b []byte) []byte {
	t.Helper()
	return all(t, c.Encode(bytes.NewReader(b)))
}

func all(t testing.TB, r io.ReadCloser) []byte {
	t.Helper()
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t testing.TB, s storage.Store, key string, content []byte) {
	t.Helper()
	if err := s.Put(context.Background(), key, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, s storage.Store, key string) []byte {
	t.Helper()
	r, err := s.Get(context.Background(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	return all(t, r)
}

func remove(t testing.TB, s storage.Store, key string) {
	t.Helper()
	if err := s.Delete(context.Background(), key); err != nil {
		t.Fatal(err)
	}
}

func keys(t testing.TB, s storage.Store, prefix string) []string {
	t.Helper()
	var keys []string
	for info, err := range s.List(context.Background(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// tree returns all objects of a store.
func tree(t testing.TB, s storage.Store) map[string][]byte {
	t.Helper()
	objects := map[string][]byte{}
	for _, key := range keys(t, s, "") {
		objects[key] = get(t, s, key)
	}
	return objects
}
