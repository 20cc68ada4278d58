package codec

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
)

// gzipped is b as a member of a gzip stream.
func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestInflate(t *testing.T) {
	b := sample(100_000)
	member, frame := gzipped(t, b), encode(t, Zstd, b)
	trouble := errors.New("such trouble")
	for what, c := range map[string]struct {
		src  io.Reader
		want []byte
		err  error
	}{
		"gzip":               {bytes.NewReader(member), b, nil},
		"gzip, of nothing":   {bytes.NewReader(gzipped(t, nil)), nil, nil},
		"gzip, two members":  {io.MultiReader(bytes.NewReader(gzipped(t, b[:7])), bytes.NewReader(gzipped(t, b[7:]))), b, nil},
		"gzip, cut":          {bytes.NewReader(member[:len(member)-1]), b, ErrDamaged},
		"gzip, garbage":      {io.MultiReader(bytes.NewReader(member), bytes.NewReader([]byte("x"))), b, ErrDamaged},
		"gzip, source fails": {io.MultiReader(bytes.NewReader(member), iotest.ErrReader(trouble)), b, trouble},
		"zstd":               {bytes.NewReader(frame), b, nil},
		"zstd, cut":          {bytes.NewReader(frame[:len(frame)-1]), nil, ErrDamaged},
		"lz4":                {bytes.NewReader(encode(t, LZ4, b)), nil, ErrDamaged},
		"a tar":              {bytes.NewReader(make([]byte, 1024)), nil, ErrDamaged},
		"nothing":            {bytes.NewReader(nil), nil, ErrDamaged},
		"one byte":           {bytes.NewReader([]byte{0x1f}), nil, ErrDamaged},
		"source fails":       {iotest.ErrReader(trouble), nil, trouble},
	} {
		got, err := readAll(t, Inflate(c.src))
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: error %v, want %v", what, err, c.err)
		}
		if c.want != nil && !bytes.Equal(got, c.want) {
			t.Errorf("%s: %d bytes, want %d", what, len(got), len(c.want))
		}
	}
	if !Compressed(member) || !Compressed(frame) || Compressed(b) || Compressed(nil) {
		t.Error("Compressed does not tell what Inflate reads")
	}
}

// FuzzInflate: no bytes make inflating panic, hang, or depend on how they come;
// what is taken for gzip or zstd is what others find in it.
func FuzzInflate(f *testing.F) {
	for _, b := range [][]byte{nil, []byte("x"), sample(700)} {
		member := gzipped(f, b)
		f.Add(member)
		f.Add(member[:len(member)/2])
		f.Add(append(bytes.Clone(member), member...))
		f.Add(append(bytes.Clone(member), "garbage"...))
	}
	for _, frame := range small(f, Zstd) {
		f.Add(frame)
		f.Add(frame[:len(frame)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const most = 32 << 20
		read := func(r io.ReadCloser) ([]byte, error) {
			defer r.Close()
			return io.ReadAll(io.LimitReader(r, most))
		}
		whole, err := read(Inflate(bytes.NewReader(b)))
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("an error of another kind: %v", err)
		}
		if err == nil && !Compressed(b) {
			t.Fatal("it was not compressed")
		}
		again, err2 := read(Inflate(iotest.HalfReader(bytes.NewReader(b))))
		if !bytes.Equal(whole, again) || (err == nil) != (err2 == nil) {
			t.Fatalf("%d bytes, %v; in smaller pieces %d bytes, %v", len(whole), err, len(again), err2)
		}
		var same []byte
		var err3 error
		switch {
		case bytes.HasPrefix(b, gzipMagic):
			var r *stdgzip.Reader
			if r, err3 = stdgzip.NewReader(bytes.NewReader(b)); err3 == nil {
				same, err3 = read(r)
			}
			if err != nil && err3 == nil { // they take reserved flags, which RFC 1952 wants refused
				same, err3 = whole, err
			}
		case bytes.HasPrefix(b, zstdMagic):
			same, err3 = read(Zstd.Decode(bytes.NewReader(b)))
		default:
			return
		}
		n := min(len(whole), len(same)) // where it breaks off, one may have got further
		if !bytes.Equal(whole[:n], same[:n]) || (err == nil) != (err3 == nil) || err == nil && len(whole) != len(same) {
			t.Fatalf("%d bytes, %v; others find %d bytes, %v", len(whole), err, len(same), err3)
		}
		if got, err := readAll(t, Inflate(bytes.NewReader(gzipped(t, b)))); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("there and back: %v", err)
		}
	})
}

// TestInflateCutHeader: a second member that is cut off anywhere, also within its name, is no end.
func TestInflateCutHeader(t *testing.T) {
	first := gzipped(t, []byte("first"))
	var second bytes.Buffer
	w := stdgzip.NewWriter(&second)
	w.Name, w.Comment = "name", "comment"
	if _, err := w.Write([]byte("second")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for n := range second.Len() + 1 {
		got, err := readAll(t, Inflate(bytes.NewReader(append(first[:len(first):len(first)], second.Bytes()[:n]...))))
		if whole := n == 0 || n == second.Len(); whole != (err == nil) {
			t.Errorf("%d of %d bytes of the second member: %q, error %v", n, second.Len(), got, err)
		}
	}
}
