package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

func TestMain(m *testing.M) {
	// The proxy's server takes half a second to part with a broken connection.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// TestSuite runs on a server that keeps objects in directories, so "a" and "a/b" conflict.
func TestSuite(t *testing.T) {
	server := s3test.For(t)
	storagetest.Run(t, storagetest.Harness{
		Create: true, Swap: true, Ranges: true, Conflicts: true,
		Large: 2*(8<<20) + 1, // three parts, five pieces
		Open: func(t *testing.T) storagetest.Target {
			b := server.Bucket(t)
			return storagetest.Target{
				A: open(t, server.Account, server.Endpoint, b, nil),
				B: open(t, server.Account, server.Endpoint, b, nil),
				Leftovers: func(t *testing.T) []string {
					return server.Uploads(t, b)
				},
			}
		},
	})
}

// open opens a bucket as account, with quick retries that change may alter.
func open(t testing.TB, account s3test.Account, endpoint, bucket string, change func(*s3.Options)) *s3.Store {
	t.Helper()
	s, err := tryOpen(t, account, endpoint, bucket, change)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryOpen(t testing.TB, account s3test.Account, endpoint, bucket string, change func(*s3.Options)) (*s3.Store, error) {
	t.Helper()
	as(t, account)
	o, err := s3.Parse("s3://" + bucket + "?endpoint=" + url.QueryEscape(endpoint))
	if err != nil {
		t.Fatal(err)
	}
	o.MaxBackoff = 20 * time.Millisecond
	if change != nil {
		change(&o)
	}
	s, err := s3.Open(t.Context(), o)
	if err == nil {
		t.Cleanup(func() { _ = s.Close() })
	}
	return s, err
}

// as lets the process be an account. Credentials are read when a store is opened.
func as(t testing.TB, account s3test.Account) {
	t.Helper()
	for _, name := range []string{"AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE", "AWS_SESSION_TOKEN"} {
		t.Setenv(name, "")
	}
	for _, v := range account.Environment() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
}

// notes gathers what a store tells of retries.
type notes struct {
	mu    sync.Mutex
	lines []string
}

func (n *notes) add(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, line)
}

func (n *notes) all() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.lines, "\n")
}

func noise(size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

func put(t testing.TB, s storage.Store, key string, content []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, bytes.NewReader(content)); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func content(ctx context.Context, s storage.Store, key string) ([]byte, error) {
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func holds(t testing.TB, s storage.Store, key string, want []byte) {
	t.Helper()
	got, err := content(t.Context(), s, key)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes, error %v; want %d bytes", key, len(got), err, len(want))
	}
}

func TestPrefix(t *testing.T) {
	server := s3test.For(t)
	b := server.Bucket(t)
	within := func(prefix string) *s3.Store {
		return open(t, server.Account, server.Endpoint, b, func(o *s3.Options) { o.Prefix = prefix })
	}
	whole, inner, other := within(""), within("a/b"), within("a/b2")
	put(t, inner, "key", []byte("inner"))
	put(t, other, "key", []byte("other"))
	holds(t, whole, "a/b/key", []byte("inner"))
	for name, test := range map[string]struct {
		store *s3.Store
		want  string
	}{"whole": {whole, "[a/b/key a/b2/key]"}, "inner": {inner, "[key]"}, "other": {other, "[key]"}} {
		var keys []string
		for info, err := range test.store.List(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, info.Key)
		}
		if got := fmt.Sprint(keys); got != test.want {
			t.Errorf("%s lists %s, want %s", name, got, test.want)
		}
	}
	long := strings.Repeat("k/", 511) + "kk"
	if err := inner.Put(t.Context(), long, strings.NewReader("")); !errors.Is(err, storage.ErrInvalidKey) {
		t.Errorf("a key that is too long with its prefix: %v", err)
	}
}

// TestVersion makes sure that other content has another version, and that a
// list tells the same one.
func TestVersion(t *testing.T) {
	server := s3test.For(t)
	s := open(t, server.Account, server.Endpoint, server.Bucket(t), nil)
	seen := map[string]bool{}
	for _, c := range []string{"one", "two", "three"} {
		put(t, s, "key", []byte(c))
		info, err := s.Stat(t.Context(), "key")
		if err != nil || info.Version == "" || seen[info.Version] {
			t.Errorf("%q: %+v, %v", c, info, err)
		}
		seen[info.Version] = true
		for listed, err := range s.List(t.Context(), "key") {
			if err != nil || listed != info {
				t.Errorf("listed as %+v, %v; want %+v", listed, err, info)
			}
		}
	}
}

// TestFarOffset reads where no object can be.
func TestFarOffset(t *testing.T) {
	server := s3test.For(t)
	s := open(t, server.Account, server.Endpoint, server.Bucket(t), nil)
	put(t, s, "key", []byte("content"))
	for _, offset := range []int64{7, 8, 1 << 40, math.MaxInt64 - 1, math.MaxInt64} {
		for _, length := range []int64{-1, 1, math.MaxInt64} {
			r, err := s.Get(t.Context(), "key", offset, length)
			if err != nil {
				t.Errorf("%d bytes at %d: %v", length, offset, err)
				continue
			}
			if b, err := io.ReadAll(r); len(b) > 0 || err != nil {
				t.Errorf("%d bytes at %d: %q, %v", length, offset, b, err)
			}
			_ = r.Close()
		}
	}
}
