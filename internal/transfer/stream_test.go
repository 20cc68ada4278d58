package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

var errBroken = errors.New("much broken")

// pattern is n bytes in which no piece looks like another.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(n)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// passing runs fill and a reader, and returns what became of both.
func passing(ctx context.Context, source io.Reader, read func(*stream) ([]byte, error)) (got []byte, readErr, fillErr error) {
	s := newStream(streamChunks)
	filled := make(chan error, 1)
	go func() { filled <- s.fill(ctx, source, func(int) {}) }()
	got, readErr = read(s)
	_ = s.Close()
	return got, readErr, <-filled
}

// TestStream passes contents of all sizes from readers of all manners to readers of all manners. The reader gets a
// beginning of the content and then the truth: io.EOF behind all of it, the source's error, or that of the context.
func TestStream(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	all := pattern(9 << 20)
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(
			rapid.IntRange(0, 3),
			rapid.IntRange(chunkSize-2, chunkSize+2),
			rapid.IntRange(streamChunks*chunkSize-2, streamChunks*chunkSize+2),
			rapid.IntRange(0, len(all)),
		).Draw(t, "size")
		content := all[:size]
		var source io.Reader = bytes.NewReader(content)
		end := rapid.SampledFrom([]error{nil, nil, errBroken, io.ErrUnexpectedEOF}).Draw(t, "end")
		if end != nil {
			source = io.MultiReader(source, iotest.ErrReader(end))
		}
		source = rapid.SampledFrom([]func(io.Reader) io.Reader{
			func(r io.Reader) io.Reader { return r }, iotest.DataErrReader, iotest.HalfReader,
			func(r io.Reader) io.Reader { return &idle{r: r} },
		}).Draw(t, "source")(source)
		buffer := rapid.SampledFrom([]int{7, 512, 32 << 10, chunkSize, 3 * chunkSize}).Draw(t, "buffer")
		most := rapid.SampledFrom([]int{-1, -1, 0, size / 2, size}).Draw(t, "read at most") // then the reader goes
		got, readErr, fillErr := passing(t.Context(), source, func(s *stream) ([]byte, error) {
			if size > chunkSize && buffer < 512 {
				buffer = 512
			}
			return readSome(s, buffer, most)
		})
		if !bytes.HasPrefix(content, got) {
			t.Fatalf("%d bytes that are not the content's", len(got))
		}
		switch {
		case readErr == io.EOF:
			if len(got) != size || end != nil || fillErr != nil {
				t.Fatalf("%d of %d bytes end well; the source ended with %v, fill with %v", len(got), size, end, fillErr)
			}
		case readErr != nil:
			if readErr != end || fillErr != end || len(got) != size {
				t.Fatalf("%d of %d bytes end with %v; the source ended with %v, fill with %v", len(got), size, readErr, end, fillErr)
			}
		case fillErr != nil && fillErr != errReaderGone && fillErr != end:
			t.Fatalf("the reader went; fill ended with %v", fillErr)
		case fillErr == nil && end != nil:
			t.Fatal("the source broke; fill ended well")
		}
	})
}

// readSome reads until most bytes are there, or an error; -1 is no limit.
func readSome(r io.Reader, buffer, most int) (got []byte, err error) {
	b := make([]byte, buffer)
	for most < 0 || len(got) < most {
		n, err := r.Read(b)
		got = append(got, b[:n]...)
		if err != nil {
			return got, err
		}
	}
	return got, nil
}

// idle returns (0, nil) each second time.
type idle struct {
	r    io.Reader
	turn bool
}

func (i *idle) Read(p []byte) (int, error) {
	if i.turn = !i.turn; i.turn {
		return 0, nil
	}
	return i.r.Read(p)
}

// TestStreamCancelled: whenever the context ends, the reader never takes what it got for all.
func TestStreamCancelled(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	content := pattern(10 << 20)
	rapid.Check(t, func(t *rapid.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		at := rapid.IntRange(0, len(content)).Draw(t, "cancelled at")
		byReader := rapid.Bool().Draw(t, "by the reader")
		source := io.Reader(bytes.NewReader(content))
		if !byReader {
			source = io.MultiReader(bytes.NewReader(content[:at]), calling{cancel}, bytes.NewReader(content[at:]))
		}
		got, readErr, fillErr := passing(ctx, source, func(s *stream) ([]byte, error) {
			if !byReader {
				return readSome(s, 64<<10, -1)
			}
			first, err := readSome(s, 64<<10, at)
			cancel()
			if err != nil {
				return first, err
			}
			rest, err := readSome(s, 64<<10, -1)
			return append(first, rest...), err
		})
		if !bytes.HasPrefix(content, got) {
			t.Fatal("bytes that are not the content's")
		}
		whole := len(got) == len(content)
		if (readErr == io.EOF) != (fillErr == nil) || readErr == io.EOF && !whole {
			t.Fatalf("%d of %d bytes, read ends with %v, fill with %v", len(got), len(content), readErr, fillErr)
		}
		if readErr != io.EOF && (!errors.Is(readErr, context.Canceled) || !errors.Is(fillErr, context.Canceled)) {
			t.Fatalf("read ends with %v, fill with %v", readErr, fillErr)
		}
	})
}

// calling is an empty reader that calls something.
type calling struct{ f func() }

func (c calling) Read([]byte) (int, error) { c.f(); return 0, io.EOF }

// TestStreamNobodyReads: fill waits with what it holds, and goes when the reader or the context does.
func TestStreamNobodyReads(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for _, want := range []error{errReaderGone, context.Canceled} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := newStream(streamChunks)
		var read int
		held := make(chan struct{}, 100)
		filled := make(chan error, 1)
		go func() {
			filled <- s.fill(ctx, endless{}, func(n int) { read += n; held <- struct{}{} })
		}()
		for range streamChunks {
			<-held
		}
		select {
		case err := <-filled:
			t.Fatalf("ended with %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		if want == errReaderGone {
			_ = s.Close()
			_ = s.Close()
		} else {
			cancel()
		}
		if err := <-filled; !errors.Is(err, want) {
			t.Errorf("ended with %v, want %v", err, want)
		}
		if read > streamChunks*chunkSize {
			t.Errorf("held %d bytes", read)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestStreamCloseFreesOnce(t *testing.T) {
	s := newStream(streamChunks)
	n := 0
	s.onGone = func() { n++ }
	for range 3 {
		_ = s.Close()
	}
	if n != 1 {
		t.Errorf("told %d times", n)
	}
}

// TestStreamReadAfterEnd: the end stays what it was.
func TestStreamReadAfterEnd(t *testing.T) {
	for _, end := range []error{io.EOF, errBroken} {
		s := newStream(streamChunks)
		if err := s.fill(t.Context(), iotest.ErrReader(end), func(int) {}); (err == nil) != (end == io.EOF) {
			t.Error(err)
		}
		for range 3 {
			if n, err := s.Read(make([]byte, 10)); n != 0 || err != end {
				t.Errorf("%d bytes, error %v, want %v", n, err, end)
			}
		}
	}
}
