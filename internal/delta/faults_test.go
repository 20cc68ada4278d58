package delta

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
)

// releases are layers that have much in common: new mtimes, some files changed, none in common, tiny files only, files that
// come again, no tar from some point on.
func releases(t tester, c codec.Codec) []*layer {
	t.Helper()
	files := sizes(80, 1)
	changed := slices.Clone(files)
	for i := 0; i < len(changed); i += 13 {
		changed[i].seed++
	}
	var tiny, again []file
	for i := range 4000 {
		tiny = append(tiny, file{i % 30, uint64(i)})
	}
	for range 3 {
		for i := range 12 {
			again = append(again, file{40000 + 3000*i, uint64(i)})
		}
	}
	base := tree(t, files, 1)
	var all []*layer
	for _, tar := range [][]byte{
		base, tree(t, files, 1e9), tree(t, changed, 1e9), tree(t, sizes(80, 2), 1),
		tree(t, tiny, 1), tree(t, tiny, 1e9), tree(t, again, 1), tree(t, append(again[5:12], files...), 5),
		append(bytes.Clone(base[:len(base)/2+100]), noise(300000, 9)...), noise(400000, 9),
	} {
		all = append(all, newLayer(t, c, tar))
	}
	return all
}

// fault is what goes wrong with one read of a stored layer.
type fault int

const (
	fine       fault = iota
	fails            // to open
	breaksOff        // with an error
	endsEarly        // without one
	wrongBytes       // one byte
	otherThing       // another object, from that read on
	faults
)

var errFault = errors.New("the link is down")

// faulty reads a layer with a fault at the call of that number, from 1.
func faulty(l *layer, f fault, call int64, where float64, other *layer) chunk.Reader {
	var calls atomic.Int64
	return func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
		this := calls.Add(1)
		if f == otherThing && this >= call {
			offset = min(offset, int64(len(other.stored)))
			return other.read(ctx, offset, n)
		}
		body, err := l.read(ctx, offset, n)
		if err != nil || this != call || f == fine {
			return body, err
		}
		b, _ := io.ReadAll(body)
		at := int(where * float64(len(b)))
		switch f {
		case fails:
			return nil, errFault
		case breaksOff:
			return io.NopCloser(io.MultiReader(bytes.NewReader(b[:at]), broken{})), nil
		case endsEarly:
			b = b[:at]
		case wrongBytes:
			b[at] ^= 0x10
		}
		return io.NopCloser(bytes.NewReader(b)), nil
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errFault }

// TestProperty: whatever is at hand and whatever goes wrong, what comes out is the layer or an error.
func TestProperty(t *testing.T) {
	layers := map[codec.Codec][]*layer{}
	for _, c := range codecs {
		layers[c] = releases(t, c)
	}
	references := false
	for _, b := range layers[codec.LZ4][5].index.Blocks {
		references = references || b.Stored == 0
	}
	if !references {
		t.Error("no layer has literals in its frames only")
	}
	rapid.Check(t, func(t *rapid.T) {
		some := func(name string) *layer {
			return rapid.SampledFrom(layers[rapid.SampledFrom(codecs).Draw(t, "codec of "+name)]).Draw(t, name)
		}
		l := some("layer")
		honest := true
		var locals []Local
		var tars []*localTar
		for range rapid.IntRange(0, 3).Draw(t, "locals") {
			indexed := some("local")
			tar := &localTar{content: indexed.tar}
			lie := rapid.IntRange(0, 6).Draw(t, "lie")
			honest = honest && lie > 2
			switch lie {
			case 0:
				tar.change = rapid.Int64Range(1, 200).Draw(t, "changes at")
			case 1:
				tar.content = some("tar").tar
			case 2:
				tar.content = tar.content[:rapid.IntRange(0, len(tar.content)).Draw(t, "length")]
			case 3:
				tar.gone = true
			}
			tars, locals = append(tars, tar), append(locals, indexed.local(tar))
		}
		p := NewPlan(l.index, locals)
		f := fault(rapid.IntRange(0, int(faults)-1).Draw(t, "fault"))
		call := rapid.Int64Range(1, int64(p.Reads)+3).Draw(t, "at read")
		notes, wholes := 0, 0
		r := p.Open(context.Background(), Options{
			Read:  faulty(l, f, call, rapid.Float64Range(0, 0.999).Draw(t, "where"), some("other")),
			Whole: func(ctx context.Context) (io.ReadCloser, error) { wholes++; return l.whole(ctx) },
			Note:  func(error) { notes++ },
		})
		b, err := verified(r, l)
		stats := r.Stats()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if err == nil && !bytes.Equal(b, l.tar) {
			t.Fatalf("%d other bytes are taken for the layer's", len(b))
		}
		// Literals in a frame are not proved one by one.
		if mismatch := (*image.MismatchError)(nil); err != nil && (!errors.As(err, &mismatch) || f != wrongBytes && f != otherThing) {
			t.Fatalf("fault %d: %v", f, err)
		}
		if notes != wholes || wholes > 1 || stats.Whole != (wholes > 0) {
			t.Fatalf("%d notes, the whole layer was opened %d times, %+v", notes, wholes, stats)
		}
		if f == fine && honest && notes > 0 {
			t.Fatal("falls back without a reason")
		}
		for _, tar := range tars {
			if tar.opened.Load() != tar.closed.Load() {
				t.Fatal("a local layer is open")
			}
		}
	})
}

// TestFallback: whatever piece is damaged, the layer is opened whole, once, and goes on where it was.
func TestFallback(t *testing.T) {
	for _, c := range codecs {
		all := releases(t, c)
		for _, pair := range [][2]*layer{{all[0], all[2]}, {all[4], all[5]}, {all[3], all[6]}} {
			old, l := pair[0], pair[1]
			p := NewPlan(l.index, []Local{old.local(&localTar{content: old.tar})})
			var pieces []piece
			for _, r := range slices.Concat(p.frames, p.literals) {
				pieces = append(pieces, r...)
			}
			if len(pieces) < 2 {
				t.Errorf("%v: %d pieces", c, len(pieces))
			}
			for _, piece := range pieces {
				bad := &layer{stored: slices.Concat(l.stored[:piece.at], make([]byte, piece.size), l.stored[piece.at+piece.size:])}
				var noted []error
				r := p.Open(t.Context(), Options{Read: bad.read, Whole: l.whole, Note: func(cause error) { noted = append(noted, cause) }})
				if b, err := verified(r, l); err != nil || !bytes.Equal(b, l.tar) || len(noted) != 1 {
					t.Errorf("%v: with a hole at %d of %d: %v, noted %v", c, piece.at, len(l.stored), err, noted)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// TestFallbackFails: what is wrong with the whole layer is an error.
func TestFallbackFails(t *testing.T) {
	l := newLayer(t, codec.LZ4, tree(t, sizes(60, 1), 1))
	nothing := func(context.Context, int64, int64) (io.ReadCloser, error) { return nil, errFault }
	for _, c := range []struct {
		whole func(context.Context) (io.ReadCloser, error)
		want  error
	}{
		{func(context.Context) (io.ReadCloser, error) { return nil, io.ErrClosedPipe }, io.ErrClosedPipe},
		{func(context.Context) (io.ReadCloser, error) { return io.NopCloser(broken{}), nil }, errFault},
	} {
		r := NewPlan(l.index, nil).Open(t.Context(), Options{Read: nothing, Whole: c.whole})
		for range 2 { // it stays so
			if n, err := r.Read(make([]byte, 10)); n != 0 || !errors.Is(err, c.want) {
				t.Errorf("%d bytes, %v", n, err)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	// It ends before what was handed out.
	last := l.index.Frames[len(l.index.Frames)-1]
	bad := &layer{stored: slices.Concat(l.stored[:last.At], make([]byte, int64(len(l.stored))-last.At))}
	r := NewPlan(l.index, nil).Open(t.Context(), Options{Read: bad.read, Whole: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(l.tar[:100])), nil
	}})
	defer r.Close()
	if b, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Equal(b, l.tar[:last.Tar]) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// TestMend: a local chunk that is not what it was is fetched, its frame alone; many are not.
func TestMend(t *testing.T) {
	for _, c := range codecs {
		l := newLayer(t, c, tree(t, sizes(300, 1), 1))
		index := l.index
		p := NewPlan(index, []Local{l.local(&localTar{content: l.tar})})
		tar := bytes.Clone(l.tar)
		bad := index.Chunks[len(index.Chunks)/2]
		for r := range index.Content(bad.At, 1) {
			tar[r.Tar] ^= 1
		}
		_, stats := pull(t, l, l.local(&localTar{content: tar}))
		f := index.Frames[index.FrameOf(bad)]
		if want := p.Fetch + int64(f.Stored); stats.Fetched != want || stats.Whole {
			t.Errorf("%v: %d bytes are fetched, want %d", c, stats.Fetched, want)
		}

		noted := 0
		p = NewPlan(index, []Local{l.local(&localTar{content: invert(l.tar)})})
		r := p.Open(t.Context(), Options{Read: l.read, Whole: l.whole, Note: func(error) { noted++ }})
		if b, err := verified(r, l); err != nil || !bytes.Equal(b, l.tar) || noted != 1 {
			t.Errorf("%v: %v, noted %d times", c, err, noted)
		}
		_ = r.Close()
		if most := p.Fetch + max(index.Stored/mendShare, mendLeast); r.Stats().Fetched > most || r.Stats().Local != 0 {
			t.Errorf("%v: %+v, of %d bytes", c, r.Stats(), most)
		}
	}
}

// TestRepeats: what comes again in a layer travels once.
func TestRepeats(t *testing.T) {
	for _, c := range codecs {
		var files []file
		for range 3 {
			for i := range 4 {
				files = append(files, file{400 << 10, uint64(i)})
			}
		}
		l := newLayer(t, c, tree(t, files, 1))
		_, stats := pull(t, l)
		last := l.index.Frames[len(l.index.Frames)/3] // has some that comes again
		if most := l.index.Stored/3 + int64(last.Stored); stats.Fetched > most {
			t.Errorf("%v: %d of %d bytes are fetched", c, stats.Fetched, l.index.Stored)
		}
	}
}

// TestLyingIndex: with sums that are right each by itself, in another order, the whole is not taken for the layer.
func TestLyingIndex(t *testing.T) {
	l := newLayer(t, codec.LZ4, tree(t, []file{{100000, 1}, {20000, 2}, {20000, 3}, {100000, 4}}, 1))
	lie := *l.index
	lie.Chunks = slices.Clone(lie.Chunks)
	swapped := false
	for i := range lie.Chunks[1:] {
		if a, b := &lie.Chunks[i], &lie.Chunks[i+1]; a.Size == 20000 && b.Size == 20000 {
			a.Sum, b.Sum, swapped = b.Sum, a.Sum, true
		}
	}
	if !swapped {
		t.Fatal("no two chunks of one size")
	}
	r := NewPlan(&lie, []Local{l.local(&localTar{content: l.tar})}).Open(t.Context(), Options{Read: l.read, Whole: l.whole})
	defer r.Close()
	mismatch := (*image.MismatchError)(nil)
	if b, err := verified(r, l); !errors.As(err, &mismatch) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// TestCancel: wherever the context ends, Read says so, and nothing goes on.
func TestCancel(t *testing.T) {
	old := newLayer(t, codec.LZ4, tree(t, sizes(60, 1), 1))
	l := newLayer(t, codec.LZ4, tree(t, append(sizes(30, 2), sizes(60, 1)...), 2))
	for at := int64(1); ; at++ {
		ctx, cancel := context.WithCancel(t.Context())
		var step atomic.Int64
		count := func() {
			if step.Add(1) == at {
				cancel()
			}
		}
		tar := &localTar{content: old.tar}
		local := old.local(tar)
		open := local.Open
		local.Open = func(ctx context.Context) (Tar, error) {
			count()
			tar, err := open(ctx)
			return counted{tar, count}, err
		}
		r := NewPlan(l.index, []Local{local}).Open(ctx, Options{
			Read: func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
				count()
				return l.read(ctx, offset, n)
			},
			Whole: func(context.Context) (io.ReadCloser, error) { t.Error("falls back"); return nil, errFault },
		})
		b, err := verified(r, l)
		_ = r.Close()
		cancel()
		if tar.opened.Load() != tar.closed.Load() {
			t.Fatal("a local layer is open")
		}
		if err == nil && bytes.Equal(b, l.tar) {
			if at > step.Load() {
				break // there was no such step
			}
			continue // it came too late
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("at step %d: %d bytes, %v", at, len(b), err)
		}
		at += at / 8
	}
}

type counted struct {
	Tar
	count func()
}

func (c counted) ReadAt(p []byte, at int64) (int, error) {
	c.count()
	return c.Tar.ReadAt(p, at)
}

// TestClose: Close ends a Read, whatever that waits for.
func TestClose(t *testing.T) {
	l := newLayer(t, codec.LZ4, tree(t, sizes(60, 1), 1))
	var inside atomic.Int64
	hang := func(ctx context.Context, _, _ int64) (io.ReadCloser, error) {
		defer inside.Add(-1)
		inside.Add(1)
		<-ctx.Done()
		time.Sleep(time.Minute) // Close waits for it, by the clock of the test
		return nil, ctx.Err()
	}
	nothing := func(context.Context, int64, int64) (io.ReadCloser, error) { return nil, errFault }
	whole := func(ctx context.Context) (io.ReadCloser, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for _, o := range []Options{{Read: hang, Whole: l.whole}, {Read: nothing, Whole: whole}} {
		synctest.Test(t, func(t *testing.T) {
			r := NewPlan(l.index, nil).Open(t.Context(), o)
			var reading sync.WaitGroup
			reading.Go(func() {
				if n, err := r.Read(make([]byte, 10)); n != 0 || err == nil || err == io.EOF || errors.Is(err, errFault) {
					t.Errorf("%d bytes, %v", n, err)
				}
			})
			synctest.Wait()
			if err := r.Close(); err != nil || inside.Load() != 0 {
				t.Errorf("%v, and %d reads go on", err, inside.Load())
			}
			reading.Wait()
			if n, err := r.Read(make([]byte, 10)); n != 0 || err == nil || err == io.EOF {
				t.Errorf("after Close: %d bytes, %v", n, err)
			}
		})
	}
}

// TestMemory: however slow who reads is, no more is read ahead than there is room for.
func TestMemory(t *testing.T) {
	l := plain(40, 1<<20)
	for _, locals := range [][]Local{nil, {l.local(&localTar{content: l.tar})}} {
		synctest.Test(t, func(t *testing.T) {
			r := NewPlan(l.index, locals).Open(t.Context(), Options{Read: l.read, Whole: l.whole})
			defer r.Close()
			for at := 0; at < len(l.tar); at += 1 << 20 {
				synctest.Wait()
				stats := r.Stats()
				if ahead := stats.Local - int64(at); ahead > 16<<20 {
					t.Fatalf("%d bytes of local layers are held", ahead)
				}
				// 16 MiB as they are stored, 16 decoded, and what came before the last Read.
				if fetched := stats.Fetched * int64(len(l.tar)) / l.index.Stored; fetched-int64(at) > 34<<20 {
					t.Fatalf("%d bytes that were fetched are held", fetched)
				}
				b := make([]byte, min(1<<20, len(l.tar)-at))
				if _, err := io.ReadFull(r, b); err != nil || !bytes.Equal(b, l.tar[at:at+len(b)]) {
					t.Fatalf("at %d: %v", at, err)
				}
			}
		})
	}
}

// TestFetchedChunk: a chunk that decodes and is not what the index says is found at once, by its sum.
func TestFetchedChunk(t *testing.T) {
	l := plain(3, 1<<20)
	bad := &layer{stored: bytes.Clone(l.stored)}
	f := l.index.Frames[1]
	bad.stored[f.At+int64(f.Stored)/2] ^= 1
	if raw, err := codec.LZ4.AppendDecoded(nil, bad.stored[f.At:f.At+int64(f.Stored)], int(f.Size)); err != nil || bytes.Equal(raw, l.tar[f.Tar:][:f.Size]) {
		t.Fatalf("the frame does not decode to other bytes: %v", err)
	}
	noted := 0
	r := NewPlan(l.index, nil).Open(t.Context(), Options{Read: bad.read, Whole: l.whole, Note: func(error) { noted++ }})
	defer r.Close()
	if b, err := verified(r, l); err != nil || !bytes.Equal(b, l.tar) || noted != 1 {
		t.Errorf("%d bytes, %v, noted %d times", len(b), err, noted)
	}
}

// TestLargePiece: what an index says of a piece's size asks for no more memory than a read may have.
func TestLargePiece(t *testing.T) {
	l := plain(1, 1<<20)
	lie := *l.index
	lie.Frames = []chunk.Frame{{Size: 1 << 20, Stored: 1 << 29}}
	lie.Stored = 1 << 29
	r := NewPlan(&lie, nil).Open(t.Context(), Options{Whole: l.whole, Read: func(context.Context, int64, int64) (io.ReadCloser, error) {
		t.Error("it is read")
		return nil, errFault
	}})
	defer r.Close()
	if b, err := verified(r, l); err != nil || !bytes.Equal(b, l.tar) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
