package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// ErrTooLarge is returned, wrapped with the key, by Read.
var ErrTooLarge = errors.New("too large")

// Read returns all of an object that is to have most bytes at most. It reads one
// byte more, and fails with ErrTooLarge where there is one.
func Read(ctx context.Context, s Store, key string, most int64) ([]byte, error) {
	r, err := s.Get(ctx, key, 0, most+1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", key, ErrTooLarge, most)
	}
	return b, nil
}
