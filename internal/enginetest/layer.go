package enginetest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"sync"
)

// Entry is one member of a layer's tar.
type Entry struct {
	// Header is written with Content. Size is set from Content.
	Header *tar.Header
	// Content is the content of a regular file.
	Content []byte
	// Raw, if set, is written as it is, headers and padding included, in place of Header and Content: for what Go's tar
	// writer cannot say. Its length must be a multiple of 512.
	Raw []byte
}

// File is an entry for a regular file.
func File(name string, mode int64, content string) Entry {
	return Entry{Header: &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, Content: []byte(content)}
}

// Dir is an entry for a directory.
func Dir(name string) Entry {
	return Entry{Header: &tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimSuffix(name, "/") + "/", Mode: 0o755}}
}

// Layer is an uncompressed layer tar: bytes held in memory, or a generator that writes the same bytes each time. It may be
// used by several images and goroutines.
type Layer struct {
	size  int64
	write func(io.Writer) error

	once   sync.Once // guards the hashing pass
	mu     sync.Mutex
	diffID string // guarded by mu
}

// NewLayer makes a layer of entries. It panics on an entry that tar cannot express: that is a mistake in the test.
func NewLayer(entries ...Entry) *Layer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := writeEntry(w, &b, e); err != nil {
			panic(fmt.Sprintf("enginetest: tar entry: %v", err))
		}
	}
	if err := w.Close(); err != nil {
		panic(fmt.Sprintf("enginetest: tar: %v", err))
	}
	return BytesLayer(b.Bytes())
}

func writeEntry(w *tar.Writer, under io.Writer, e Entry) error {
	if e.Raw != nil {
		if len(e.Raw)%512 != 0 {
			return fmt.Errorf("raw entry of %d bytes", len(e.Raw))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		_, err := under.Write(e.Raw)
		return err
	}
	h := *e.Header
	h.Size = int64(len(e.Content))
	if h.ModTime.IsZero() {
		h.ModTime = created
	}
	if err := w.WriteHeader(&h); err != nil {
		return fmt.Errorf("%q: %w", h.Name, err)
	}
	_, err := w.Write(e.Content)
	return err
}

// BytesLayer makes a layer of a finished tar.
func BytesLayer(b []byte) *Layer {
	return StreamLayer(int64(len(b)), func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// StreamLayer makes a layer of size bytes that nobody has to hold: write must write exactly these bytes, the same at each
// call, and may be called by several goroutines at once.
func StreamLayer(size int64, write func(io.Writer) error) *Layer {
	return &Layer{size: size, write: write}
}

// fileLayer makes a layer of the tar at path, which must stay as it is.
func fileLayer(path string) (*Layer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return StreamLayer(info.Size(), func(w io.Writer) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	}), nil
}

// Size is the length of the layer's tar in bytes.
func (l *Layer) Size() int64 { return l.size }

// DiffID is "sha256:" and the digest of the layer's tar. For a generated layer that has not been written yet this
// generates it once. It panics when the generator fails.
func (l *Layer) DiffID() string {
	l.once.Do(func() {
		if l.known() == "" {
			if _, err := l.WriteTo(io.Discard); err != nil {
				panic(fmt.Sprintf("enginetest: %v", err))
			}
		}
	})
	return l.known()
}

func (l *Layer) known() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.diffID
}

// WriteTo writes the layer's tar to w.
func (l *Layer) WriteTo(w io.Writer) (int64, error) {
	var h hash.Hash
	c := &counter{w: w}
	if l.known() == "" {
		h = sha256.New()
		c.w = io.MultiWriter(w, h)
	}
	if err := l.write(c); err != nil {
		return c.n, err
	}
	if c.n != l.size {
		return c.n, fmt.Errorf("generated layer has %d bytes, not the %d promised", c.n, l.size)
	}
	if h != nil {
		l.mu.Lock()
		l.diffID = "sha256:" + hex.EncodeToString(h.Sum(nil))
		l.mu.Unlock()
	}
	return c.n, nil
}

// Bytes is the whole tar. Not for big layers.
func (l *Layer) Bytes() []byte {
	var b bytes.Buffer
	if _, err := l.WriteTo(&b); err != nil {
		panic(fmt.Sprintf("enginetest: %v", err))
	}
	return b.Bytes()
}

// Open streams the tar. The caller closes it, at the end or before.
func (l *Layer) Open() io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		_, err := l.WriteTo(w)
		w.CloseWithError(err)
	}()
	return r
}

// counter counts what is written through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
