package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"go.uber.org/goleak"
)

// inFrames returns b as frames of at most size bytes each.
func inFrames(t testing.TB, c Codec, b []byte, size int) []byte {
	t.Helper()
	var out []byte
	for piece := range slices.Chunk(b, size) {
		out = append(out, encode(t, c, piece)...)
	}
	return out
}

// several has streams decoded by n goroutines, however many processors there are.
func several(t testing.TB, n int) {
	before := runtime.GOMAXPROCS(n)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// TestWorkers: a core is left to who reads, which computes a digest most often.
func TestWorkers(t *testing.T) {
	for cores, want := range map[int]int{1: 1, 2: 1, 3: 2, 4: 3, 64: 3} {
		before := runtime.GOMAXPROCS(cores)
		r := Zstd.Decode(bytes.NewReader(nil))
		runtime.GOMAXPROCS(before)
		if got := r.(*sequence).workers; got != want {
			t.Errorf("%d cores: decoded by %d goroutines, want %d", cores, got, want)
		}
		r.Close()
	}
}

// formats are those of the codecs, in batches of some n stored bytes.
func formatOf(c Codec, n int) frameFormat {
	f := map[Codec]frameFormat{LZ4: lz4Frames, Zstd: zstdFrames(zstdMostWindow)}[c]
	f.batch = n
	return f
}

func (f frameFormat) reader(src io.Reader) *sequence {
	return newSequence(min(runtime.GOMAXPROCS(0), decodeWorkers), func(q *sequence) error { return q.decode(src, f) })
}

// oneByOne is what decodes in one goroutine, and all is compared with.
func (f frameFormat) oneByOne(src io.Reader) io.ReadCloser {
	return newStream(3, func(s *stream) error {
		r, err := f.open()
		if err != nil {
			return err
		}
		defer r.Close()
		return s.unpack(r, &source{reader: src}, f.codec)
	})
}

// compare decodes b in batches and in one goroutine, and fails where that is not the same.
func compare(t testing.TB, f frameFormat, open func() io.Reader, what string) {
	t.Helper()
	const most = 16 << 20
	read := func(r io.ReadCloser) ([]byte, error) {
		return readAll(t, struct {
			io.Reader
			io.Closer
		}{io.LimitReader(r, most), r})
	}
	want, wantErr := read(f.oneByOne(open()))
	got, gotErr := read(f.reader(open()))
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, and %d one by one", what, len(got), len(want))
	}
	if (gotErr == nil) != (wantErr == nil) || gotErr != nil && gotErr.Error() != wantErr.Error() {
		t.Errorf("%s: %v, and %v one by one", what, gotErr, wantErr)
	}
}

// TestManyFrames: frames of any kind come out in their order, whatever is between.
func TestManyFrames(t *testing.T) {
	several(t, 8)
	each(t, []Codec{LZ4, Zstd}, func(t *testing.T, c Codec) {
		r := rand.New(rand.NewPCG(2, 2))
		noise := make([]byte, blockSize)
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		programs := sample(9 << 20)
		var stored, want []byte
		add := func(b []byte) {
			stored = append(stored, encode(t, c, b)...)
			want = append(want, b...)
		}
		for i := range 60 {
			n := r.IntN(256 << 10)
			at := r.IntN(len(programs) - n)
			add(programs[at : at+n])
			switch i % 10 {
			case 3:
				add(nil)
			case 5:
				stored = append(stored, skippable(0x184D2A50+uint32(i/10), r.IntN(9000))...)
			case 7:
				add(noise)
			}
		}
		for _, end := range [][]byte{nil, skippable(0x184D2A5D, 9000), skippable(0x184D2A5D, 3<<20)} {
			got, err := readAll(t, c.Decode(onlyRead(append(stored[:len(stored):len(stored)], end...))))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("of %d bytes came %d: %v", len(want), len(got), err)
			}
		}
		// What does not stand apart, in the middle: the rest is there all the same.
		theirs := command(t, programs, map[Codec]string{LZ4: "lz4 -c -B7 -BD", Zstd: "zstd -c --long=27"}[c])
		got, err := readAll(t, c.Decode(onlyRead(slices.Concat(stored, theirs, stored))))
		if err != nil || !bytes.Equal(got, slices.Concat(want, programs, want)) {
			t.Errorf("with a large frame in the middle came %d: %v", len(got), err)
		}
	})
}

func onlyRead(b []byte) io.Reader { return struct{ io.Reader }{bytes.NewReader(b)} }

// TestAtOnce: batches are decoded at the same time. The first of four decodes nothing
// before the last one is open.
func TestAtOnce(t *testing.T) {
	several(t, decodeWorkers)
	each(t, []Codec{LZ4, Zstd}, func(t *testing.T, c Codec) {
		want := sample(decodeWorkers * 1000)
		stored := append(inFrames(t, c, want, 1000), encode(t, c, nil)...)
		synctest.Test(t, func(t *testing.T) { // it fails where all wait
			f := formatOf(c, 1)
			arrived, all := make(chan struct{}, decodeWorkers), make(chan struct{})
			open := f.open
			f.open = func() (frameReader, error) {
				r, err := open()
				return barrier{r, arrived, all}, err
			}
			go func() {
				for range decodeWorkers {
					<-arrived
				}
				close(all)
			}()
			if got, err := io.ReadAll(f.reader(bytes.NewReader(stored))); err != nil || !bytes.Equal(got, want) {
				t.Errorf("of %d bytes came %d: %v", len(want), len(got), err)
			}
		})
	})
}

// barrier is a reader that waits in each Read until all have come to one.
type barrier struct {
	frameReader
	arrived chan<- struct{}
	all     <-chan struct{}
}

func (b barrier) Read(p []byte) (int, error) {
	select {
	case b.arrived <- struct{}{}:
	default:
	}
	<-b.all
	return b.frameReader.Read(p)
}

// TestCutBetweenFrames: nothing in such a stream says that more should come. Its size and
// digest do, for who knows them; see Decode.
func TestCutBetweenFrames(t *testing.T) {
	several(t, 2)
	each(t, []Codec{LZ4, Zstd}, func(t *testing.T, c Codec) {
		const size = 100 << 10
		whole := sample(20 * size)
		var stored []byte
		for i := 0; i < len(whole); i += size {
			stored = append(stored, encode(t, c, whole[i:i+size])...)
			got, err := readAll(t, c.Decode(bytes.NewReader(stored)))
			if err != nil || !bytes.Equal(got, whole[:i+size]) {
				t.Errorf("cut behind %d bytes came %d: %v", i+size, len(got), err)
			}
		}
	})
}

// hostile are streams of several frames of all that is in small, and damaged ones.
func hostile(t testing.TB, c Codec) [][]byte {
	all := small(t, c)
	whole := slices.Concat(append(all, skippable(0x184D2A5D, 20), inFrames(t, c, sample(3000), 700))...)
	return [][]byte{
		whole,
		append(whole[:len(whole):len(whole)], "garbage"...),
		append(whole[:len(whole):len(whole)], skippable(0x184D2A5D, 1<<20)[:1<<19]...),
		append([]byte{}, skippable(0x184D2A50, 3)...),
		append(encode(t, c, nil), encode(t, c, nil)...),
	}
}

// TestSameVerdict: in batches, of one frame each and of many, there come the same bytes
// and the same error, wherever a stream is cut or wrong, and whatever its source says.
func TestSameVerdict(t *testing.T) {
	several(t, 3)
	each(t, []Codec{LZ4, Zstd}, func(t *testing.T, c Codec) {
		for i, whole := range hostile(t, c) {
			step := max(1, len(whole)/120)
			for at := 0; at <= len(whole); at += step {
				f := formatOf(c, 1+at%2*1500)
				cut := whole[:at]
				compare(t, f, func() io.Reader { return bytes.NewReader(cut) }, "cut")
				compare(t, f, func() io.Reader {
					return iotest.DataErrReader(io.MultiReader(bytes.NewReader(cut), iotest.ErrReader(io.ErrUnexpectedEOF)))
				}, "the source fails")
				if at < len(whole) {
					wrong := bytes.Clone(whole)
					wrong[at] ^= 1 << (at % 8)
					compare(t, f, func() io.Reader { return bytes.NewReader(wrong) }, "a bit is wrong")
				}
				if t.Failed() {
					t.Fatalf("stream %d of %d bytes, at %d", i, len(whole), at)
				}
			}
		}
	})
}

// TestNothingLost: what decoded before an error is handed out, in batches as they are,
// and the goroutines end though nobody closes the reader.
func TestNothingLost(t *testing.T) {
	several(t, 4)
	each(t, []Codec{LZ4, Zstd}, func(t *testing.T, c Codec) {
		want := sample(4 << 20)
		stored := inFrames(t, c, want, 128<<10)
		for what, tail := range map[string]struct {
			src  io.Reader
			want error
		}{
			"garbage":                  {strings.NewReader("garbage"), ErrDamaged},
			"a frame that is cut":      {bytes.NewReader(stored[:100]), io.ErrUnexpectedEOF},
			"a failure":                {iotest.ErrReader(errSource), errSource},
			"frames, but wrong inside": {io.LimitReader(&endless{b: wrongInside(t, c)}, 64<<20), ErrDamaged},
		} {
			r := c.Decode(io.MultiReader(bytes.NewReader(stored), tail.src))
			got, err := io.ReadAll(r)
			if !errors.Is(err, tail.want) || errors.Is(err, errSource) && err != errSource || !bytes.Equal(got, want) {
				t.Errorf("%s: of %d bytes came %d: %v", what, len(want), len(got), err)
			}
			if err := goleak.Find(); err != nil {
				t.Errorf("%s: not closed, but after an error: %v", what, err)
			}
			if n, again := r.Read(make([]byte, 1)); n != 0 || again != err {
				t.Errorf("%s: then %d bytes, %v", what, n, again)
			}
			r.Close()
		}
	})
}

// wrongInside is a frame that looks well from outside: a packed block is not.
func wrongInside(t testing.TB, c Codec) []byte {
	t.Helper()
	block := bytes.Repeat([]byte{0xff}, 1000)
	if c == LZ4 {
		b := binary.LittleEndian.AppendUint32([]byte(lz4Header), uint32(len(block)))
		return append(append(b, block...), lz4End...)
	}
	b := append(binary.LittleEndian.AppendUint32(nil, 0xFD2FB528), 0, 0x40) // a window of 256 KiB
	n := len(block)<<3 | 2<<1 | 1
	return append(append(b, byte(n), byte(n>>8), byte(n>>16)), block...)
}

// TestCloseBetweenFrames: batches that nobody has read, or decoded, are let go.
func TestCloseBetweenFrames(t *testing.T) {
	several(t, 4)
	each(t, []Codec{LZ4, Zstd}, func(t *testing.T, c Codec) {
		src := &endless{b: inFrames(t, c, sample(blockSize), 100<<10)}
		for _, n := range []int64{0, 1, 300 << 10, 5 << 20} {
			r := c.Decode(src)
			if _, err := io.CopyN(io.Discard, r, n); err != nil {
				t.Fatal(err)
			}
			r.Close()
			if err := goleak.Find(); err != nil {
				t.Errorf("closed after %d bytes: %v", n, err)
			}
			if k, err := r.Read(make([]byte, 10)); k != 0 || err != errClosed {
				t.Errorf("Read after Close gave %d bytes, %v", k, err)
			}
			src.read -= src.read % len(src.b)
		}
	})
}

// TestBombsInFrames: little that becomes much, in frames that are decoded apart: as many
// zeros as they can hold, and as much memory as they can ask for.
func TestBombsInFrames(t *testing.T) {
	several(t, 64)
	each(t, []Codec{LZ4, Zstd}, func(t *testing.T, c Codec) {
		bomb := encode(t, c, make([]byte, blockSize))
		if c == Zstd {
			bomb = append(binary.LittleEndian.AppendUint32(nil, 0xFD2FB528), 0, 0x50) // a window of 1 MiB
			for i := range mostApartBlocks {
				n := 128<<10<<3 | 1<<1 | i/(mostApartBlocks-1)
				bomb = append(bomb, byte(n), byte(n>>8), byte(n>>16), 0)
			}
		}
		checkHeld(t, "frames of zeros", held(t, c.Decode, &endless{b: bomb}, 64<<20), 32<<20)
		alone := func(src io.Reader) io.ReadCloser {
			return c.DecodeIn(src, func(int64) (func(), error) { return nil, errors.New("not to be asked") })
		}
		checkHeld(t, "one by one", held(t, alone, &endless{b: bomb}, 64<<20), 9<<20)
		noise := make([]byte, blockSize)
		for i := range noise {
			noise[i] = byte(rand.Uint32())
		}
		checkHeld(t, "frames of noise", held(t, c.Decode, &endless{b: encode(t, c, noise)}, 64<<20), 32<<20)
	})
}

// TestExtent: a frame's extent is told from what there is of it, and never beyond its end.
func TestExtent(t *testing.T) {
	lines := map[Codec][]string{
		LZ4:  {"lz4 -c -B6", "lz4 -c -B6 -BX", "lz4 -c -B5 --content-size", "lz4 -c -B5 -BX --no-frame-crc"},
		Zstd: {"zstd -1c", "zstd -1c --no-check", "zstd -1c --stream-size=204800"},
	}
	each(t, []Codec{LZ4, Zstd}, func(t *testing.T, c Codec) {
		extent := formatOf(c, 1).extent
		streams := append(small(t, c), skippable(0x184D2A50, 0), skippable(0x184D2A5F, 70000), encode(t, c, sample(blockSize)))
		if c == LZ4 {
			streams = slices.Delete(streams, 3, 4) // several blocks
		}
		for _, line := range lines[c] {
			streams = append(streams, command(t, sample(200<<10), line))
		}
		for i, b := range streams {
			for have, reads := 0, 0; ; reads++ {
				n := extent(b[:have])
				if n <= have {
					if n != len(b) {
						t.Errorf("stream %d is %d bytes, of %d", i, n, len(b))
					}
					break
				}
				if n > len(b) || reads > 100 {
					t.Errorf("stream %d of %d bytes: %d are wanted, with %d there", i, len(b), n, have)
					break
				}
				have = n
			}
		}
		if n := extent(append(encode(t, c, sample(100)), "garbage"...)); n != len(encode(t, c, sample(100))) {
			t.Errorf("what follows a frame makes it %d bytes", n)
		}
		for what, b := range map[string][]byte{
			"garbage":        []byte("garbage, whatever is here"),
			"dependent":      command(t, sample(200<<10), "lz4 -c -B4 -BD"),
			"several blocks": command(t, sample(200<<10), "lz4 -c -B4"),
			"large blocks":   command(t, sample(2<<20), "lz4 -c -B7"),
			"a large window": command(t, sample(2<<20), "zstd -c --no-check"),
			"the other's":    bytes.Repeat(encode(t, LZ4+Zstd-c, sample(100)), 9),
		} {
			if n := extent(b); n != 0 {
				t.Errorf("%s is %d bytes", what, n)
			}
		}
	})
}

func FuzzFramesLZ4(f *testing.F)  { fuzzFrames(f, LZ4) }
func FuzzFramesZstd(f *testing.F) { fuzzFrames(f, Zstd) }

// fuzzFrames: any bytes decode in batches as they do in one goroutine.
func fuzzFrames(f *testing.F, c Codec) {
	several(f, 3)
	for _, whole := range hostile(f, c) {
		whole = whole[:min(len(whole), 64<<10)]
		f.Add(whole, uint16(1))
		f.Add(whole[:len(whole)*2/3], uint16(700))
	}
	f.Add(append(wrongInside(f, c), encode(f, c, nil)...), uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, batch uint16) {
		compare(t, formatOf(c, int(batch)), func() io.Reader { return bytes.NewReader(b) }, "fuzzed")
	})
}
