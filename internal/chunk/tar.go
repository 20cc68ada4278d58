package chunk

import (
	"bytes"
	"math"
	"strconv"
)

// A tar as the splitter sees it (POSIX.1-2017 pax, "ustar Interchange Format", and what GNU tar
// does besides). It need not understand more than where the contents of files are: whatever it
// takes for content or not, the tar can be put together again.

// blockSize is what a tar is made of, in bytes.
const blockSize = 512

// What follows a header.
type entry struct {
	literal int64 // bytes that say more about the entry, and are no content
	content int64 // bytes of a file; they come behind the literal ones
	padding int64 // bytes behind both, up to the next block
	records bool  // the literal bytes may say how large the next file is
	extends bool  // a block follows that goes on with the header (old GNU sparse files)
}

// The fields of a header that matter.
const (
	sizeField     = 124 // 12 bytes
	checksumField = 148 // 8 bytes
	typeField     = 156
	extendedField = 482 // of an old GNU sparse header: it goes on in the next block
	extendedAgain = 504 // the same of such a block
)

// sizeMost is more than the largest size of anything in a tar.
const sizeMost = math.MaxInt64 + 1 - blockSize

// parseHeader tells what follows a header. ok is false where it is none. Where an extended header
// before it has said how large the file is, that is known; else it is -1.
func parseHeader(h []byte, known int64) (e entry, ok bool) {
	sum, ok := parseNumber(h[checksumField : checksumField+8])
	if !ok || sum != checksum(h) {
		return entry{}, false
	}
	size, ok := parseNumber(h[sizeField : sizeField+12])
	if !ok || size >= sizeMost {
		return entry{}, false
	}
	switch h[typeField] {
	case 'x', 'g', 'X', 'L', 'K': // about the next entries
		e.literal, e.records = size, h[typeField] == 'x' || h[typeField] == 'X'
	case '1', '2', '3', '4', '5', '6': // links, devices, directories, FIFOs: nothing follows, whatever size says
		return entry{}, true
	case 'S':
		e.extends = h[extendedField] != 0
		e.content = size
	default:
		e.content = size
		if known >= 0 {
			e.content = known
		}
	}
	e.padding = -(e.literal + e.content) & (blockSize - 1)
	return e, true
}

func checksum(h []byte) (sum int64) {
	for i, b := range h[:blockSize] {
		if i >= checksumField && i < checksumField+8 {
			b = ' '
		}
		sum += int64(b)
	}
	return sum
}

// parseNumber reads octal digits, or the base 256 of GNU tar. ok is false for what is neither, or
// below zero.
func parseNumber(field []byte) (n int64, ok bool) {
	if field[0]&0x80 != 0 {
		if field[0] != 0x80 {
			return 0, false // below zero, or beyond int64
		}
		for _, b := range field[1:] {
			if n > math.MaxInt64>>8 {
				return 0, false
			}
			n = n<<8 | int64(b)
		}
		return n, true
	}
	digits := bytes.Trim(field, " \x00")
	if len(digits) == 0 {
		return 0, true
	}
	u, err := strconv.ParseUint(string(digits), 8, 63)
	return int64(u), err == nil
}

// parseSize returns the size that the records of an extended header give the next file, -1 where they
// give none.
func parseSize(records []byte) int64 {
	size := int64(-1)
	for len(records) > 0 {
		digits, rest, ok := bytes.Cut(records, []byte(" "))
		n, err := strconv.ParseUint(string(digits), 10, 31)
		if !ok || err != nil || n <= uint64(len(digits)+1) || n > uint64(len(records)) {
			return size
		}
		record, ok := bytes.CutSuffix(rest[:int(n)-len(digits)-1], []byte("\n"))
		key, value, pair := bytes.Cut(record, []byte("="))
		if !ok || !pair {
			return size
		}
		records = records[n:]
		if string(key) == "size" {
			if u, err := strconv.ParseUint(string(value), 10, 63); err == nil && u < sizeMost {
				size = int64(u)
			}
		}
	}
	return size
}
