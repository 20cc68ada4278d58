package chunk

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"go.uber.org/goleak"

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
func rebuild(t testing.TB, b []byte) []byte {
	t.Helper()
	x, err := Read(t.Context(), file(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := x.ReadBlocks(t.Context(), file(b))
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
func tree(t testing.TB, files int, age time.Time, change func(i int, b []byte) []byte) []byte {
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
