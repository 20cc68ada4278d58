package codec

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"runtime"

	"github.com/klauspost/compress/flate"
)

// gzip (RFC 1952), for registries: one member, as every reader takes it. It is cut
// into pieces of 1 MiB that several cores compress, each with the end of the one
// before it as its dictionary.
const (
	gzipHeader = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" // no name, no time: equal input gives equal bytes
	gzipLast   = "\x03\x00"                                 // an empty last piece (RFC 1951)

	gzipLevel   = 4        // of klauspost/compress: as small as zlib's 6, twice as fast
	gzipWindow  = 32 << 10 // how far back a piece may refer, in bytes
	gzipWorkers = 8        // bounds the cores of one stream, and so its memory
)

// EncodeGzip returns a reader of src's bytes as one gzip member. It is no Codec:
// the repository format knows no gzip. What is said of Codec.Encode is true of it.
func EncodeGzip(src io.Reader) io.ReadCloser {
	workers := min(runtime.GOMAXPROCS(0), gzipWorkers)
	slots := workers + 2
	work := make(chan gzipPiece, slots)
	return newStream(slots, func(s *stream) error {
		defer close(work)
		s.emit(&block{out: []byte(gzipHeader)})
		sum, size, started := crc32.NewIEEE(), uint32(0), 0
		var window []byte
		for {
			b := s.take()
			if b == nil {
				return errClosed
			}
			err := b.fill(src)
			if err != nil && err != io.EOF {
				b.n = 0 // it would only hide for a while that the source failed
			}
			raw := b.raw[headroom : headroom+b.n]
			if b.n > 0 {
				if started < workers {
					started++
					s.running.Go(func() { packGzip(work) })
				}
				sum.Write(raw)
				size += uint32(b.n)
				b.ready = make(chan struct{})
				work <- gzipPiece{b, window}
				window = append([]byte(nil), raw[max(0, len(raw)-gzipWindow):]...)
			}
			s.emit(b)
			if err == io.EOF {
				end := binary.LittleEndian.AppendUint32([]byte(gzipLast), sum.Sum32())
				s.emit(&block{out: binary.LittleEndian.AppendUint32(end, size)})
			}
			if err != nil {
				return err
			}
		}
	})
}

// gzipPiece is a block to compress, and what comes before it.
type gzipPiece struct {
	*block
	window []byte
}

// packGzip compresses pieces until there are no more.
func packGzip(work <-chan gzipPiece) {
	var w *flate.Writer
	for p := range work {
		packed := &sliceWriter{b: make([]byte, 0, p.n/2)}
		if w == nil {
			w, _ = flate.NewWriterDict(packed, gzipLevel, p.window) // the level is right
		} else {
			w.ResetDict(packed, p.window)
		}
		_, _ = w.Write(p.raw[headroom : headroom+p.n]) // packed takes all
		_ = w.Flush()
		p.out = packed.b
		close(p.ready)
	}
}

type sliceWriter struct{ b []byte }

func (w *sliceWriter) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}
