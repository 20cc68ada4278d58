package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// TestLimits moves 3 MB at 1 MB a second, at once or by several requests that share it.
func TestLimits(t *testing.T) {
	server := s3test.For(t)
	b := server.Bucket(t)
	direct := open(t, server.Account, server.Endpoint, b, nil)
	one, third := noise(3e6), noise(1e6)
	put(t, direct, "one", one)
	for i := range 3 {
		put(t, direct, fmt.Sprint("third-", i), third)
	}
	up := func(o *s3.Options) { o.UploadLimit = 1e6 }
	down := func(o *s3.Options) { o.DownloadLimit = 1e6 }
	read := func(ctx context.Context, s *s3.Store, key string, want []byte) error {
		got, err := content(ctx, s, key)
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("%s has %d wrong bytes", key, len(got))
		}
		return err
	}
	for name, test := range map[string]struct {
		limit func(*s3.Options)
		run   func(*s3.Store) error
	}{
		"up": {up, func(s *s3.Store) error { return s.Put(t.Context(), "up", bytes.NewReader(one)) }},
		"up together": {up, func(s *s3.Store) error {
			g, ctx := errgroup.WithContext(t.Context())
			for i := range 3 {
				g.Go(func() error { return s.Put(ctx, fmt.Sprint("up-", i), bytes.NewReader(third)) })
			}
			return g.Wait()
		}},
		"down": {down, func(s *s3.Store) error { return read(t.Context(), s, "one", one) }},
		"down together": {down, func(s *s3.Store) error {
			g, ctx := errgroup.WithContext(t.Context())
			for i := range 3 {
				g.Go(func() error { return read(ctx, s, fmt.Sprint("third-", i), third) })
			}
			return g.Wait()
		}},
	} {
		s := open(t, server.Account, server.Endpoint, b, test.limit)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			err := test.run(s)
			if took := time.Since(start); err != nil || took < 2*time.Second || took > 30*time.Second {
				t.Errorf("3 MB at 1 MB/s took %s, %v", took, err)
			}
		})
	}
}

// TestSlowLimit has a limit so low that what is in a connection's buffer takes
// longer than a stall: that is no stall.
func TestSlowLimit(t *testing.T) {
	server := s3test.For(t)
	proxy := server.ProxyFor(t)
	var told notes
	s := open(t, server.Account, proxy.Endpoint, server.Bucket(t), func(o *s3.Options) {
		o.UploadLimit, o.Stall, o.Notify = 40e3, time.Second, told.add
	})
	g, ctx := errgroup.WithContext(t.Context())
	for i := range 4 {
		g.Go(func() error { return s.Put(ctx, fmt.Sprint("key-", i), bytes.NewReader(noise(30e3))) })
	}
	if err := g.Wait(); err != nil || told.all() != "" || proxy.Count() != 4 {
		t.Errorf("%v, %d requests, told %q", err, proxy.Count(), told.all())
	}
}

// TestLimitEnds makes sure that nobody waits for bytes that nobody wants.
func TestLimitEnds(t *testing.T) {
	server := s3test.For(t)
	b := server.Bucket(t)
	put(t, open(t, server.Account, server.Endpoint, b, nil), "large", noise(10<<20))
	slow := func() *s3.Store {
		return open(t, server.Account, server.Endpoint, b, func(o *s3.Options) { o.UploadLimit, o.DownloadLimit = 10e3, 10e3 })
	}
	for name, run := range map[string]func(context.Context, *s3.Store) error{
		"up":       func(ctx context.Context, s *s3.Store) error { return s.Put(ctx, "key", bytes.NewReader(noise(1<<20))) },
		"up parts": func(ctx context.Context, s *s3.Store) error { return s.Put(ctx, "key", bytes.NewReader(noise(10<<20))) },
		"down":     func(ctx context.Context, s *s3.Store) error { _, err := content(ctx, s, "large"); return err },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var cancelled time.Time
		time.AfterFunc(500*time.Millisecond, func() { cancelled = time.Now(); cancel() })
		err := run(ctx, slow())
		if took := time.Since(cancelled); !errors.Is(err, context.Canceled) || took > 10*time.Second {
			t.Errorf("%s: %v, %s after the end of its context", name, err, took)
		}
	}
	r, err := slow().Get(t.Context(), "large", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, nil); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := r.Close(); err != nil || time.Since(start) > 10*time.Second {
		t.Errorf("Close took %s, %v", time.Since(start), err)
	}
	if left := server.Uploads(t, b); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}
