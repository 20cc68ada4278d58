package chunk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/codec"
)

// opened counts which parts of a file are read.
type opened struct {
	mu    sync.Mutex
	parts map[int64]int // by where they begin
}

func (o *opened) count(read Reader) Reader {
	o.parts = map[int64]int{}
	return func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
		o.mu.Lock()
		o.parts[offset]++
		o.mu.Unlock()
		return read(ctx, offset, n)
	}
}

// TestTar: any range of a stored tar is what it is in the tar, for several who read at once.
func TestTar(t *testing.T) {
	for _, c := range []codec.Codec{codec.LZ4, codec.Zstd} {
		raw := tree(t, 300, time.Unix(1386756000, 0), nil)
		b := encode(t, c, raw)
		x, err := Read(t.Context(), file(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		tar := NewTar(t.Context(), x, file(b))
		var g errgroup.Group
		for n := range 8 {
			random := rand.New(rand.NewPCG(uint64(n), 1))
			g.Go(func() error {
				for range 15 {
					at := random.IntN(len(raw))
					p := make([]byte, random.IntN(600<<10))
					n, err := tar.ReadAt(p, int64(at))
					want := raw[at:min(at+len(p), len(raw))]
					if !bytes.Equal(p[:n], want) || (err != nil) != (len(want) < len(p)) {
						return fmt.Errorf("%s: %d bytes at %d are others: %w", c.Name(), len(p), at, err)
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if _, err := tar.ReadAt(make([]byte, 1), -1); err == nil {
			t.Error("there is a byte before the first one")
		}
		if len(raw) < keptMost {
			t.Fatalf("%d bytes are too few for this test", len(raw))
		}
		var kept int64
		for _, d := range tar.kept {
			kept += int64(len(d.raw))
		}
		if kept > keptMost || kept != tar.size {
			t.Errorf("%s: %d bytes are kept, and %d counted", c.Name(), kept, tar.size)
		}
		if err := tar.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestTarDecodesOnce: those who ask for one frame at once, and again, read it once.
func TestTarDecodesOnce(t *testing.T) {
	raw := tree(t, 60, time.Unix(1386756000, 0), nil)
	b := encode(t, codec.LZ4, raw)
	x, err := Read(t.Context(), file(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	var o opened
	tar := NewTar(t.Context(), x, o.count(file(b)))
	defer tar.Close()
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			_, err := tar.ReadAt(make([]byte, 100), x.Frames[0].Tar)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for at := x.Frames[1].Tar; at < x.Frames[2].Tar; at += 10_000 {
		if _, err := tar.ReadAt(make([]byte, 10), at); err != nil {
			t.Fatal(err)
		}
	}
	if len(o.parts) != 2 || o.parts[x.Frames[0].At] != 1 || o.parts[x.Frames[1].At] != 1 {
		t.Errorf("reads by offset: %v", o.parts)
	}
}

// TestTarFails: what is damaged, cut off, or stored in too many bytes is an error, and Close and the context end it.
func TestTarFails(t *testing.T) {
	raw := tree(t, 60, time.Unix(1386756000, 0), nil)
	b := encode(t, codec.LZ4, raw)
	whole, err := Read(t.Context(), file(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	first := whole.Frames[0]
	for name, c := range map[string]struct {
		change func(x *Index, b []byte) []byte
		want   error
	}{
		"damaged":  {func(_ *Index, b []byte) []byte { b[0] ^= 1; return b }, codec.ErrDamaged},
		"cut off":  {func(_ *Index, b []byte) []byte { return b[:first.Stored-1] }, ErrNone},
		"too much": {func(x *Index, b []byte) []byte { x.Frames[0].Stored = 2<<20 + 1; return b }, ErrDamaged},
		"smaller":  {func(x *Index, b []byte) []byte { x.Frames[0].Size--; return b }, codec.ErrDamaged},
	} {
		x := *whole
		x.Frames = slices.Clone(x.Frames)
		tar := NewTar(t.Context(), &x, file(c.change(&x, slices.Clone(b))))
		if _, err := tar.ReadAt(make([]byte, 10), 0); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		_ = tar.Close()
	}
	tar := NewTar(t.Context(), whole, func(ctx context.Context, _, _ int64) (io.ReadCloser, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	var g errgroup.Group
	for range 2 { // one who decodes, and one who waits for that
		g.Go(func() error {
			if _, err := tar.ReadAt(make([]byte, 10), 0); !errors.Is(err, context.Canceled) {
				return fmt.Errorf("closed: %w", err)
			}
			return nil
		})
	}
	_ = tar.Close()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
