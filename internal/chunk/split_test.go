package chunk

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/enginetest"
)

// encodeAll encodes with small frames, and with an index in any case.
func encodeAll(t rapid.TB, c codec.Codec, src io.Reader, target int) []byte {
	t.Helper()
	e := newEncoder(c, src, target, 1)
	defer e.Close()
	b, err := io.ReadAll(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// proof proves all that is promised of an encoded tar.
func proof(t rapid.TB, c codec.Codec, b, raw []byte) *Index {
	t.Helper()
	d := c.Decode(bytes.NewReader(b))
	got, err := io.ReadAll(d)
	d.Close()
	if err != nil || !bytes.Equal(got, raw) {
		t.Fatalf("%v: the stream decodes to %d bytes of %d, %v", c, len(got), len(raw), err)
	}
	x, err := Read(context.Background(), file(b), int64(len(b)))
	if len(raw) == 0 && errors.Is(err, ErrNone) {
		return &Index{}
	}
	if err != nil {
		t.Fatalf("%v: %v", c, err)
	}
	if x.Size != int64(len(raw)) || x.Stored+x.Payload != int64(len(b)) || x.Codec != c {
		t.Fatalf("%v: the index is of %d bytes stored in %d and %d, they are %d and %d", x.Codec, x.Size, x.Stored, x.Payload, len(raw), len(b))
	}
	if !bytes.Equal(rebuild(t, b), raw) {
		t.Fatalf("%v: by the index it is another tar", c)
	}
	for i, f := range x.Frames {
		if f.Size > frameMost {
			t.Errorf("frame %d has %d bytes", i, f.Size)
		}
	}
	for i, k := range x.Chunks {
		f := x.Frames[x.FrameOf(k)]
		var sum Hash
		for r := range x.Content(k.At, int64(k.Size)) {
			if r.Tar < f.Tar || r.End() > f.Tar+int64(f.Size) {
				t.Fatalf("chunk %d has bytes at %d, its frame is from %d on", i, r.Tar, f.Tar)
			}
			sum.Write(raw[r.Tar:r.End()])
		}
		if sum.Sum() != k.Sum {
			t.Fatalf("chunk %d has another sum", i)
		}
	}
	return x
}

// anyTar draws a tar, or what begins as one.
func anyTar(t *rapid.T) []byte {
	var b bytes.Buffer
	for range rapid.IntRange(1, 2).Draw(t, "archives") {
		w := tar.NewWriter(&b)
		for i := range rapid.IntRange(0, 60).Draw(t, "entries") {
			size := rapid.OneOf(rapid.Just(0), rapid.IntRange(1, 3000), rapid.IntRange(runLeast-2, runLeast+2), rapid.IntRange(1, 300<<10)).Draw(t, "size")
			h := &tar.Header{
				Typeflag: rapid.SampledFrom([]byte{tar.TypeReg, tar.TypeReg, tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeFifo}).Draw(t, "type"),
				Name:     fmt.Sprint(i, "/f", string(bytes.Repeat([]byte("n"), rapid.IntRange(0, 200).Draw(t, "name")))),
				Mode:     0o644, ModTime: time.Unix(int64(rapid.IntRange(0, 1<<30).Draw(t, "time")), 0),
				Format: rapid.SampledFrom([]tar.Format{tar.FormatUnknown, tar.FormatPAX, tar.FormatGNU}).Draw(t, "format"),
			}
			if h.Typeflag == tar.TypeDir {
				h.Name += "/"
			}
			if h.Typeflag == tar.TypeReg {
				h.Size = int64(size)
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write(noise(uint64(i%7), int(h.Size)))
		}
		_ = w.Close()
	}
	raw := b.Bytes()
	switch rapid.IntRange(0, 3).Draw(t, "end") {
	case 1:
		raw = raw[:rapid.IntRange(0, len(raw)).Draw(t, "cut")]
	case 2:
		raw = append(raw, noise(99, rapid.IntRange(1, 200<<10).Draw(t, "garbage"))...)
	}
	return raw
}

// noise is bytes of which half are zeros, the same ones for the same seed.
func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32() & r.Uint32() & 0x1f)
	}
	return b
}

// TestAnyTar: whatever it is, it is the same tar again, and it is cut in the same chunks wherever frames end.
func TestAnyTar(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := anyTar(t)
		var cuts [][]Chunk
		for _, c := range codecsWithFrames {
			for _, target := range []int{64 << 10, 448 << 10} {
				cuts = append(cuts, proof(t, c, encodeAll(t, c, bytes.NewReader(raw), target), raw).Chunks)
			}
		}
		for _, k := range cuts[1:] {
			if !slices.Equal(k, cuts[0]) {
				t.Fatal("chunks depend on frames")
			}
		}
	})
}

// entryOf is a header with what follows it, as no writer of Go's makes it.
func entryOf(kind byte, size string, content []byte) []byte {
	h := make([]byte, blockSize)
	copy(h, "name")
	copy(h[100:], "0000644\x00")
	copy(h[sizeField:], size)
	copy(h[257:], "ustar\x0000")
	h[typeField] = kind
	copy(h[checksumField:], fmt.Sprintf("%06o\x00 ", checksum(h)))
	b := append(h, content...)
	return append(b, make([]byte, -len(b)&(blockSize-1))...)
}

func octal(n int) string { return fmt.Sprintf("%011o", n) }

// TestOddTars: the tars of the images that careless code breaks, and worse. Where content is found is told.
func TestOddTars(t *testing.T) {
	end := make([]byte, 2*blockSize)
	body := noise(5, 40<<10)
	pax := func(size int) []byte {
		return entryOf('x', octal(len(fmt.Sprintf("15 size=%06d\n", size))), fmt.Appendf(nil, "15 size=%06d\n", size))
	}
	big := append([]byte{0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0}, byte(len(body)>>8), byte(len(body)))
	again := entryOf('S', octal(len(body)), nil)
	again[extendedField] = 1
	copy(again[checksumField:], fmt.Sprintf("%06o\x00 ", checksum(again)))
	more, last := make([]byte, blockSize), make([]byte, blockSize)
	more[extendedAgain] = 1
	cases := map[string]struct {
		raw     []byte
		content int64 // bytes
	}{
		"empty":                     {nil, 0},
		"one byte":                  {[]byte("x"), 0},
		"no tar":                    {noise(1, 700<<10), 700 << 10},
		"less than a block":         {noise(1, 511), 0},
		"a file":                    {slices.Concat(entryOf('0', octal(len(body)), body), end), int64(len(body))},
		"garbage behind the end":    {slices.Concat(entryOf('0', octal(len(body)), body), end, noise(3, 1000)), int64(len(body)) + 1000},
		"zeros, then an archive":    {slices.Concat(end, end, entryOf('0', octal(len(body)), body), end), int64(len(body))},
		"size by pax":               {slices.Concat(pax(len(body)), entryOf('0', octal(0), body), end), int64(len(body))},
		"size by pax, of one file":  {slices.Concat(pax(len(body)), entryOf('0', octal(0), body), entryOf('0', octal(1), []byte("1")), end), int64(len(body)) + 1},
		"size by pax, of a link":    {slices.Concat(pax(len(body)), entryOf('1', octal(0), nil), entryOf('0', octal(1), []byte("1")), end), 1},
		"size by pax, long name":    {slices.Concat(pax(len(body)), entryOf('L', octal(4), []byte("name")), entryOf('0', octal(0), body), end), int64(len(body))},
		"size by pax, then none":    {slices.Concat(pax(len(body)), entryOf('x', octal(100<<10), noise(1, 100<<10)), entryOf('0', octal(3), []byte("abc")), end), 3},
		"size by pax, beyond all":   {slices.Concat(entryOf('x', octal(28), []byte("28 size=9223372036854775807\n")), entryOf('0', octal(3), []byte("abc")), end), 3},
		"base 256":                  {slices.Concat(entryOf('0', string(big), body), end), int64(len(body))},
		"size below zero":           {slices.Concat(entryOf('0', "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", nil), end), blockSize + int64(len(end))},
		"size of eight exabytes":    {slices.Concat(entryOf('0', "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", nil), end), blockSize + int64(len(end))},
		"more than there is":        {entryOf('0', octal(1<<30), body), int64(len(body))},
		"a link with a size":        {slices.Concat(entryOf('1', octal(1<<20), nil), entryOf('0', octal(3), []byte("abc")), end), 3},
		"a directory with a size":   {slices.Concat(entryOf('5', octal(1<<20), nil), entryOf('0', octal(3), []byte("abc")), end), 3},
		"old sparse file, extended": {slices.Concat(again, more, more, last, body, end), int64(len(body))},
		"pax, cut":                  {pax(3)[:blockSize+4], 0},
		"pax, huge":                 {slices.Concat(entryOf('x', octal(2<<20), noise(1, 2<<20)), entryOf('0', octal(3), []byte("abc")), end), 3},
		"wrong checksum":            {slices.Concat(bytes.Replace(entryOf('0', octal(3), []byte("abc")), []byte("name"), []byte("nome"), 1), end), 2*blockSize + int64(len(end))},
		"2,000 tiny files":          {tree(t, 2000, time.Unix(1, 0), func(int, []byte) []byte { return []byte("tiny") }), 2000 * 4},
		"zeros":                     {slices.Concat(entryOf('0', octal(3<<20), make([]byte, 3<<20)), end), 3 << 20},
	}
	content := int64(-1)
	for _, i := range append(enginetest.Trouble(), enginetest.TroubleImage{Name: "old sparse", Image: enginetest.OldSparse()}) {
		for j, l := range i.Layers() {
			if j < 3 {
				cases["image "+i.Name+strconv.Itoa(j)] = struct {
					raw     []byte
					content int64
				}{l.Bytes(), content}
			}
		}
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			for _, c := range codecsWithFrames {
				x := proof(t, c, encodeAll(t, c, bytes.NewReader(test.raw), 64<<10), test.raw)
				var n int64
				for _, k := range x.Chunks {
					n += int64(k.Size)
				}
				if test.content >= 0 && n != test.content {
					t.Errorf("%d bytes are taken for content, want %d", n, test.content)
				}
			}
			one := encodeAll(t, codec.LZ4, iotest.OneByteReader(bytes.NewReader(test.raw[:min(len(test.raw), 800<<10)])), 64<<10)
			all := encodeAll(t, codec.LZ4, iotest.DataErrReader(bytes.NewReader(test.raw[:min(len(test.raw), 800<<10)])), 64<<10)
			if !bytes.Equal(one, all) {
				t.Error("the bytes depend on how they come")
			}
		})
	}
}

// TestVersionOne: what other releases cut, these cut. Whoever changes this makes another version of the index,
// and no chunk of the old one is found again.
func TestVersionOne(t *testing.T) {
	raw := tarOfVersionOne()
	x := proof(t, codec.LZ4, encodeAll(t, codec.LZ4, bytes.NewReader(raw), 128<<10), raw)
	var got []int32
	for _, k := range x.Chunks {
		got = append(got, k.Size)
	}
	if !slices.Equal(got, cutsOfVersionOne) {
		t.Errorf("chunks of %d bytes", got)
	}
	if sum := hex.EncodeToString(x.Chunks[3].Sum[:]); sum != sumOfVersionOne {
		t.Errorf("a chunk's sum is %s", sum)
	}
}

// tarOfVersionOne has every reason for which a chunk ends.
func tarOfVersionOne() []byte {
	var raw []byte
	for i, size := range []int{100, 8191, 8192, 300 << 10, 1, 5000, 5000, 5000, 5000, 600 << 10, 70000} {
		content := noise(uint64(i), size)
		if i == 3 {
			clear(content)
		}
		raw = append(raw, entryOf('0', octal(size), content)...)
	}
	for i := range 900 {
		raw = append(raw, entryOf('0', octal(50), noise(uint64(i), 50))...)
	}
	raw = slices.Concat(raw, entryOf('0', octal(8192), noise(1, 8192)), entryOf('5', octal(0), nil))
	for range 400 { // the tar of a chunk is too long within a file
		raw = append(raw, entryOf('0', octal(700), make([]byte, 700))...)
	}
	return append(raw, make([]byte, 2*blockSize)...)
}

// TestWindows: a chunk ends behind the first window that says so once it is long enough, wherever the window began and in
// what pieces the tar came.
func TestWindows(t *testing.T) {
	for _, before := range []int{0, 20_000} {
		for _, at := range []int{chunkLeast - 3, chunkLeast, chunkLeast + 1, chunkLeast + 5, chunkLeast + 8, chunkLeast + 9, 50_000} {
			content := contentEnding(chunkLeast-20, chunkLeast, at)
			want := at
			if at <= chunkLeast { // too early
				want = len(content)
			}
			raw := slices.Concat(entryOf('0', octal(before), noise(1, before)), entryOf('0', octal(len(content)), content))
			for name, src := range map[string]io.Reader{
				"at once": bytes.NewReader(raw), "bytewise": iotest.OneByteReader(bytes.NewReader(raw)), "in pieces": inPieces{bytes.NewReader(raw)},
			} {
				x := proof(t, codec.LZ4, encodeAll(t, codec.LZ4, src, 128<<10), raw)
				if got := x.Chunks[min(before, 1)].Size; int(got) != want {
					t.Errorf("behind a file of %d bytes, a window that ends at %d, %s: a chunk of %d bytes, want %d", before, at, name, got, want)
				}
			}
		}
	}
}

// inPieces reads 13 bytes at a time: windows lie in one piece, in two, and where two meet.
type inPieces struct{ io.Reader }

func (r inPieces) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), 13)]) }

// contentEnding is 60,000 bytes of content with windows that may end a chunk at these places alone.
func contentEnding(at ...int) []byte {
	content := make([]byte, 60_000)
	ending := make([]byte, windowSize)
	for i := uint64(1); !ends(window(ending)); i++ {
		binary.LittleEndian.PutUint64(ending, i*0x0101010101010101+i<<32)
	}
	for _, end := range at {
		copy(content[end-windowSize:], ending)
	}
	return content
}

const sumOfVersionOne = "8079a27276382a723d6205df381405c0"

var cutsOfVersionOne = []int32{8291, 8192, 262144, 45056, 20001, 98469, 42301, 90940, 62014, 45723, 39877, 59202, 97066, 56042, 22766, 40160, 29840, 25600, 19400, 8192, 239212, 40788}

// FuzzSplit: any bytes are the same bytes again.
func FuzzSplit(f *testing.F) {
	f.Add([]byte{}, uint16(0))
	f.Add(entryOf('0', octal(300), noise(1, 300)), uint16(5000))
	f.Add(entryOf('x', octal(15), []byte("15 size=009000\n")), uint16(1))
	f.Add(entryOf('S', octal(1000), noise(1, 1000)), uint16(3))
	for _, l := range enginetest.OldSparse().Layers() {
		f.Add(l.Bytes(), uint16(2))
	}
	f.Fuzz(func(t *testing.T, raw []byte, repeat uint16) {
		if len(raw) > 0 { // chunks and frames need more than a fuzzer likes to write
			raw = bytes.Repeat(raw, min(1+int(repeat), 1+(2<<20)/len(raw)))
		}
		for _, c := range codecsWithFrames {
			proof(t, c, encodeAll(t, c, bytes.NewReader(raw), 64<<10), raw)
		}
	})
}
