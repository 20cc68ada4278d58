package chunk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/dogestry/dogestry/internal/codec"
)

// forged is a file of so many bytes of frames, with an index of these numbers. Each sum is zeros.
func forged(t testing.TB, stored int, numbers []uint64, sums int) []byte {
	t.Helper()
	var table []byte
	for _, n := range numbers {
		table = binary.AppendUvarint(table, n)
	}
	return sealed(t, stored, append(table, make([]byte, sums*len(Sum{}))...))
}

// sealed is the same with a table.
func sealed(t testing.TB, stored int, table []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	packed := z.EncodeAll(table, nil)
	footer := append([]byte(footerMagic), footerVersion, 1, 0, 0, 0, 0, 0, 0)
	footer = binary.LittleEndian.AppendUint32(footer, uint32(len(packed)))
	footer = binary.LittleEndian.AppendUint32(footer, uint32(len(table)))
	footer = binary.LittleEndian.AppendUint32(footer, uint32(len(packed)+footerSize))
	footer = append(footer, 0, 0, 0, 0)
	return codec.AppendSkippable(make([]byte, stored), frameKind, append(packed, footer...))
}

// TestForged: tables whose parts do not fit together are damaged, one whose do is read.
func TestForged(t *testing.T) {
	const stored = 100
	for name, test := range map[string]struct {
		numbers []uint64 // size, stored; how many frames, chunks, spans, blocks; and these
		sums    int
		good    bool
	}{
		"good":                          {[]uint64{1000, stored, 2, 1, 2, 1, 400, 60, 600, 40, 300, 500, 300, 200, 0, 700, 0}, 1, true},
		"a chunk over two frames":       {[]uint64{1000, stored, 2, 1, 2, 1, 400, 60, 600, 40, 300, 200, 300, 500, 0, 700, 0}, 1, false},
		"a chunk over the whole tar":    {[]uint64{1000, stored, 2, 1, 1, 0, 400, 60, 600, 40, 1000, 0, 1000}, 1, false},
		"frames of less than the tar":   {[]uint64{1000, stored, 1, 0, 1, 1, 999, stored, 1000, 0, 1000, 0}, 0, false},
		"frames of more than the tar":   {[]uint64{1000, stored, 1, 0, 1, 1, 1001, stored, 1000, 0, 1000, 0}, 0, false},
		"frames of more than the file":  {[]uint64{1000, stored, 1, 0, 1, 1, 1000, stored + 1, 1000, 0, 1000, 0}, 0, false},
		"another file":                  {[]uint64{1000, stored + 1, 1, 0, 1, 1, 1000, stored + 1, 1000, 0, 1000, 0}, 0, false},
		"a frame of 2 MiB":              {[]uint64{2 << 20, stored, 1, 0, 1, 2, 2 << 20, stored, 2 << 20, 0, 1 << 20, 0, 1 << 20, 0}, 0, false},
		"a frame of nothing":            {[]uint64{1000, stored, 2, 0, 1, 1, 1000, 50, 0, 50, 1000, 0, 1000, 0}, 0, false},
		"a frame stored in nothing":     {[]uint64{1000, stored, 2, 0, 1, 1, 999, stored, 1, 0, 1000, 0, 1000, 0}, 0, false},
		"literals alone":                {[]uint64{1000, stored, 1, 0, 1, 1, 1000, stored, 1000, 0, 1000, 0}, 0, true},
		"chunks of less than content":   {[]uint64{1000, stored, 1, 1, 1, 1, 1000, stored, 499, 500, 500, 500, 0}, 1, false},
		"chunks of more than content":   {[]uint64{1000, stored, 1, 1, 1, 1, 1000, stored, 501, 500, 500, 500, 0}, 1, false},
		"a chunk of nothing":            {[]uint64{1000, stored, 1, 2, 1, 1, 1000, stored, 500, 0, 500, 500, 500, 0}, 2, false},
		"chunks, and no span":           {[]uint64{1000, stored, 1, 1, 0, 0, 1000, stored, 500}, 1, false},
		"spans of less than the tar":    {[]uint64{1000, stored, 1, 1, 1, 1, 1000, stored, 499, 500, 499, 500, 0}, 1, false},
		"spans of more than the tar":    {[]uint64{1000, stored, 1, 1, 1, 1, 1000, stored, 500, 501, 500, 501, 0}, 1, false},
		"spans that wrap around":        {[]uint64{1000, stored, 1, 1, 2, 1, 1000, stored, 500, 1 << 62, 500, 1 << 62, 500, 500, 0}, 1, false},
		"a span without content":        {[]uint64{1000, stored, 1, 0, 2, 1, 1000, stored, 500, 0, 500, 0, 1000, 0}, 0, false},
		"a span without literals":       {[]uint64{1000, stored, 1, 1, 2, 1, 1000, stored, 500, 500, 200, 0, 300, 500, 0}, 1, false},
		"blocks of less than literals":  {[]uint64{1000, stored, 1, 1, 1, 1, 1000, stored, 500, 500, 500, 499, 0}, 1, false},
		"blocks of more than literals":  {[]uint64{1000, stored, 1, 1, 1, 1, 1000, stored, 500, 500, 500, 501, 0}, 1, false},
		"a block that is not there":     {[]uint64{1000, stored, 1, 1, 1, 1, 1000, stored, 500, 500, 500, 500, 1}, 1, false},
		"no sums":                       {[]uint64{1000, stored, 1, 1, 1, 1, 1000, stored, 500, 500, 500, 500, 0}, 0, false},
		"more than there is":            {[]uint64{1000, stored, 1, 1, 1, 1, 1000, stored, 500, 500, 500, 500, 0, 7}, 1, false},
		"more rows than a table can":    {[]uint64{1000, stored, 1 << 61, 1, 1, 1}, 0, false},
		"nothing of nothing":            {[]uint64{0, stored, 0, 0, 0, 0}, 0, false},
		"a number of more than 63 bits": {[]uint64{1 << 63, stored, 0, 0, 0, 0}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := forged(t, stored, test.numbers, test.sums)
			_, err := Read(t.Context(), file(b), int64(len(b)))
			if test.good && err != nil || !test.good && !errors.Is(err, ErrDamaged) {
				t.Error(err)
			}
		})
	}
}

// TestLargeFrame: who wants a frame holds it as it is stored, so that it has to be of some size.
func TestLargeFrame(t *testing.T) {
	for stored, good := range map[int]bool{1000 + 64<<10: true, 1001 + 64<<10: false} {
		b := forged(t, stored, []uint64{1000, uint64(stored), 1, 0, 1, 1, 1000, uint64(stored), 1000, 0, 1000, 0}, 0)
		if _, err := Read(t.Context(), file(b), int64(len(b))); (err == nil) != good {
			t.Errorf("a frame stored in %d bytes: %v", stored, err)
		}
	}
}

// TestBombs: what an index says is not what is allocated.
func TestBombs(t *testing.T) {
	t.Run("a table of 1 GiB", func(t *testing.T) {
		b := sealed(t, 100, make([]byte, 1<<30>>3)) // eight of them would not fit in tests
		if _, err := Read(t.Context(), file(b), int64(len(b))); !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
	})
	t.Run("rows", func(t *testing.T) {
		const n = rowsMost + 1
		table := []byte{}
		for _, k := range []uint64{n, 100, 1, 0, n, 1} {
			table = binary.AppendUvarint(table, k)
		}
		table = append(table, bytes.Repeat([]byte{1}, 2*n+4)...)
		b := sealed(t, 100, table)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := Read(t.Context(), file(b), int64(len(b))); !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 40<<20 {
			t.Errorf("%d bytes were allocated", got)
		}
	})
	t.Run("a literal block", func(t *testing.T) {
		z, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		bomb := z.EncodeAll(make([]byte, 64<<20), nil)
		x := &Index{}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := x.Block(bomb, Block{Size: 100, Stored: int64(len(bomb))}); !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 20<<20 {
			t.Errorf("%d bytes were allocated", got)
		}
	})
}

// TestNone: what has no index says so, and so does one of a later version.
func TestNone(t *testing.T) {
	raw := tree(t, 100, time.Unix(1, 0), nil)
	with := encode(t, codec.LZ4, raw)
	x, err := Read(t.Context(), file(with), int64(len(with)))
	if err != nil {
		t.Fatal(err)
	}
	later := bytes.Clone(with)
	later[len(later)-footerSize+8]++
	for name, b := range map[string][]byte{
		"empty":             {},
		"short":             with[:footerSize-1],
		"a plain stream":    encodePlain(t, raw),
		"cut before it":     with[:x.Stored],
		"cut within it":     with[:len(with)-1],
		"of a later writer": later,
	} {
		if _, err := Read(t.Context(), file(b), int64(len(b))); !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Read(t.Context(), file(nil), -1); !errors.Is(err, ErrNone) {
		t.Errorf("of a size that is none: %v", err)
	}
	short := func(_ context.Context, offset, _ int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(with[offset : len(with)-5])), nil
	}
	if _, err := Read(t.Context(), short, int64(len(with))); !errors.Is(err, ErrNone) {
		t.Errorf("an object that has become shorter: %v", err)
	}
	broken := errors.New("no answer")
	if _, err := Read(t.Context(), func(context.Context, int64, int64) (io.ReadCloser, error) { return nil, broken }, 1000); !errors.Is(err, broken) {
		t.Errorf("a store that fails: %v", err)
	}
}

func encodePlain(t testing.TB, raw []byte) []byte {
	t.Helper()
	e := codec.LZ4.Encode(bytes.NewReader(raw))
	defer e.Close()
	b, err := io.ReadAll(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTwoReads: a table that is longer than what is read at first is read all the same.
func TestTwoReads(t *testing.T) {
	raw := tree(t, 3000, time.Unix(1, 0), func(i int, _ []byte) []byte { return append(noise(uint64(i), 99), make([]byte, 9000)...) })
	b := encode(t, codec.LZ4, raw)
	reads := 0
	counted := func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
		reads++
		return file(b)(ctx, offset, n)
	}
	x, err := Read(t.Context(), counted, int64(len(b)))
	if err != nil || reads != 2 || len(x.Chunks) < 3000 {
		t.Errorf("%d reads of %d chunks in %d bytes, %v", reads, len(x.Chunks), len(b), err)
	}
}

// FuzzIndex: whatever the end of a file says, reading it and looking everything up that it has
// ends, in bounded memory, and without a panic.
func FuzzIndex(f *testing.F) {
	for _, numbers := range [][]uint64{
		{1000, 100, 2, 1, 2, 1, 400, 60, 600, 40, 300, 500, 300, 200, 0, 700, 0},
		{1000, 100, 1, 0, 1, 1, 1000, 100, 1000, 0, 1000, 0},
	} {
		var table []byte
		for _, n := range numbers {
			table = binary.AppendUvarint(table, n)
		}
		f.Add(append(table, make([]byte, 16)...), []byte{}, uint16(100))
	}
	f.Add([]byte{}, forged(f, 20, []uint64{1000, 20, 1, 0, 1, 1, 1000, 20, 1000, 0, 1000, 0}, 0), uint16(0))
	f.Fuzz(func(t *testing.T, table, raw []byte, stored uint16) {
		for _, b := range [][]byte{raw, sealed(t, int(stored), table)} {
			x, err := Read(t.Context(), file(b), int64(len(b)))
			if err != nil {
				if !errors.Is(err, ErrNone) && !errors.Is(err, ErrDamaged) {
					t.Fatal(err)
				}
				continue
			}
			walk(t, x)
			packed, err := x.ReadBlocks(t.Context(), file(b))
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range x.Blocks {
				if l.Stored > 0 {
					_, _ = x.Block(packed, l)
				}
			}
		}
	})
}

// walk looks up all that an index has.
func walk(t *testing.T, x *Index) {
	t.Helper()
	var seen int64
	for _, k := range x.Chunks {
		f := x.Frames[x.FrameOf(k)]
		for r := range x.Content(k.At, int64(k.Size)) {
			if seen += r.Size; r.Size <= 0 || r.Tar < f.Tar || r.End() > f.Tar+int64(f.Size) {
				t.Fatal("a chunk is not in its frame")
			}
		}
	}
	for _, l := range x.Blocks {
		for r := range x.Literals(l.LiteralAt, l.Size) {
			if seen += r.Size; r.Size <= 0 || r.Tar < 0 || r.End() > x.Size {
				t.Fatal("literals are not in the tar")
			}
			if first, end := x.FramesOf(r); first >= end || end > len(x.Frames) {
				t.Fatal("literals are in no frame")
			}
		}
	}
	if seen != x.Size {
		t.Fatalf("%d bytes of %d are told of", seen, x.Size)
	}
}
