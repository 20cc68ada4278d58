package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
)

// ErrTooLarge is returned, wrapped with the key, by Read.
var ErrTooLarge = errors.New("too large")

// Read returns all of an object that is to have most bytes at most. It reads one
// byte more, and fails with ErrTooLarge where there is one.
func Read(ctx context.Context, s Store, key string, most int64) ([]byte, error) {
	if small, ok := s.(SmallReader); ok {
		return small.ReadSmall(ctx, key, most)
	}
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

// ListAfter is List of what comes behind after, a key, of an object or of none; "" is
// before all. Where the store cannot begin there it reads what is before, and throws it away.
func ListAfter(ctx context.Context, s Store, prefix, after string) iter.Seq2[Info, error] {
	if later, ok := s.(LaterLister); ok && after > prefix {
		return later.ListAfter(ctx, prefix, after)
	}
	return func(yield func(Info, error) bool) {
		for info, err := range s.List(ctx, prefix) {
			if err == nil && info.Key <= after {
				continue
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// Part is Get, also of a store without ranges: what lies before the part is read, then,
// and thrown away.
func Part(ctx context.Context, s Store, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := s.Get(ctx, key, offset, length)
	if !errors.Is(err, errors.ErrUnsupported) {
		return r, err
	}
	if offset < 0 {
		return nil, err
	}
	if r, err = s.Get(ctx, key, 0, -1); err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, r, offset); err != nil && err != io.EOF {
		return nil, errors.Join(err, r.Close())
	}
	if length < 0 {
		return r, nil
	}
	return part{io.LimitReader(r, length), r}, nil
}

// Exact is a Store that may find out by asking alone that its server sends no parts, and whose Get reads more then.
type Exact interface {
	// GetExact is Get, and fails with errors.ErrUnsupported where more than the part would come.
	GetExact(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
}

// GetExact is Get for those to whom a part is of no use where the rest has to come as well: then it fails with
// errors.ErrUnsupported.
func GetExact(ctx context.Context, s Store, key string, offset, length int64) (io.ReadCloser, error) {
	if exact, ok := s.(Exact); ok {
		return exact.GetExact(ctx, key, offset, length)
	}
	return s.Get(ctx, key, offset, length)
}

type part struct {
	io.Reader
	io.Closer
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
