package original_test

import (
	"context"
	"io"
	"iter"
	"strings"
	"sync"
	"testing"

	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/original/originaltest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

// fill puts a repository into a store.
func fill(t testing.TB, s storage.Store, r originaltest.Repository) {
	t.Helper()
	for key, content := range r {
		if err := s.Put(context.Background(), key, strings.NewReader(string(content))); err != nil {
			t.Fatal(err)
		}
	}
}

// reading counts how often objects with layers are opened.
type reading struct {
	*mem.Store
	mu     sync.Mutex
	opened []string
}

func (r *reading) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if strings.Contains(key, "/layer.tar") {
		r.mu.Lock()
		r.opened = append(r.opened, key)
		r.mu.Unlock()
	}
	return r.Store.Get(ctx, key, offset, length)
}

// small is a repository of two images that share a base.
func small() originaltest.Repository {
	r := originaltest.Repository{}
	base := r.Add("", originaltest.Step{Name: "base", Layer: originaltest.Tar("base=" + strings.Repeat("base ", 300))})
	r.Tag("app/1", r.Add(base, originaltest.Step{Name: "one", Layer: originaltest.Tar("one=1")}))
	r.Tag("team/deep/app/2", r.Add(base, originaltest.Step{Name: "two", Layer: originaltest.Tar("two=2"), Plain: true})+"\n")
	return r
}

func sourceOn(r *repo.Repo, o original.Options) *original.Source {
	o.Name = "the-remote"
	return original.New(r, o)
}

// versionless is a store that tells no versions, as a directory.
type versionless struct{ *mem.Store }

func (v versionless) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		for info, err := range v.Store.List(ctx, prefix) {
			info.Version = ""
			if !yield(info, err) {
				return
			}
		}
	}
}

// acting does something before one of its operations.
type acting struct {
	storagetest.Inner
	mu    sync.Mutex
	ops   int
	at    int
	act   func()
	acted bool
}

func (a *acting) next() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ops++; a.ops == a.at {
		a.act()
		a.acted = true
	}
}

func (a *acting) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	a.next()
	return a.Inner.Get(ctx, key, offset, length)
}

func (a *acting) Put(ctx context.Context, key string, body io.Reader) error {
	a.next()
	return a.Inner.Put(ctx, key, body)
}

func (a *acting) Stat(ctx context.Context, key string) (storage.Info, error) {
	a.next()
	return a.Inner.Stat(ctx, key)
}

func (a *acting) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	a.next()
	return a.Inner.List(ctx, prefix)
}

func (a *acting) Swap(ctx context.Context, key string, old, content []byte) error {
	a.next()
	return a.Inner.Swap(ctx, key, old, content)
}
