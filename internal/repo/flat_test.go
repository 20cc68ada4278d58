package repo_test

import (
	"context"
	"io"
	"iter"
	"strings"

	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// flat is a store without directories, as a bucket is: "a" and "a/b" do not
// conflict. Its mem.Store knows "/" as "|".
type flat struct {
	mem *mem.Store

	// written, where it is set, is called after each Put.
	written func(key string)

	// listing, where it is set, is what List fails with.
	listing error
}

func newFlat() *flat { return &flat{mem: mem.New()} }

func key(key string) string { return strings.ReplaceAll(key, "/", "|") }

func (f *flat) Get(ctx context.Context, k string, offset, length int64) (io.ReadCloser, error) {
	if err := storage.ValidKey(k); err != nil {
		return nil, err
	}
	return f.mem.Get(ctx, key(k), offset, length)
}

func (f *flat) Put(ctx context.Context, k string, body io.Reader) error {
	if err := storage.ValidKey(k); err != nil {
		return err
	}
	err := f.mem.Put(ctx, key(k), body)
	if err == nil && f.written != nil {
		f.written(k)
	}
	return err
}

func (f *flat) Stat(ctx context.Context, k string) (storage.Info, error) {
	if err := storage.ValidKey(k); err != nil {
		return storage.Info{}, err
	}
	info, err := f.mem.Stat(ctx, key(k))
	info.Key = k
	return info, err
}

func (f *flat) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		if f.listing != nil {
			yield(storage.Info{}, f.listing)
			return
		}
		for info, err := range f.mem.List(ctx, key(prefix)) {
			info.Key = strings.ReplaceAll(info.Key, "|", "/")
			if !yield(info, err) {
				return
			}
		}
	}
}

func (f *flat) Delete(ctx context.Context, k string) error {
	if err := storage.ValidKey(k); err != nil {
		return err
	}
	return f.mem.Delete(ctx, key(k))
}
