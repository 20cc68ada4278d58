package codec_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand"
	"testing"
	"testing/iotest"

	"github.com/dogestry/dogestry/internal/codec"
)

// TestEncodeGzip: what comes out is one member that the standard library reads,
// and the same however the source hands out its bytes.
func TestEncodeGzip(t *testing.T) {
	text := bytes.Repeat([]byte("text that compresses, "), 300_000)
	noise := make([]byte, 3<<20+7)
	rand.New(rand.NewSource(1)).Read(noise)
	for name, want := range map[string][]byte{
		"nothing": {}, "a byte": {7}, "a piece": text[:1<<20], "a piece and a byte": text[:1<<20+1], "text": text, "noise": noise,
	} {
		z := codec.EncodeGzip(bytes.NewReader(want))
		packed, err := io.ReadAll(z)
		if err = errors.Join(err, z.Close()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r.Multistream(false)
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes come back of %d, %v", name, len(got), len(want), err)
		}
		if name == "text" && len(packed) > len(want)/50 {
			t.Errorf("text takes %d of %d bytes", len(packed), len(want))
		}
		again := codec.EncodeGzip(iotest.HalfReader(bytes.NewReader(want)))
		other, err := io.ReadAll(again)
		if err = errors.Join(err, again.Close()); err != nil || !bytes.Equal(other, packed) {
			t.Errorf("%s: read in other pieces it is other bytes, %v", name, err)
		}
	}
}

// TestEncodeGzipFails: a source that fails never makes a whole stream.
func TestEncodeGzipFails(t *testing.T) {
	broken := errors.New("broken")
	z := codec.EncodeGzip(io.MultiReader(bytes.NewReader(make([]byte, 3<<20)), iotest.ErrReader(broken)))
	packed, err := io.ReadAll(z)
	if err = errors.Join(err, z.Close()); !errors.Is(err, broken) {
		t.Errorf("error %v, want the source's", err)
	}
	if r, err := gzip.NewReader(bytes.NewReader(packed)); err == nil {
		if _, err := io.Copy(io.Discard, r); err == nil {
			t.Error("what came out is a whole stream")
		}
	}
	early := codec.EncodeGzip(bytes.NewReader(make([]byte, 30<<20)))
	if _, err := io.ReadFull(early, make([]byte, 20)); err != nil {
		t.Fatal(err)
	}
	if err := early.Close(); err != nil {
		t.Error(err)
	}
}
