package image

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// drawnReader hands out b in pieces of drawn sizes, sometimes none at all, and
// then err: alone, or together with the last bytes.
type drawnReader struct {
	t   *rapid.T
	b   []byte
	err error
}

func (r *drawnReader) Read(p []byte) (int, error) {
	n := copy(p[:rapid.IntRange(0, len(p)).Draw(r.t, "gets")], r.b)
	r.b = r.b[n:]
	if len(r.b) == 0 && rapid.Bool().Draw(r.t, "ends") {
		return n, r.err
	}
	return n, nil
}

// consume reads r to its error, in reads of drawn sizes, and proves that the
// error stays, and that Read keeps to its buffer.
func consume(t *rapid.T, r io.Reader) ([]byte, error) {
	var got []byte
	for {
		p := make([]byte, rapid.SampledFrom([]int{0, 1, 1, 2, 3, 7, 64}).Draw(t, "asks"))
		n, err := r.Read(p)
		if n < 0 || n > len(p) {
			t.Fatalf("%d bytes read into %d", n, len(p))
		}
		got = append(got, p[:n]...)
		if err == nil {
			continue
		}
		for _, size := range []int{1, 2, 64} {
			if n, again := r.Read(make([]byte, size)); n != 0 || again != err {
				t.Fatalf("after %v came %d bytes, %v", err, n, again)
			}
		}
		return got, err
	}
}

func TestVerify(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "content")
		size := rapid.SampledFrom([]int64{-1, int64(len(want))}).Draw(t, "size")
		got, err := consume(t, Verify(&drawnReader{t, want, io.EOF}, DigestOf(want), size))
		if err != io.EOF || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(want), err)
		}
	})
}

// TestVerifyHoldsBack is what protects whoever publishes on a length: of bytes
// that are not the right ones, fewer come out than there must be.
func TestVerifyHoldsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "content")
		comes := bytes.Clone(want)
		short, long := false, false
		switch rapid.SampledFrom([]string{"wrong", "short", "long"}).Draw(t, "fault") {
		case "wrong":
			comes[rapid.IntRange(0, len(want)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case "short":
			comes, short = comes[:rapid.IntRange(0, len(want)-1).Draw(t, "cut")], true
		case "long":
			comes, long = append(comes, rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "more")...), true
		}
		size := rapid.SampledFrom([]int64{-1, int64(len(want))}).Draw(t, "size")
		got, err := consume(t, Verify(&drawnReader{t, comes, io.EOF}, DigestOf(want), size))

		var mismatch *MismatchError
		if !errors.As(err, &mismatch) {
			t.Fatalf("error %v", err)
		}
		if mismatch.Want != DigestOf(want) || mismatch.Size != size {
			t.Fatalf("%+v", mismatch)
		}
		if size < 0 || !short && !long {
			if mismatch.Got != DigestOf(comes) || mismatch.Read != int64(len(comes)) {
				t.Fatalf("%+v", mismatch)
			}
		} else if !mismatch.Got.IsZero() || short && mismatch.Read != int64(len(comes)) || long && mismatch.Read <= size {
			t.Fatalf("%+v", mismatch)
		}
		most := len(comes) // where nobody said how many there must be, the last of those that came
		if size >= 0 {
			most = len(want)
		}
		if len(got) >= most && len(got) > 0 {
			t.Fatalf("%d bytes came out, %d are all there are", len(got), most)
		}
		if !bytes.HasPrefix(comes, got) {
			t.Fatal("bytes that never came in came out")
		}
	})
}

func TestVerifySourceFails(t *testing.T) {
	broken := errors.New("connection reset")
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "content")
		cut := rapid.IntRange(0, len(want)).Draw(t, "cut")
		failure := rapid.SampledFrom([]error{broken, io.ErrUnexpectedEOF, io.ErrClosedPipe}).Draw(t, "failure")
		got, err := consume(t, Verify(&drawnReader{t, want[:cut], failure}, DigestOf(want), int64(len(want))))
		if err != failure {
			t.Fatalf("error %v, want %v as it is", err, failure)
		}
		if len(got) >= len(want) && len(want) > 0 || !bytes.HasPrefix(want, got) {
			t.Fatalf("%d of %d bytes came out", len(got), len(want))
		}
	})
}

// TestVerifyReaders: the ways in which the standard library's readers behave.
func TestVerifyReaders(t *testing.T) {
	want := bytes.Repeat([]byte("layer"), 1000)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "data and error": iotest.DataErrReader,
	} {
		if err := iotest.TestReader(Verify(wrap(bytes.NewReader(want)), DigestOf(want), int64(len(want))), want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got, err := io.ReadAll(iotest.OneByteReader(Verify(wrap(bytes.NewReader(want)), DigestOf(want), -1)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s, read by the byte: %d bytes, %v", name, len(got), err)
		}
		got, err = io.ReadAll(Verify(wrap(bytes.NewReader(want)), hello, int64(len(want))))
		if err == nil || len(got) >= len(want) {
			t.Errorf("%s, wrong: %d bytes, %v; want fewer than all, and an error", name, len(got), err)
		}
	}
}

func TestVerifyEmpty(t *testing.T) {
	for _, size := range []int64{-1, 0} {
		if b, err := io.ReadAll(Verify(bytes.NewReader(nil), DigestOf(nil), size)); err != nil || len(b) != 0 {
			t.Errorf("nothing of size %d: %v", size, err)
		}
		if _, err := io.ReadAll(Verify(bytes.NewReader(nil), hello, size)); err == nil {
			t.Errorf("nothing of size %d passes for hello", size)
		}
		if b, err := io.ReadAll(Verify(bytes.NewReader([]byte("x")), DigestOf(nil), size)); err == nil || len(b) != 0 {
			t.Errorf("x of size %d passes for nothing: %q, %v", size, b, err)
		}
	}
}

func TestMismatchText(t *testing.T) {
	for _, c := range []struct {
		comes string
		size  int64
		want  string
	}{
		{"hell", 5, "sha256:" + helloHex + " ends after 4 of 5 bytes"},
		{"hello!", 5, "sha256:" + helloHex + " has more than its 5 bytes"},
		{"hallo", 5, "sha256:" + helloHex + " has the content of " + DigestOf([]byte("hallo")).String()},
		{"hell", -1, "sha256:" + helloHex + " has the content of " + DigestOf([]byte("hell")).String()},
	} {
		if _, err := io.ReadAll(Verify(bytes.NewReader([]byte(c.comes)), hello, c.size)); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", c.comes, err, c.want)
		}
	}
}

func TestReadDocument(t *testing.T) {
	if b, err := ReadDocument(iotest.DataErrReader(bytes.NewReader([]byte("hello"))), hello); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	var mismatch *MismatchError
	if b, err := ReadDocument(bytes.NewReader([]byte("hallo")), hello); !errors.As(err, &mismatch) || b != nil || mismatch.Read != 5 {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := ReadDocument(iotest.ErrReader(io.ErrUnexpectedEOF), hello); err != io.ErrUnexpectedEOF || b != nil {
		t.Errorf("%q, %v", b, err)
	}
	full := make([]byte, MaxDocument)
	if b, err := ReadDocument(bytes.NewReader(full), DigestOf(full)); err != nil || len(b) != MaxDocument {
		t.Errorf("the largest document: %d bytes, %v", len(b), err)
	}
	if _, err := ReadDocument(io.MultiReader(bytes.NewReader(full), endless{}), hello); err != ErrTooLarge {
		t.Errorf("a document without end: %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
