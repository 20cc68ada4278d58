package codec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// FrameMost is how many bytes a frame of a Framer holds at most, decoded.
const FrameMost = blockSize

// Framer encodes pieces of a stream as frames of their own: each can be decoded
// without those before it, and all of them together are what Encode would make, a
// stream for Decode. It is for one goroutine, and holds less than 1 MiB for lz4, some
// 3 MiB for zstd.
type Framer struct {
	codec Codec
	lz4   lz4.CompressorCCompat
	zstd  *zstd.Encoder
}

// NewFramer returns a Framer of lz4 or zstd. There is nothing to close.
func (c Codec) NewFramer() *Framer {
	f := &Framer{codec: c}
	switch c {
	case LZ4:
	case Zstd:
		f.zstd = newFrameEncoder()
	default:
		panic("codec: no frames of " + c.Name())
	}
	return f
}

// newFrameEncoder encodes as encodeZstd does. What a frame refers back to is in it.
func newFrameEncoder() *zstd.Encoder {
	z, err := zstd.NewWriter(
		nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(FrameMost),
		zstd.WithZeroFrames(true),
	)
	if err != nil {
		panic(err) // of constants
	}
	return z
}

// Append appends src, at most FrameMost bytes, as one frame to dst.
func (f *Framer) Append(dst, src []byte) []byte {
	if len(src) > FrameMost {
		panic("codec: a frame of more than FrameMost bytes")
	}
	if f.codec == Zstd {
		return f.zstd.EncodeAll(src, dst)
	}
	dst = append(dst, lz4Header...)
	if len(src) > 0 {
		dst = f.appendBlock(dst, src)
	}
	return append(dst, lz4End...)
}

// appendBlock appends an lz4 block, made where it is to be.
func (f *Framer) appendBlock(dst, src []byte) []byte {
	size := len(dst)
	dst = slices.Grow(dst, headroom+len(src))[:size+headroom]
	n, err := f.lz4.CompressBlock(src, dst[size+headroom:size+headroom+len(src)-1])
	if err != nil || n == 0 {
		binary.LittleEndian.PutUint32(dst[size:], uint32(len(src))|lz4Unpacked)
		return append(dst, src...)
	}
	binary.LittleEndian.PutUint32(dst[size:], uint32(n))
	return dst[:size+headroom+n]
}

// frameDecoders decode frames, and take long to make.
var frameDecoders = [...]sync.Pool{
	LZ4:  {New: func() any { return newFrameReader(lz4Frames) }},
	Zstd: {New: func() any { return newFrameReader(zstdFrames(freeWindow)) }},
}

func newFrameReader(format frameFormat) frameReader {
	r, err := format.open()
	if err != nil {
		panic(err) // of constants
	}
	return r
}

// AppendDecoded appends what whole frames decode to, which are to be size bytes,
// to dst. It holds no more than these, whatever the frames say; any other size,
// and a window of more than 8 MiB, is an error that wraps ErrDamaged.
func (c Codec) AppendDecoded(dst, frames []byte, size int) ([]byte, error) {
	from := &source{reader: bytes.NewReader(frames)}
	src := io.Reader(from)
	if c != None {
		r := frameDecoders[c].Get().(frameReader)
		defer func() {
			_ = r.Reset(nil) // it is not to hold the frames
			frameDecoders[c].Put(r)
		}()
		if err := r.Reset(from); err != nil {
			return dst, from.blame(c, err)
		}
		src = r
	}
	at := len(dst)
	dst = append(dst, make([]byte, size)...)
	n, err := io.ReadFull(src, dst[at:])
	if err == io.EOF && size > 0 || err == io.ErrUnexpectedEOF && from.err == io.EOF {
		err = fmt.Errorf("%w: frames end after %d of %d bytes", ErrDamaged, n, size)
		return dst[:at], err
	}
	if err != nil {
		return dst[:at], from.blame(c, err)
	}
	var more [1]byte
	if n, err := io.ReadFull(src, more[:]); n > 0 {
		return dst[:at], fmt.Errorf("%w: frames hold more than %d bytes", ErrDamaged, size)
	} else if err != io.EOF {
		return dst[:at], from.blame(c, err)
	}
	return dst, nil
}

// skippableMagic is the first of the sixteen magic numbers of skippable frames, which
// lz4 and zstd share.
const skippableMagic = 0x184D2A50

// SkippableHeader is how many bytes stand before the payload of a skippable frame.
const SkippableHeader = 8

// AppendSkippable appends a skippable frame, which decoders pass over, to dst. kind
// is from 0 to 15; payload is less than 4 GiB.
func AppendSkippable(dst []byte, kind uint32, payload []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, skippableMagic+kind)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	return append(dst, payload...)
}

// ParseSkippable returns the kind of a skippable frame that begins with header, of
// SkippableHeader bytes, and how long its payload is; ok is false where none begins there.
func ParseSkippable(header []byte) (kind uint32, size int64, ok bool) {
	magic := binary.LittleEndian.Uint32(header)
	return magic - skippableMagic, int64(binary.LittleEndian.Uint32(header[4:])), magic-skippableMagic < 16
}
