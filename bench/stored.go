package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// skippable begins the frame that has the index of a layer's file (docs/format.md). Its size follows, of four bytes.
var skippable = []byte{0x5d, 0x2a, 0x4d, 0x18}

// mostTail is how much of a file's end is searched for an index, in bytes.
const mostTail = 8 << 20

// What is here reads files piece by piece: what this process has had in memory at its most, the kernel counts
// for programs that it starts too.

// indexSize is how many bytes of a layer's file are its index and the frame around that: 0 where there is none.
func indexSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	tail := make([]byte, min(info.Size(), mostTail))
	if _, err := f.ReadAt(tail, info.Size()-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	const header = 8
	for at := len(tail) - header; at >= 0; at-- {
		at = bytes.LastIndex(tail[:at+len(skippable)], skippable)
		if at < 0 {
			break
		}
		if uint64(at)+header+uint64(binary.LittleEndian.Uint32(tail[at+len(skippable):])) == uint64(len(tail)) {
			return int64(len(tail) - at), nil
		}
	}
	return 0, nil
}

// What copies are made of, in bytes: parts of an upload to S3, and blocks of a file system.
const (
	leastPart = 5 << 20
	block     = 4 << 10
)

// piece is a part of a file, from where a frame seems to begin up to the next.
type piece struct {
	at, end int64
	sum     [sha256.Size]byte
}

// pieces cuts a file at whatever looks like the begin of a frame of lz4 or zstd, or of an index. That content may look so
// too does not matter: the same bytes are cut in the same way.
func pieces(path string) (all []piece, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 256<<10)
	sum := sha256.New()
	for p := (piece{}); ; {
		window, err := r.Peek(r.Size())
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		last := err != nil
		from := 0
		if p.end == p.at {
			from = 1 // it begins itself
		}
		n, found := frameBegin(window, from)
		if !found && !last {
			n = len(window) - 3 // one may begin in these
		}
		sum.Write(window[:n])
		p.end += int64(n)
		if _, err := r.Discard(n); err != nil {
			return nil, err
		}
		if found || last && p.end > p.at {
			sum.Sum(p.sum[:0])
			all = append(all, p)
			p = piece{at: p.end, end: p.end}
			sum.Reset()
		}
		if last && !found {
			return all, nil
		}
	}
}

// frameBegin is the first place, not before from, where a frame seems to begin; else the end.
func frameBegin(b []byte, from int) (at int, found bool) {
	for at := from; at+4 <= len(b); at++ {
		switch binary.LittleEndian.Uint32(b[at:]) {
		case 0x184D2204, 0xFD2FB528, 0x184D2A5D:
			return at, true
		}
	}
	return len(b), false
}

// copyable says how many bytes of a file are in runs of frames that an older one has too, how many of these
// in runs that are long enough for a part of an upload, and how many in whole blocks, at the begin of a block in both.
func copyable(older, newer string) (all, parts, blocks int64, err error) {
	had, err := pieces(older)
	if err != nil {
		return 0, 0, 0, err
	}
	is, err := pieces(newer)
	if err != nil {
		return 0, 0, 0, err
	}
	where := map[[sha256.Size]byte][]int{}
	for i, p := range had {
		where[p.sum] = append(where[p.sum], i)
	}
	for i := 0; i < len(is); {
		var best int // pieces of the longest run that begins here
		var from int64
		for _, j := range where[is[i].sum] {
			n := 0
			for i+n < len(is) && j+n < len(had) && is[i+n].sum == had[j+n].sum {
				n++
			}
			if n > best {
				best, from = n, had[j].at
			}
		}
		if best == 0 {
			i++
			continue
		}
		at, end := is[i].at, is[i+best-1].end
		all += end - at
		if end-at >= leastPart {
			parts += end - at
		}
		if (at-from)%block == 0 {
			blocks += max(0, end/block-(at+block-1)/block) * block
		}
		i += best
	}
	return all, parts, blocks, nil
}
