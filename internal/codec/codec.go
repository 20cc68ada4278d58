// Package codec stores layers smaller: lz4 and zstd as streams, of bounded
// memory whatever they hold. Both use several cores for one stream.
package codec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
)

// Codec is a way to store a layer. The zero value is None. A Codec is a
// constant: it may be used by many goroutines at once, and compared.
type Codec int

// The codecs. Their names and extensions are part of the repository format.
const (
	None Codec = iota // the tar itself
	LZ4               // LZ4 frame format 1.6.x, as the lz4 command reads and writes it
	Zstd              // RFC 8878, as the zstd command reads and writes it
)

var codecs = [...]struct {
	name, extension string
	encode          func(io.Reader) io.ReadCloser
	decode          func(src io.Reader, workers int) io.ReadCloser
}{
	None: {"none", "", plain, func(src io.Reader, _ int) io.ReadCloser { return plain(src) }},
	LZ4:  {"lz4", ".lz4", encodeLZ4, decodeLZ4},
	Zstd: {"zstd", ".zst", encodeZstd, decodeZstd},
}

// ErrDamaged is wrapped by the errors of a decoding reader that say that the
// bytes are not what the codec writes, or end too early (then
// io.ErrUnexpectedEOF is wrapped too). A failure to read them is not.
var ErrDamaged = errors.New("damaged")

// ByName returns the codec that --compression names: "lz4", "zstd" or "none".
func ByName(name string) (Codec, error) {
	names := make([]string, len(codecs))
	for i, c := range codecs {
		if c.name == name {
			return Codec(i), nil
		}
		names[i] = c.name
	}
	return None, fmt.Errorf("no compression %q: there are %s", name, strings.Join(names, ", "))
}

// Name returns what --compression calls the codec.
func (c Codec) Name() string { return codecs[c].name }

// String returns Name.
func (c Codec) String() string { return c.Name() }

// Extension returns what follows "layer.tar" in the name of a stored layer:
// ".lz4", ".zst" or nothing.
func (c Codec) Extension() string { return codecs[c].extension }

// Encode returns a reader of src's bytes, encoded. Its bytes do not depend on
// how src hands out its own. An error of src comes out of Read unchanged, and
// what came before it is never a whole stream: it lacks its end.
//
// Goroutines read src ahead; at most 24 MiB are held. They end when the reader
// is read to its end or an error, or closed. The caller closes the reader, and
// src after it: Close waits for a Read of src in progress and ends none, so
// that src is the caller's again when Close returns. Close may be called while
// Read runs, and again.
func (c Codec) Encode(src io.Reader) io.ReadCloser { return codecs[c].encode(src) }

// Decode returns a reader of what was encoded in src. Frames that follow one
// another are read as one stream, and skippable frames are skipped. Anything
// else behind the end, and an end that comes too early, is an error that wraps
// ErrDamaged; an error of src comes out unchanged, and either behind all that
// was decoded before it. Without checksums in the stream damage can go unnoticed, and
// so can it that src ends behind a frame: the caller verifies digest and size.
//
// Frames of up to 1 MiB that follow one another are decoded on up to three cores; one
// more is left to who reads, so that there are none for them on two. At most 32 MiB are
// held for them; else 17 MiB for lz4, and for zstd the window that the stream asks for,
// 128 MiB or less, and 8 MiB. Goroutines and Close are as for Encode.
func (c Codec) Decode(src io.Reader) io.ReadCloser {
	return codecs[c].decode(src, max(1, min(runtime.GOMAXPROCS(0)-1, decodeWorkers)))
}

// DecodeAlone is Decode in one goroutine, for who reckons with memory: it holds as
// much for many frames as for one.
func (c Codec) DecodeAlone(src io.Reader) io.ReadCloser { return codecs[c].decode(src, 1) }

// plain passes src through; closing it does not close src.
func plain(src io.Reader) io.ReadCloser { return &passage{src: src} }

type passage struct {
	src    io.Reader
	closed atomic.Bool
}

func (p *passage) Read(b []byte) (int, error) {
	if p.closed.Load() {
		return 0, errClosed
	}
	return p.src.Read(b)
}

func (p *passage) Close() error {
	p.closed.Store(true)
	return nil
}

// errClosed is what Read returns after Close, if not the end or an error as before.
var errClosed = fmt.Errorf("codec: %w", os.ErrClosed)

// source remembers how a reader ended, for those who ask after a decoder has
// made something else of it. It is read by one goroutine.
type source struct {
	reader io.Reader
	read   int64 // bytes
	err    error // io.EOF at the end
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.reader.Read(p)
	s.read += int64(n)
	s.err = err
	return n, err
}

// blame returns the true reason of a decoder's error err, io.EOF included.
func (s *source) blame(c Codec, err error) error {
	switch {
	case err == nil || err == errClosed:
		return err
	case s.err != nil && s.err != io.EOF: // decoders take some errors for the end
		return s.err
	case s.read == 0: // decoders take nothing at all for a whole stream
		err = io.ErrUnexpectedEOF
	case err == io.EOF:
		return io.EOF
	}
	return fmt.Errorf("%s stream is %w: %w", c, ErrDamaged, err)
}
