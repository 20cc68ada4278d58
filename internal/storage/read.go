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

// ReadFull fills p. Its error is body's, io.EOF as it is, or Ended once ctx has; it
// looks at ctx before and behind each Read.
func ReadFull(ctx context.Context, body io.Reader, p []byte) (n int, err error) {
	for empty := 0; n < len(p); {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		m, err := body.Read(p[n:])
		n += m
		if ctx.Err() != nil {
			return n, Ended(ctx, err)
		}
		if err != nil {
			return n, err
		}
		if m > 0 {
			empty = 0
		} else if empty++; empty == 100 {
			return n, io.ErrNoProgress
		}
	}
	return n, nil
}

// Ended returns the end of ctx, which has, with the body's own error where it had
// another.
func Ended(ctx context.Context, bodyErr error) error {
	if bodyErr == nil || bodyErr == io.EOF || errors.Is(bodyErr, ctx.Err()) {
		return ctx.Err()
	}
	return fmt.Errorf("%w (%w)", ctx.Err(), bodyErr)
}
