package delta

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tester is a test, or a property's.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// layer is a layer as it is stored, and all that is known of it.
type layer struct {
	tar    []byte
	digest image.Digest
	stored []byte
	index  *chunk.Index
}

func newLayer(t tester, c codec.Codec, tar []byte) *layer {
	t.Helper()
	e := chunk.Encode(c, bytes.NewReader(tar))
	defer e.Close()
	stored, err := io.ReadAll(e)
	if err != nil {
		t.Fatal(err)
	}
	l := &layer{tar: tar, digest: image.DigestOf(tar), stored: stored}
	if l.index, err = chunk.Read(context.Background(), l.read, int64(len(stored))); err != nil {
		t.Fatal(err)
	}
	return l
}

// read is a chunk.Reader.
func (l *layer) read(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(l.stored[offset:min(offset+n, int64(len(l.stored)))])), nil
}

// whole opens the layer as Options.Whole does.
func (l *layer) whole(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.tar)), nil
}

// local is the layer at hand, with such a tar.
func (l *layer) local(t *localTar) Local {
	return Local{Digest: l.digest, Index: l.index, Open: func(context.Context) (Tar, error) {
		if t.gone {
			return nil, errors.New("no such layer here")
		}
		t.opened.Add(1)
		return t, nil
	}}
}

// localTar is a tar at hand, that changes at that read, if there is one: then all of it is inverted.
type localTar struct {
	gone    bool
	change  int64 // which read; 0 is none
	opened  atomic.Int64
	closed  atomic.Int64
	reads   atomic.Int64
	mu      sync.RWMutex
	content []byte
}

func (t *localTar) ReadAt(p []byte, at int64) (int, error) {
	if n := t.reads.Add(1); n == t.change {
		t.mu.Lock()
		t.content = invert(t.content)
		t.mu.Unlock()
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return bytes.NewReader(t.content).ReadAt(p, at)
}

func (t *localTar) Close() error { t.closed.Add(1); return nil }

func invert(b []byte) []byte {
	b = bytes.Clone(b)
	for i := range b {
		b[i] ^= 0xff
	}
	return b
}

// file is a file of a tree: what is in it follows from size and seed.
type file struct {
	size int
	seed uint64
}

// tree makes a tar of files, all of one age.
func tree(t tester, files []file, age int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, f := range files {
		content := noise(f.size, f.seed)
		h := &tar.Header{Name: fmt.Sprintf("dir%d/file%d", i/100, i), Mode: 0o644, Size: int64(f.size), ModTime: time.Unix(age, 0)}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// noise is bytes that compress a little.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n+8)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 32), byte(seed >> 40)}).Read(b)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], binary.LittleEndian.Uint64(b[i:])&0x3f3f3f3f3f3f3f3f)
	}
	return b[:n]
}

// plain is a layer of so many frames of that size, made faster than by chunking: each is four chunks, and nothing else.
func plain(frames, size int) *layer {
	x := &chunk.Index{Codec: codec.LZ4}
	l := &layer{index: x}
	framer := codec.LZ4.NewFramer()
	frame := noise(size, 1)
	for i := range frames {
		binary.LittleEndian.PutUint32(frame, uint32(i))
		for part := range slices.Chunk(frame, len(frame)/4) {
			binary.LittleEndian.PutUint32(part, uint32(i))
			x.Chunks = append(x.Chunks, chunk.Chunk{Sum: chunk.SumOf(part), At: int64(len(x.Chunks) * len(part)), Size: int32(len(part))})
		}
		l.tar = append(l.tar, frame...)
		l.stored = framer.Append(l.stored, frame)
		f := chunk.Frame{Tar: x.Size, At: x.Stored, Size: int32(len(frame)), Stored: int32(int64(len(l.stored)) - x.Stored)}
		x.Frames = append(x.Frames, f)
		x.Size, x.Stored = int64(len(l.tar)), int64(len(l.stored))
	}
	x.Spans = []chunk.Span{{Content: x.Size}}
	l.digest = image.DigestOf(l.tar)
	return l
}

// sizes returns files of all sizes.
func sizes(n int, seed uint64) []file {
	r := rand.New(rand.NewPCG(seed, 2))
	files := make([]file, n)
	for i := range files {
		files[i] = file{r.IntN(1 << (6 + i%11)), seed<<32 | uint64(i)}
	}
	return files
}

var codecs = []codec.Codec{codec.LZ4, codec.Zstd}

// verified reads all of r as a pull does.
func verified(r io.Reader, l *layer) ([]byte, error) {
	return io.ReadAll(image.Verify(r, l.digest, int64(len(l.tar))))
}

// pull puts a layer together, without faults, and returns what it took.
func pull(t *testing.T, l *layer, locals ...Local) (*Plan, Stats) {
	t.Helper()
	p := NewPlan(l.index, locals)
	r := p.Open(t.Context(), Options{Read: l.read, Whole: l.whole, Note: func(cause error) { t.Errorf("falls back: %v", cause) }})
	defer r.Close()
	if b, err := verified(r, l); err != nil || !bytes.Equal(b, l.tar) {
		t.Fatalf("%d of %d bytes, %v", len(b), len(l.tar), err)
	}
	return p, r.Stats()
}
