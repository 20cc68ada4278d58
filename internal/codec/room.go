package codec

import (
	"bytes"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

// freeWindow is how far back a zstd stream may refer, in bytes, without room for it:
// as far as those of any level do that is not asked for by name.
const freeWindow = 8 << 20

// DecodeIn is DecodeAlone, but before a zstd stream is decoded that refers further back than
// 8 MiB take is asked for as many bytes, and release is called at the end. The error of
// take is what Read returns then, and Close waits for take. No frame may refer further
// back than the first one, or 8 MiB: nobody has been asked for that. Without a take it is Decode.
func (c Codec) DecodeIn(src io.Reader, take func(memory int64) (release func(), err error)) io.ReadCloser {
	switch {
	case take == nil:
		return c.Decode(src)
	case c != Zstd:
		return c.DecodeAlone(src)
	}
	return newSequence(1, func(q *sequence) error {
		head := make([]byte, zstd.HeaderMaxSize)
		n, err := io.ReadFull(src, head)
		if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		window := max(freeWindow, min(windowOf(head[:n]), zstdMostWindow))
		if window > freeWindow {
			release, err := take(window)
			if err != nil {
				return err
			}
			defer release()
		}
		return q.decode(io.MultiReader(bytes.NewReader(head[:n]), src), zstdFrames(window))
	})
}

// windowOf returns how far back the first frame of a stream refers; 0 where that is not
// known, and the decoder is to say why.
func windowOf(head []byte) int64 {
	var h zstd.Header
	if h.Decode(head) != nil {
		return 0
	}
	return reach(&h)
}

// reach returns how far back a frame refers, if that is no more than zstdMostWindow.
func reach(h *zstd.Header) int64 {
	window := h.WindowSize
	if h.SingleSegment {
		window = h.FrameContentSize
	}
	return int64(min(window, zstdMostWindow))
}
