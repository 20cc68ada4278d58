package delta

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dogestry/dogestry/internal/chunk"
)

// TestManyReads: where an answer takes long, so many reads are on their way that waiting for them is little, and
// no more than there is room for.
func TestManyReads(t *testing.T) {
	const frames, latency = 128, 100 * time.Millisecond
	l := plain(frames, 128<<10)
	half := *l.index // of every other frame
	half.Chunks = slices.Clone(half.Chunks)
	for i := range half.Chunks {
		if i/4%2 == 0 {
			half.Chunks[i].Sum = chunk.Sum{byte(i), byte(i >> 8), 1}
		}
	}
	local := l.local(&localTar{content: l.tar})
	local.Index = &half
	synctest.Test(t, func(t *testing.T) {
		p := NewPlan(l.index, []Local{local})
		if p.Reads != frames/2 {
			t.Fatalf("%d reads", p.Reads)
		}
		r := p.Open(t.Context(), Options{Whole: l.whole, Read: func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
			time.Sleep(latency)
			return l.read(ctx, offset, n)
		}})
		defer r.Close()
		start := time.Now()
		if _, err := verified(r, l); err != nil || r.Stats().Whole {
			t.Fatal(err)
		}
		if rounds := time.Since(start) / latency; rounds != frames/2/readers {
			t.Errorf("%d reads one after the other", rounds)
		}
	})
}

// TestOpensAtOnce: nothing can be read before it is known which local layers are there, so they are opened at once.
func TestOpensAtOnce(t *testing.T) {
	old := plain(4, 128<<10)
	l := plain(8, 128<<10)
	var locals []Local
	for i := range workersLeast {
		x := *old.index
		x.Chunks = slices.Clone(x.Chunks)
		for j := range x.Chunks {
			if j/4 != i { // it has one frame
				x.Chunks[j].Sum = chunk.Sum{byte(i), byte(j), 1}
			}
		}
		locals = append(locals, Local{Index: &x, Open: func(context.Context) (Tar, error) {
			time.Sleep(time.Second)
			if i == 0 {
				return nil, fmt.Errorf("no such layer here")
			}
			return &localTar{content: old.tar}, nil
		}})
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, stats := pull(t, l, locals...)
		if stats.Local != 3*128<<10 {
			t.Errorf("%+v", stats)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("opening them took %s", took)
		}
	})
}
