package codec

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	"go.uber.org/goleak"
)

func TestContents(t *testing.T) {
	defer goleak.VerifyNone(t)
	b := sample(3 << 20)
	trouble := errors.New("such trouble")
	for what, c := range map[string]struct {
		written []byte
		why     error
		want    error
	}{
		"gzip":                 {gzipped(t, b), nil, nil},
		"zstd":                 {encode(t, Zstd, b), nil, nil},
		"cut":                  {gzipped(t, b)[:1000], nil, ErrDamaged},
		"a tar":                {b, nil, ErrDamaged},
		"nothing":              {nil, nil, ErrDamaged},
		"a writer that failed": {gzipped(t, b)[:1000], trouble, trouble},
	} {
		contents := NewContents()
		if _, err := io.Copy(contents, bytes.NewReader(c.written)); err != nil {
			t.Errorf("%s: write: %v", what, err)
		}
		sum, size, err := contents.End(c.why)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
		if err == nil && (sum != sha256.Sum256(b) || size != int64(len(b))) {
			t.Errorf("%s: %d bytes of %x", what, size, sum)
		}
	}
}
