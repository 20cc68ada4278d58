package codec

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

// What frames may be that are decoded apart from one another. They take that much memory
// for each core. What we write is less; other frames are decoded one after another.
const (
	mostApart       = blockSize + 64<<10 // bytes stored
	mostApartBlocks = 32                 // of zstd, 128 KiB or less; we write 64 KiB
	mostApartWindow = 1 << 20            // how far back a zstd frame refers, in bytes
	leastFrame      = 8                  // bytes that a frame has at least: a skippable one, and empty
)

// skippableExtent returns the extent of a skippable frame, which lz4 and zstd share.
func skippableExtent(b []byte) (n int, ok bool) {
	_, size, ok := ParseSkippable(b)
	return leastFrame + int(min(size, mostApart)), ok
}

// lz4Extent returns the extent of a frame of one block of 1 MiB or less, without a
// dictionary. It looks at nothing that changes no lengths.
func lz4Extent(b []byte) int {
	if len(b) < leastFrame {
		return leastFrame
	}
	if n, ok := skippableExtent(b); ok {
		return n
	}
	const versionAndIndependent, sum, size, sumOfAll, dictionary = 0x60, 0x10, 0x08, 0x04, 0x01
	flags, most := b[4], b[5]>>4&7
	if binary.LittleEndian.Uint32(b) != 0x184D2204 || flags&(0xe0|dictionary) != versionAndIndependent || most > 6 {
		return 0
	}
	n := len(lz4Header)
	if flags&size != 0 {
		n += 8
	}
	for blocks := 0; ; blocks++ {
		if len(b) < n+4 {
			return n + 4
		}
		switch block := binary.LittleEndian.Uint32(b[n:]); {
		case block == 0 && flags&sumOfAll != 0:
			return n + 8
		case block == 0:
			return n + 4
		case blocks == 1:
			return 0
		default:
			n += 4 + int(min(block&^lz4Unpacked, mostApart))
		}
		if flags&sum != 0 {
			n += 4
		}
	}
}

// zstdExtent returns the extent of a frame that refers no further back than
// mostApartWindow, without a dictionary.
func zstdExtent(b []byte) int {
	if len(b) < leastFrame {
		return leastFrame
	}
	if n, ok := skippableExtent(b); ok {
		return n
	}
	var h zstd.Header
	if err := h.Decode(b); errors.Is(err, io.ErrUnexpectedEOF) {
		return len(b) + 1
	} else if err != nil || h.DictionaryID != 0 || reach(&h) > mostApartWindow {
		return 0
	}
	const last, raw, run, packed = 1, 0, 1, 2
	n := h.HeaderSize
	for range mostApartBlocks {
		if len(b) < n+3 {
			return n + 3
		}
		block := int(b[n]) | int(b[n+1])<<8 | int(b[n+2])<<16
		switch n += 3; block >> 1 & 3 {
		case raw, packed:
			n += block >> 3
		case run:
			n++
		default:
			return 0
		}
		if block&last != 0 {
			if h.HasCheckSum {
				n += 4
			}
			return n
		}
	}
	return 0
}
