package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// small are short streams with much structure: several blocks, checksums, sizes.
func small(t testing.TB, c Codec) [][]byte {
	t.Helper()
	b := sample(700)
	streams := [][]byte{encode(t, c, nil), encode(t, c, b[:1]), encode(t, c, b)}
	var out bytes.Buffer
	write := func(w io.WriteCloser, b []byte) {
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		streams = append(streams, bytes.Clone(out.Bytes()))
		out.Reset()
	}
	if c == LZ4 {
		w := lz4.NewWriter(&out)
		err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.BlockChecksumOption(true), lz4.ChecksumOption(true), lz4.SizeOption(200000))
		if err != nil {
			t.Fatal(err)
		}
		write(w, bytes.Repeat(b[:10], 20000)) // four blocks
		return streams
	}
	w, err := zstd.NewWriter(&out, zstd.WithWindowSize(zstd.MinWindowSize), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	write(w, b) // three blocks
	return streams
}

func TestCutAnywhere(t *testing.T) {
	each(t, []Codec{LZ4, Zstd}, func(t *testing.T, c Codec) {
		for i, whole := range small(t, c) {
			for cut := range whole {
				_, err := readAll(t, c.Decode(bytes.NewReader(whole[:cut])))
				if !errors.Is(err, ErrDamaged) || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("stream %d, %d of %d bytes: %v", i, cut, len(whole), err)
				}
			}
		}
	})
}

// TestFlips: whatever bit is wrong, decoding ends, and says so or gives at most
// what blocks of that size can hold.
func TestFlips(t *testing.T) {
	each(t, []Codec{LZ4, Zstd}, func(t *testing.T, c Codec) {
		for i, whole := range small(t, c) {
			for bit := 0; bit < len(whole)*8; bit += 1 + i/3*4 { // every one where decoding is quick
				whole[bit/8] ^= 1 << (bit % 8)
				b, err := readAll(t, c.Decode(bytes.NewReader(whole)))
				whole[bit/8] ^= 1 << (bit % 8)
				if err != nil && !errors.Is(err, ErrDamaged) {
					t.Errorf("stream %d, bit %d: %v", i, bit, err)
				}
				if len(b) > 32<<20 {
					t.Errorf("stream %d, bit %d: %d bytes", i, bit, len(b))
				}
			}
		}
	})
}

// held returns how many bytes of memory a reader holds at most while n bytes are
// read from it, with pauses in which its goroutines do all they may.
func held(t *testing.T, open func(io.Reader) io.ReadCloser, src io.Reader, n int64) int64 {
	t.Helper()
	live := func() int64 {
		var m runtime.MemStats
		time.Sleep(50 * time.Millisecond)
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	runtime.GC() // empties the pools, together with the next
	before, most := live(), int64(0)
	r := open(src)
	for range 8 {
		if _, err := io.CopyN(io.Discard, r, n/8); err != nil {
			t.Fatal(err)
		}
		most = max(most, live()-before)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return most
}

func checkHeld(t *testing.T, what string, got, want int64) {
	t.Helper()
	t.Logf("%s: %.1f MiB", what, float64(got)/(1<<20))
	if got > want {
		t.Errorf("%s held %d bytes, more than %d", what, got, want)
	}
}

// TestEncodeMemory: the memory of a stream does not grow with the processors. How
// much of what it may hold is there at a time depends on who runs first (up to 27
// MiB of zstd seen); without its bound 64 processors would hold five times the limit.
func TestEncodeMemory(t *testing.T) {
	each(t, []Codec{LZ4, Zstd}, func(t *testing.T, c Codec) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
		for _, processors := range []int{2, 64} {
			runtime.GOMAXPROCS(processors)
			checkHeld(t, "encode", held(t, c.Encode, &endless{b: sample(blockSize + 1)}, 8<<20), 40<<20)
		}
	})
}

// TestBomb: little that becomes much.
func TestBomb(t *testing.T) {
	each(t, []Codec{LZ4, Zstd}, func(t *testing.T, c Codec) {
		theirs := map[Codec]string{LZ4: "lz4 -9c -B7 -BD", Zstd: "zstd -c --long=27"}[c]
		bomb := command(t, make([]byte, 160<<20), theirs)
		limit := map[Codec]int64{LZ4: 17 << 20, Zstd: zstdMostWindow + 8<<20}[c]
		checkHeld(t, "decode", held(t, c.Decode, bytes.NewReader(bomb), 160<<20), limit)
		ours := encode(t, c, make([]byte, 64<<20))
		checkHeld(t, "decode ours", held(t, c.Decode, bytes.NewReader(ours), 64<<20), 16<<20)
	})
}

// TestHostileWindow: a frame that asks for more memory than there should be is
// refused before the memory is there.
func TestHostileWindow(t *testing.T) {
	frame := func(log int, single bool) []byte {
		b := binary.LittleEndian.AppendUint32(nil, 0xFD2FB528)
		if single { // the content's size is the window's
			b = append(b, 0b1110_0000)
			b = binary.LittleEndian.AppendUint64(b, 1<<log)
		} else {
			b = append(b, 0, byte(log-10)<<3)
		}
		return append(b, 1, 0, 0) // one empty last block
	}
	if _, err := readAll(t, Zstd.Decode(bytes.NewReader(frame(27, false)))); err != nil {
		t.Errorf("a window of 128 MiB: %v", err)
	}
	for _, log := range []int{28, 30, 37, 41} {
		for _, single := range []bool{false, true} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := readAll(t, Zstd.Decode(bytes.NewReader(frame(log, single))))
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("a window of 1<<%d: %v", log, err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
				t.Errorf("a window of 1<<%d took %d bytes", log, n)
			}
		}
	}
}

// TestHostileBlock: a block that says it is larger than blocks may be.
func TestHostileBlock(t *testing.T) {
	for _, size := range []uint32{4<<20 + 1, 1<<31 - 1, 1<<31 | (4<<20 + 1), 1<<32 - 1} {
		b := binary.LittleEndian.AppendUint32([]byte(lz4Header), size)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := readAll(t, LZ4.Decode(io.MultiReader(bytes.NewReader(b), io.LimitReader(&endless{b: sample(1000)}, 64<<20))))
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("a block of %#x: %v", size, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
			t.Errorf("a block of %#x took %d bytes", size, n)
		}
	}
}

func FuzzDecodeLZ4(f *testing.F)  { fuzzDecode(f, LZ4) }
func FuzzDecodeZstd(f *testing.F) { fuzzDecode(f, Zstd) }

// fuzzDecode: no bytes make decoding panic, hang, or depend on how they come.
func fuzzDecode(f *testing.F, c Codec) {
	for _, whole := range small(f, c) {
		f.Add(whole)
		f.Add(whole[:len(whole)/2])
		f.Add(append(whole, whole...))
		f.Add(append(skippable(0x184D2A50, 5), whole...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const most = 32 << 20
		decode := func(src io.Reader) ([]byte, error) {
			r := c.Decode(src)
			defer r.Close()
			return io.ReadAll(io.LimitReader(r, most))
		}
		whole, err := decode(bytes.NewReader(b))
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("an error of another kind: %v", err)
		}
		again, err2 := decode(iotest.HalfReader(bytes.NewReader(b)))
		if !bytes.Equal(whole, again) || (err == nil) != (err2 == nil) {
			t.Fatalf("%d bytes, %v; in smaller pieces %d bytes, %v", len(whole), err, len(again), err2)
		}
		if got, err := readAll(t, c.Decode(bytes.NewReader(encode(t, c, b)))); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("there and back: %v", err)
		}
	})
}
