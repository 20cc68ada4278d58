package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/dogestry/dogestry/internal/storage"
)

// Create implements storage.Creator with If-None-Match. Its error wraps
// errors.ErrUnsupported on a server that does not honour it.
func (s *Store) Create(ctx context.Context, key string, body io.Reader) error {
	if err := s.conditions.check(ctx, s); err != nil {
		return err
	}
	if !s.conditions.create {
		return fmt.Errorf("%s: %w: the server ignores If-None-Match", s.o.url(), errors.ErrUnsupported)
	}
	full, err := s.key(key)
	if err != nil {
		return err
	}
	// Before the body is read: what is there already need not be sent.
	switch _, err := s.api.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.o.Bucket, Key: full}); {
	case err == nil:
		return fmt.Errorf("%s: %w", s.name(key), storage.ErrExists)
	case !missing(err):
		return s.failure(ctx, err, "look at", key)
	}
	return s.write(ctx, key, body, condition{absent: true})
}

// Swap implements storage.Swapper with If-Match. Its error wraps
// errors.ErrUnsupported on a server that does not honour it.
func (s *Store) Swap(ctx context.Context, key string, old, new []byte) error {
	if len(new) > storage.MaxSwap {
		return fmt.Errorf("%s: more than %d bytes", s.name(key), storage.MaxSwap)
	}
	if err := s.conditions.check(ctx, s); err != nil {
		return err
	}
	if !s.conditions.swap {
		return fmt.Errorf("%s: %w: the server ignores If-Match", s.o.url(), errors.ErrUnsupported)
	}
	now, etag, err := s.held(ctx, key)
	if errors.Is(err, storage.ErrNotFound) || err == nil && !bytes.Equal(now, old) {
		return fmt.Errorf("%s: %w", s.name(key), storage.ErrChanged)
	}
	if err != nil {
		return err
	}
	return s.write(ctx, key, bytes.NewReader(new), condition{etag: etag})
}

// held returns what a small object holds, and its ETag.
func (s *Store) held(ctx context.Context, key string) (content []byte, etag *string, err error) {
	r, err := s.Get(ctx, key, 0, storage.MaxSwap+1)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	if d, ok := r.(*download); ok {
		content, err = io.ReadAll(d)
		return content, d.etag, err
	}
	// No byte of it can be asked for, so nothing was said of it.
	info, err := s.Stat(ctx, key)
	if err == nil && info.Size > 0 {
		err = fmt.Errorf("%s: %w", s.name(key), storage.ErrChanged)
	}
	return nil, aws.String(`"` + info.Version + `"`), err
}

// conditions is which conditional writes a server honours. Some take the
// header and overwrite all the same.
type conditions struct {
	turn         chan struct{} // of one place; who has put something there may use the rest
	known        bool
	create, swap bool
}

// probeKey is below what copies of a repository leave out, and named as those of
// package probe are, which its Sweep removes.
const probeKey = "run/check-%016x/condition"

// check finds out, once, by writes to a key of its own.
func (c *conditions) check(ctx context.Context, s *Store) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", s.o.url(), ctx.Err())
	}
	if c.known {
		return nil
	}
	if !s.custom {
		c.known, c.create, c.swap = true, true, true
		return nil
	}
	key := fmt.Sprintf(probeKey, rand.Uint64())
	full, err := s.key(key)
	if err != nil {
		return err
	}
	put := func(ifNoneMatch, ifMatch *string) error {
		_, err := s.api.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &s.o.Bucket, Key: full, Body: bytes.NewReader(nil), ContentLength: aws.Int64(0),
			IfNoneMatch: ifNoneMatch, IfMatch: ifMatch,
		})
		return err
	}
	if err := put(nil, nil); err != nil {
		return s.failure(ctx, err, "write", key)
	}
	defer func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		if err := s.Delete(late, key); err != nil {
			s.o.log().Warn("cannot remove a probe", "key", key, "error", err)
		}
	}()
	create := put(aws.String(anythingElse), nil)
	swap := put(nil, aws.String(`"00000000000000000000000000000000"`))
	for _, err := range []error{create, swap} {
		if err != nil && !lost(err) && !notImplemented(err) {
			return s.failure(ctx, err, "write", key)
		}
	}
	c.known, c.create, c.swap = true, lost(create), lost(swap)
	return nil
}
