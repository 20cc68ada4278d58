package codec

import (
	"encoding/binary"
	"io"
	"runtime"

	"github.com/pierrec/lz4/v4"
)

// The LZ4 frame format (github.com/lz4/lz4, doc/lz4_Frame_format.md). What
// encodeLZ4 writes: independent blocks of 1 MiB, no checksums (the digest is
// the checksum, and they would cost a third of the speed of decoding), no size.
const (
	lz4Header   = "\x04\x22\x4d\x18" + "\x60" + "\x60" + "\x51" // magic, flags, block size, their checksum
	lz4End      = "\x00\x00\x00\x00"
	lz4Unpacked = 1 << 31 // in a block's size: it is stored as it is
)

// lz4Workers bounds the cores of one stream, and so its memory: two buffers for
// each, and for two blocks more.
const lz4Workers = 8

func encodeLZ4(src io.Reader) io.ReadCloser {
	workers := min(runtime.GOMAXPROCS(0), lz4Workers)
	slots := workers + 2
	work := make(chan *block, slots)
	return newStream(slots, func(s *stream) error {
		defer close(work)
		s.emit(&block{out: []byte(lz4Header)})
		for started := 0; ; {
			b := s.take()
			if b == nil {
				return errClosed
			}
			err := b.fill(src)
			if err != nil && err != io.EOF {
				b.n = 0 // it would only hide for a while that the source failed
			}
			if b.n > 0 {
				if started < workers {
					started++
					s.running.Go(func() { packLZ4(work) })
				}
				b.ready = make(chan struct{})
				work <- b
			}
			s.emit(b)
			if err == io.EOF {
				s.emit(&block{out: []byte(lz4End)})
			}
			if err != nil {
				return err
			}
		}
	})
}

// packLZ4 encodes blocks until there are no more. The compressor is the one
// that writes what the lz4 command would: half as fast again as the other, for
// 2 % more bytes.
func packLZ4(work <-chan *block) {
	var c lz4.CompressorCCompat
	for b := range work {
		b.packed = buffers.Get().(*buffer)
		b.out = packBlock(&c, b.raw[:headroom+b.n], b.packed[:])
		close(b.ready)
	}
}

// packBlock returns what follows headroom in raw as a block of the frame
// format. It is made in packed, or, where it would not be smaller, in raw.
func packBlock(c *lz4.CompressorCCompat, raw, packed []byte) []byte {
	size := len(raw) - headroom
	n, err := c.CompressBlock(raw[headroom:], packed[headroom:headroom+size-1])
	if err != nil || n == 0 {
		binary.LittleEndian.PutUint32(raw, uint32(size)|lz4Unpacked)
		return raw
	}
	binary.LittleEndian.PutUint32(packed, uint32(n))
	return packed[:headroom+n]
}

func decodeLZ4(src io.Reader, workers int) io.ReadCloser {
	return newSequence(workers, func(q *sequence) error { return q.decode(src, lz4Frames) })
}

// lz4Frames decode with one goroutine each time: that there are several is up to sequence.
var lz4Frames = frameFormat{codec: LZ4, batch: batchSize, extent: lz4Extent, open: func() (frameReader, error) {
	r := lz4.NewReader(nil)
	return lz4Reader{r}, r.Apply(lz4.ConcurrencyOption(1))
}}

// lz4Reader is a frameReader. It holds nothing that would have to be closed.
type lz4Reader struct{ *lz4.Reader }

func (r lz4Reader) Reset(src io.Reader) error {
	r.Reader.Reset(src)
	return nil
}

func (r lz4Reader) Close() {}
