package codec

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// all are the codecs that change bytes, and the one that does not.
var all = []Codec{LZ4, Zstd, None}

// sample returns n bytes that compress by half or so, the same for equal n:
// words, zeros and noise by turns, as in a tar of programs.
func sample(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	words := bytes.Fields([]byte("layer tar config manifest usr lib share include \x7fELF .text .rodata .symtab root 0000644"))
	b := make([]byte, 0, n+1024)
	for len(b) < n {
		switch r.IntN(4) {
		case 0:
			b = append(b, make([]byte, r.IntN(1024))...)
		case 1:
			for range r.IntN(100) {
				b = append(b, byte(r.Uint32()))
			}
		default:
			for range r.IntN(100) {
				b = append(b, words[r.IntN(len(words))]...)
				b = append(b, ' ')
			}
		}
	}
	return b[:n]
}

// readAll reads r to its end and closes it, and fails where that hangs.
func readAll(t testing.TB, r io.ReadCloser) ([]byte, error) {
	t.Helper()
	hung := time.AfterFunc(time.Minute, func() { panic("the stream hangs") })
	defer hung.Stop()
	b, err := io.ReadAll(r)
	if err := r.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	return b, err
}

func encode(t testing.TB, c Codec, b []byte) []byte {
	t.Helper()
	encoded, err := readAll(t, c.Encode(bytes.NewReader(b)))
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	return encoded
}

func each(t *testing.T, codecs []Codec, f func(*testing.T, Codec)) {
	for _, c := range codecs {
		t.Run(c.Name(), func(t *testing.T) {
			f(t, c)
			if err := goleak.Find(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestByName(t *testing.T) {
	for _, want := range []struct {
		name      string
		codec     Codec
		extension string
	}{{"lz4", LZ4, ".lz4"}, {"zstd", Zstd, ".zst"}, {"none", None, ""}} {
		c, err := ByName(want.name)
		if err != nil || c != want.codec || c.Name() != want.name || c.String() != want.name || c.Extension() != want.extension {
			t.Errorf("ByName(%q) = %v, %v with extension %q", want.name, c, err, c.Extension())
		}
	}
	for _, name := range []string{"", "LZ4", "zst", "gzip"} {
		if c, err := ByName(name); err == nil {
			t.Errorf("ByName(%q) = %v, want an error", name, c)
		}
	}
	var zero Codec
	if zero != None {
		t.Errorf("the zero Codec is %v", zero)
	}
}

func TestRoundTrip(t *testing.T) {
	sizes := []int{0, 1, 2, 1000, blockSize - 1, blockSize, blockSize + 1, 12*blockSize + 77}
	each(t, all, func(t *testing.T, c Codec) {
		for _, n := range sizes {
			want := sample(n)
			got, err := readAll(t, c.Decode(bytes.NewReader(encode(t, c, want))))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes became %d: %v", n, len(got), err)
			}
		}
	})
}

func TestOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	TestRoundTrip(t)
}

// chunks hands out b in pieces of drawn sizes, sometimes none, and the end
// sometimes together with the last bytes.
type chunks struct {
	b     []byte
	r     *rand.Rand
	most  int
	eager bool
}

func (c *chunks) Read(p []byte) (int, error) {
	n := copy(p[:min(len(p), c.r.IntN(c.most+1))], c.b)
	if c.b = c.b[n:]; len(c.b) == 0 && (n == 0 || c.eager) {
		return n, io.EOF
	}
	return n, nil
}

func TestRoundTripProperty(t *testing.T) {
	piece := rapid.Custom(func(t *rapid.T) []byte {
		return bytes.Repeat(
			rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "pattern"),
			rapid.SampledFrom([]int{1, 1, 2, 70, 4000}).Draw(t, "times"))
	})
	each(t, all, func(t *testing.T, c Codec) {
		rapid.Check(t, func(r *rapid.T) {
			want := bytes.Join(rapid.SliceOfN(piece, 0, 12).Draw(r, "pieces"), nil)
			source := func(b []byte) io.Reader {
				return &chunks{
					b: b, r: rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0)),
					most:  rapid.SampledFrom([]int{1, 7, 4096, 3 << 20}).Draw(r, "most"),
					eager: rapid.Bool().Draw(r, "eager"),
				}
			}
			encoded, err := readAll(t, c.Encode(source(want)))
			if err != nil {
				r.Fatalf("encode: %v", err)
			}
			if !bytes.Equal(encoded, encode(t, c, want)) {
				r.Fatalf("the encoded bytes depend on how the source hands out its own")
			}
			got, err := readAll(t, c.Decode(source(encoded)))
			if err != nil || !bytes.Equal(got, want) {
				r.Fatalf("%d bytes became %d: %v", len(want), len(got), err)
			}
		})
	})
}

var errSource = errors.New("the engine went away")

// TestSourceFails proves that an error of the source arrives as it is, and that
// what came before it is not a whole stream. io.ErrUnexpectedEOF is what a cut
// HTTP body gives; libraries like to take it for an end.
func TestSourceFails(t *testing.T) {
	each(t, all, func(t *testing.T, c Codec) {
		for _, n := range []int{0, 1, 1000, blockSize, 3*blockSize + 5} {
			b := sample(n)
			whole := encode(t, c, b)
			for _, failure := range []error{errSource, io.ErrUnexpectedEOF} {
				src := io.MultiReader(bytes.NewReader(b), iotest.ErrReader(failure))
				encoded, err := readAll(t, c.Encode(src))
				if err != failure {
					t.Errorf("encode after %d bytes: %v, want %v", n, err, failure)
				}
				if c == None {
					continue
				}
				if _, err := readAll(t, c.Decode(bytes.NewReader(encoded))); !errors.Is(err, ErrDamaged) {
					t.Errorf("after a source that failed after %d bytes, decoding gave %v", n, err)
				}
				for _, cut := range []int{0, 1, len(whole) / 2, len(whole) - 1, len(whole)} {
					src := io.MultiReader(bytes.NewReader(whole[:cut]), iotest.ErrReader(failure))
					if _, err := readAll(t, c.Decode(src)); err != failure {
						t.Errorf("decode after %d of %d bytes: %v, want %v", cut, len(whole), err, failure)
					}
				}
			}
		}
	})
}

// TestSourceFailsWithBytes: bytes and the error in one Read.
func TestSourceFailsWithBytes(t *testing.T) {
	each(t, all, func(t *testing.T, c Codec) {
		for _, open := range []func(io.Reader) io.ReadCloser{c.Encode, c.Decode} {
			src := iotest.DataErrReader(io.MultiReader(bytes.NewReader(encode(t, c, sample(9999))), iotest.ErrReader(errSource)))
			if _, err := readAll(t, open(src)); err != errSource {
				t.Errorf("got %v, want %v", err, errSource)
			}
		}
	})
}

// endless gives the same bytes again and again, and counts.
type endless struct {
	b    []byte
	read int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.b[e.read%len(e.b):])
	e.read += n
	return n, nil
}

func TestCloseEarly(t *testing.T) {
	whole := map[Codec][]byte{}
	for _, c := range all {
		whole[c] = encode(t, c, sample(12*blockSize))
	}
	each(t, all, func(t *testing.T, c Codec) {
		for _, n := range []int{0, 1, blockSize / 2, 4 * blockSize} {
			src := &endless{b: sample(blockSize + 1)}
			for what, open := range map[string]func() io.ReadCloser{
				"encode": func() io.ReadCloser { return c.Encode(src) },
				"decode": func() io.ReadCloser { return c.Decode(bytes.NewReader(whole[c])) },
			} {
				r := open()
				if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				for range 2 {
					if err := r.Close(); err != nil {
						t.Errorf("%s: Close: %v", what, err)
					}
				}
				if n, err := r.Read(make([]byte, 10)); n != 0 || err == nil || err == io.EOF || errors.Is(err, ErrDamaged) {
					t.Errorf("%s: Read after Close gave %d bytes, %v", what, n, err)
				}
				if err := goleak.Find(); err != nil {
					t.Errorf("%s closed after %d bytes: %v", what, n, err)
				}
			}
			before := src.read
			if time.Sleep(time.Millisecond); src.read != before {
				t.Error("the source is read after Close")
			}
		}
	})
}

// TestCloseWhileReading is what net/http does with a request's body when the
// request is cancelled. The race detector looks on.
func TestCloseWhileReading(t *testing.T) {
	each(t, []Codec{LZ4, Zstd}, func(t *testing.T, c Codec) {
		whole := encode(t, c, sample(3*blockSize))
		for i := range 20 {
			src, feed := io.Pipe()
			go func() {
				// The beginning again and again, then silence until it is closed.
				_, _ = feed.Write(whole[:len(whole)*i/20])
			}()
			r := []func(io.Reader) io.ReadCloser{c.Encode, c.Decode}[i%2](src)
			ended := make(chan error)
			go func() {
				_, err := io.Copy(io.Discard, r)
				ended <- err
			}()
			time.Sleep(time.Duration(i) * 100 * time.Microsecond)
			closed := make(chan struct{})
			go func() { r.Close(); close(closed) }()
			time.Sleep(time.Millisecond)
			src.Close() // Close waits for the Read in progress
			<-closed
			if err := <-ended; err == nil {
				t.Error("a stream closed in the middle ended well")
			}
		}
	})
}

// TestLeftAlone: after its end the source is the caller's, closed or not.
func TestLeftAlone(t *testing.T) {
	each(t, all, func(t *testing.T, c Codec) {
		whole := encode(t, c, sample(3*blockSize))
		for _, open := range []func(io.Reader) io.ReadCloser{c.Encode, c.Decode} {
			r := open(bytes.NewReader(whole))
			if _, err := io.Copy(io.Discard, r); err != nil {
				t.Fatal(err)
			}
			if err := goleak.Find(); err != nil {
				t.Errorf("not closed, but at its end: %v", err)
			}
			for range 2 {
				if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("Read at the end gave %d bytes, %v", n, err)
				}
			}
		}
	})
}

func TestNoProgress(t *testing.T) {
	idle := readerFunc(func([]byte) (int, error) { return 0, nil })
	if _, err := readAll(t, LZ4.Encode(idle)); err != io.ErrNoProgress {
		t.Errorf("got %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
