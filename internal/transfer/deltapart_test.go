package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/dogestry/dogestry/internal/remote"
)

// memoryParts is a remote with one object.
type memoryParts struct {
	content []byte
	read    int64
}

func (m *memoryParts) OpenPart(_ context.Context, _ remote.Layer, offset, n int64) (io.ReadCloser, error) {
	part := m.content[min(offset, int64(len(m.content))):min(offset+n, int64(len(m.content)))]
	m.read += int64(len(part))
	return io.NopCloser(bytes.NewReader(part)), nil
}

// TestLayerParts: parts are the bytes that they are, whether they are read or known.
func TestLayerParts(t *testing.T) {
	content := []byte("0123456789abcdefghij")
	size := int64(len(content))
	for known := range size + 1 {
		from := &memoryParts{content: content}
		l := &layerParts{from: from, layer: remote.Layer{Stored: size}, link: &link{}}
		if known > 0 {
			for _, part := range [][2]int64{{size - known/2, known / 2}, {size - known, known - known/2}} { // as an index is read
				if part[1] == 0 {
					continue
				}
				if _, err := l.ahead(t.Context(), part[0], part[1]); err != nil {
					t.Fatal(err)
				}
			}
		}
		if int64(len(l.tail)) != known || l.fetched.Load() != known {
			t.Errorf("%d of %d bytes are known", len(l.tail), known)
		}
		for offset := range size {
			for n := int64(1); n <= size-offset+2; n++ {
				before := from.read
				body, err := l.open(t.Context(), offset, n)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(body)
				if err = errors.Join(err, body.Close()); err != nil || !bytes.Equal(got, content[offset:min(offset+n, size)]) {
					t.Errorf("%d known, %d from %d: %q, %v", known, n, offset, got, err)
				}
				if read := from.read - before; read != max(0, min(offset+n, size-known)-offset) {
					t.Errorf("%d known, %d from %d: %d bytes were read", known, n, offset, read)
				}
			}
		}
		if l.fetched.Load() != from.read {
			t.Errorf("%d bytes are counted, %d were read", l.fetched.Load(), from.read)
		}
	}
}
