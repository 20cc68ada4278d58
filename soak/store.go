package main

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/s3"
)

// store is what every transport under test is.
type store interface {
	storage.Store
	io.Closer
}

// openStore opens a path or a bucket. Each reading of an entry begins so much later
// than it would, so that others come between the steps of a command.
func openStore(ctx context.Context, name string, pause time.Duration) (store, error) {
	if !strings.HasPrefix(name, "s3://") {
		s, err := file.Create(name)
		if err != nil || pause == 0 {
			return s, err
		}
		return slowDirectory{s, pause}, nil
	}
	o, err := s3.Parse(name)
	if err != nil {
		return nil, err
	}
	s, err := s3.Open(ctx, o)
	if err != nil || pause == 0 {
		return s, err
	}
	return slowBucket{s, pause}, nil
}

// The slow stores embed what they slow down, so that they can all that it can.
type (
	slowDirectory struct {
		*file.Store
		pause time.Duration
	}
	slowBucket struct {
		*s3.Store
		pause time.Duration
	}
)

// Get implements storage.Store.
func (s slowDirectory) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	linger(ctx, key, s.pause)
	return s.Store.Get(ctx, key, offset, length)
}

// Get implements storage.Store.
func (s slowBucket) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	linger(ctx, key, s.pause)
	return s.Store.Get(ctx, key, offset, length)
}

func linger(ctx context.Context, key string, pause time.Duration) {
	if !strings.HasPrefix(key, "images/") {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// opener opens a repository by its name.
type opener func(ctx context.Context, name string, c codec.Codec, pause time.Duration) (*repo.Repo, error)

func openNew(ctx context.Context, name string, c codec.Codec, pause time.Duration) (*repo.Repo, error) {
	at, err := openStore(ctx, name, pause)
	if err != nil {
		return nil, err
	}
	return repo.Open(ctx, at, repo.Options{Name: name, Codec: c, Times: times})
}
