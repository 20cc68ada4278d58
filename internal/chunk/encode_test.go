package chunk

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/dogestry/dogestry/internal/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// file is a Reader of bytes.
func file(b []byte) Reader {
	return func(_ context.Context, offset, n int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b[offset:min(offset+n, int64(len(b)))])), nil
	}
}

func encode(t testing.TB, c codec.Codec, tar []byte) []byte {
	t.Helper()
	e := Encode(c, bytes.NewReader(tar))
	defer e.Close()
	b, err := io.ReadAll(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rebuild puts a tar together again by its index: literals from the index where they are there, all else
// from the frames.
func rebuild(t rapid.TB, b []byte) []byte {
	t.Helper()
	x, err := Read(context.Background(), file(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := x.ReadBlocks(context.Background(), file(b))
	if err != nil {
		t.Fatal(err)
	}
	tar := make([]byte, x.Size)
	for _, f := range x.Frames {
		raw, err := x.Codec.AppendDecoded(nil, b[f.At:f.At+int64(f.Stored)], int(f.Size))
		if err != nil {
			t.Fatal(err)
		}
		copy(tar[f.Tar:], raw)
	}
	for _, bl := range x.Blocks {
		if bl.Stored == 0 {
			continue
		}
		literals, err := x.Block(stored, bl)
		if err != nil {
			t.Fatal(err)
		}
		for r := range x.Literals(bl.LiteralAt, bl.Size) {
			clear(tar[r.Tar:r.End()])
			literals = literals[copy(tar[r.Tar:r.End()], literals):]
		}
	}
	return tar
}

// tree returns a tar of files of all sizes, all of one age.
func tree(t rapid.TB, files int, age time.Time, change func(i int, b []byte) []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range files {
		r := rand.New(rand.NewPCG(uint64(i), 1))
		content := make([]byte, r.IntN(1<<(6+i%13)))
		for i := range content {
			content[i] = byte(r.Uint32() & 0x1f)
		}
		if change != nil {
			content = change(i, content)
		}
		err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("dir%d/file%d", i/100, i), Mode: 0o644, Size: int64(len(content)), ModTime: age})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var codecsWithFrames = []codec.Codec{codec.LZ4, codec.Zstd}

func TestRoundTrip(t *testing.T) {
	raw := tree(t, 500, time.Unix(1, 0), nil)
	for _, c := range codecsWithFrames {
		b := encode(t, c, raw)
		d := c.Decode(bytes.NewReader(b))
		got, err := io.ReadAll(d)
		if err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%v: the stream decodes to %d bytes, %v", c, len(got), err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(rebuild(t, b), raw) {
			t.Errorf("%v: by the index it is another tar", c)
		}
	}
}

// TestNewTimes: of a tree with new mtimes and one changed file nearly all chunks are known.
func TestNewTimes(t *testing.T) {
	first := encode(t, codec.LZ4, tree(t, 500, time.Unix(1, 0), nil))
	second := encode(t, codec.LZ4, tree(t, 500, time.Unix(1e9, 0), func(i int, b []byte) []byte {
		if i == 250 {
			b = append(b, "changed"...)
		}
		return b
	}))
	known := map[Sum]bool{}
	x, err := Read(t.Context(), file(first), int64(len(first)))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range x.Chunks {
		known[c.Sum] = true
	}
	if x, err = Read(t.Context(), file(second), int64(len(second))); err != nil {
		t.Fatal(err)
	}
	fresh := 0
	for _, c := range x.Chunks {
		if !known[c.Sum] {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d of %d chunks are new", fresh, len(x.Chunks))
	}
}

// TestEncodeFails: an error of src comes out as it is, behind what came before it, and never with an end.
func TestEncodeFails(t *testing.T) {
	raw := tree(t, 300, time.Unix(1, 0), nil)
	broken := errors.New("the engine has gone")
	for _, at := range []int{0, 1, 700, len(raw) / 2, len(raw) - 1, len(raw)} {
		for _, c := range codecsWithFrames {
			e := Encode(c, io.MultiReader(bytes.NewReader(raw[:at]), iotest.ErrReader(broken)))
			b, err := io.ReadAll(e)
			if !errors.Is(err, broken) {
				t.Errorf("%v, failed at %d: %v", c, at, err)
			}
			if n, err := e.Read(make([]byte, 1)); n > 0 || !errors.Is(err, broken) {
				t.Errorf("%v, read again: %d, %v", c, n, err)
			}
			if _, err := Read(t.Context(), file(b), int64(len(b))); !errors.Is(err, ErrNone) {
				t.Errorf("%v, failed at %d: there is an index, %v", c, at, err)
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestClose: closed at any time, it ends, and src is not read any more.
func TestClose(t *testing.T) {
	raw := tree(t, 300, time.Unix(1, 0), nil)
	for n := range 4 {
		src := &counted{r: io.MultiReader(bytes.NewReader(raw), bytes.NewReader(raw))}
		e := Encode(codec.LZ4, src)
		if _, err := io.CopyN(io.Discard, e, int64(n)*300<<10); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}
		read := src.n
		if _, err := e.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
			t.Errorf("read after Close: %v", err)
		}
		if src.n != read {
			t.Error("src is read after Close")
		}
	}
}

// TestCloseInRead: Close ends a Read that waits, and returns once src has answered.
func TestCloseInRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := io.Pipe()
		e := Encode(codec.LZ4, from)
		var read, closed error
		ended := false
		go func() { _, read = io.ReadAll(e) }()
		if _, err := to.Write(make([]byte, 100)); err != nil { // now src is read again
			t.Fatal(err)
		}
		go func() {
			closed = e.Close()
			ended = true
		}()
		if synctest.Wait(); ended {
			t.Error("Close has not waited for src")
		}
		to.Close()
		if synctest.Wait(); !ended || closed != nil {
			t.Errorf("closed: %v, %v", ended, closed)
		}
		if read != nil && !errors.Is(read, os.ErrClosed) {
			t.Error(read)
		}
	})
}

// counted counts what is read. Who reads n waits until nobody reads.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// TestSameBytes: one core or eight, the file is the same.
func TestSameBytes(t *testing.T) {
	raw := tree(t, 600, time.Unix(1, 0), nil)
	for _, c := range codecsWithFrames {
		before := runtime.GOMAXPROCS(1)
		one := encode(t, c, raw)
		runtime.GOMAXPROCS(8)
		eight := encode(t, c, raw)
		runtime.GOMAXPROCS(before)
		if !bytes.Equal(one, eight) {
			t.Errorf("%v: %d and %d bytes", c, len(one), len(eight))
		}
	}
}

// TestSmall: what travels whole anyway is as it was before there were indexes.
func TestSmall(t *testing.T) {
	for _, raw := range [][]byte{[]byte("x"), noise(1, 40<<10)} {
		for _, c := range append(codecsWithFrames, codec.None) {
			e := c.Encode(bytes.NewReader(raw))
			want, err := io.ReadAll(e)
			e.Close()
			if err != nil {
				t.Fatal(err)
			}
			if got := encode(t, c, raw); !bytes.Equal(got, want) {
				t.Errorf("%v: of %d bytes are made %x, before it was %x", c, len(raw), got[:min(40, len(got))], want[:min(40, len(want))])
			}
		}
	}
}

// TestInline: trees of tiny files leave their literals to the frames, others have them in the index, which is small.
func TestInline(t *testing.T) {
	for name, test := range map[string]struct {
		size   int
		inline bool
	}{"tiny": {1, false}, "usual": {30 << 10, true}} {
		raw := tree(t, 2<<20/(512+test.size), time.Unix(1, 0), func(i int, _ []byte) []byte { return noise(uint64(i), test.size) })
		b := encodeAll(t, codec.LZ4, bytes.NewReader(raw), targets[codec.LZ4])
		x := proof(t, codec.LZ4, b, raw)
		for i, l := range x.Blocks {
			if inline := l.Stored > 0; inline != test.inline {
				t.Errorf("%s: block %d is stored in %d bytes", name, i, l.Stored)
			}
		}
		if test.inline && x.Payload > x.Stored/50 {
			t.Errorf("%s: an index of %d bytes for %d", name, x.Payload, x.Stored)
		}
	}
}

// TestTooLarge: a layer that needs a larger table than readers take has no index, and is whole.
func TestTooLarge(t *testing.T) {
	b := newBuilder(codec.LZ4, 1)
	f := frame{raw: make([]byte, 300_000), cuts: nil}
	for range 100_000 {
		f.spans = append(f.spans, span{1, 1}, span{1, 0})
	}
	for range 50 {
		b.add(f, nil, 100)
	}
	if got := b.end(); got != nil || b.size != 50*300_000 {
		t.Errorf("an index of %d bytes of %d rows", len(got), b.spanCount)
	}
}

// TestManyLiterals: of more literals than an index has room for, the last are left to the frames.
func TestManyLiterals(t *testing.T) {
	b := newBuilder(codec.LZ4, 1)
	const literals = 48 << 10
	raw, r := make([]byte, literals+3*chunkMost), rand.New(rand.NewPCG(1, 1))
	for range 800 {
		for i := 0; i < literals; i += 8 {
			binary.LittleEndian.PutUint64(raw[i:], r.Uint64())
		}
		b.add(frame{raw: raw, spans: []span{{literals, 3 * chunkMost}}, cuts: []int{chunkMost, chunkMost, chunkMost}}, make([]Sum, 3), len(raw)+frameSlack)
	}
	end, stored := b.end(), b.stored
	f, err := parseFooter(end, stored+int64(len(end)))
	if err != nil {
		t.Fatal(err)
	}
	x, err := parse(end[int64(len(end))-footerSize-f.table:len(end)-footerSize], f)
	if err != nil {
		t.Fatal(err)
	}
	inline := 0
	for _, l := range x.Blocks {
		if l.Stored > 0 {
			inline++
		}
	}
	if inline == 0 || inline == len(x.Blocks) || x.Payload < inlineMost-(1<<20) || x.Payload > payloadMost {
		t.Errorf("%d of %d blocks are in an index of %d bytes", inline, len(x.Blocks), x.Payload)
	}
}

// TestSmallTable: of a few large files the table is smaller than any window of zstd.
func TestSmallTable(t *testing.T) {
	raw := make([]byte, 100<<10)
	for r, i := rand.New(rand.NewPCG(1, 1)), 0; i < len(raw); i++ {
		raw[i] = byte(r.Uint32())
	}
	for _, c := range codecsWithFrames {
		if !bytes.Equal(rebuild(t, encode(t, c, raw)), raw) {
			t.Errorf("%v: by the index it is another tar", c)
		}
	}
}
