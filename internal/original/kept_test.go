package original

import (
	"encoding/binary"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
)

// TestKept: the documents of many images are not at hand for ever, and those of the
// last ones are, however large.
func TestKept(t *testing.T) {
	digest := func(n int) (d image.Digest) {
		binary.BigEndian.PutUint64(d[:], uint64(n)+1)
		return d
	}
	for _, c := range []struct{ size, want int }{{image.MaxDocument, leastKept}, {1 << 20, 63}, {1 << 10, 100}} {
		s := New(nil, Options{})
		doc := make([]byte, c.size)
		for n := range 100 {
			s.keep(kept{digest(3 * n), digest(3*n + 1), digest(3*n + 2)}, doc, doc[:100])
		}
		if len(s.images) != c.want || len(s.documents) != 2*c.want || len(s.kept) != c.want || s.size != int64(c.want*(c.size+100)) {
			t.Errorf("of %d bytes each %d images, %d documents, %d bytes are kept, want %d", c.size, len(s.images), len(s.documents), s.size, c.want)
		}
		if s.images[digest(3*99)] != digest(3*99+1) || s.documents[digest(3*99+1)] == nil {
			t.Error("the last one is not")
		}
	}
}
