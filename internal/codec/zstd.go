package codec

import (
	"io"
	"runtime"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

const (
	// zstdWindow is how far back an encoded stream refers, in bytes. The encoder
	// holds some twenty times as much for each core; 4 MiB would give 1.5 % less.
	zstdWindow = 256 << 10

	// zstdMostWindow is the largest that is accepted, in bytes: what the zstd
	// command accepts unless it is told otherwise.
	zstdMostWindow = 128 << 20

	// zstdWorkers bounds the cores of one stream, and so its memory.
	zstdWorkers = 3
)

// encodeZstd writes one frame, with a checksum, so that a torn file shows even
// where nobody computes the digest.
func encodeZstd(src io.Reader) io.ReadCloser {
	return newStream(3, func(s *stream) error {
		w := &blockWriter{stream: s}
		z, err := zstd.NewWriter(
			w,
			zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderConcurrency(min(runtime.GOMAXPROCS(0), zstdWorkers)),
			zstd.WithConcurrentBlocks(true),
			zstd.WithWindowSize(zstdWindow),
			zstd.WithZeroFrames(true),
		)
		if err != nil {
			return err
		}
		if _, err = z.ReadFrom(src); err == nil {
			err = z.Close()
		}
		if err != nil {
			w.failed.Store(true)
			z.Reset(nil) // ends its goroutines without ending the frame
			return err
		}
		w.flush()
		return io.EOF
	})
}

// blockWriter gathers what is written in the blocks of a stream.
type blockWriter struct {
	stream *stream
	block  *block
	failed atomic.Bool // nothing more may come
}

func (w *blockWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if w.failed.Load() {
			return n, errClosed
		}
		if w.block == nil {
			if w.block = w.stream.take(); w.block == nil {
				return n, errClosed
			}
		}
		b := w.block
		k := copy(b.raw[headroom+b.n:], p[n:])
		b.n += k
		n += k
		if b.n == blockSize {
			w.flush()
		}
	}
	return n, nil
}

func (w *blockWriter) flush() {
	if b := w.block; b != nil {
		b.out = b.raw[headroom : headroom+b.n]
		w.stream.emit(b)
		w.block = nil
	}
}

func decodeZstd(src io.Reader, workers int) io.ReadCloser {
	return newSequence(workers, func(q *sequence) error { return q.decode(src, zstdFrames(zstdMostWindow)) })
}

// zstdFrames refer no further back than window. One goroutine decodes a frame: more
// of them use a third more of the processor to be as fast.
func zstdFrames(window int64) frameFormat {
	return frameFormat{codec: Zstd, batch: batchSize, extent: zstdExtent, open: func() (frameReader, error) {
		return zstd.NewReader(
			nil,
			zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(uint64(window)),
		)
	}}
}
