package chunk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/xxh3"
	"pgregory.net/rapid"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/enginetest"
)

// What follows is written after docs/format.md, "The chunk index", and uses nothing of the package: a byte at a time, the
// whole tar in memory. What the two do not agree on, text or code has wrong.

// described is a tar as the text has it.
type described struct {
	kind   []byte // of each byte: 'l' literal, 'c' content
	run    []int  // of each byte of content: the number of its run
	chunks []int  // bytes of content
}

// number reads a field of a header.
func number(field []byte) (*big.Int, bool) {
	if field[0] == 0x80 {
		return new(big.Int).SetBytes(field[1:]), true
	}
	digits := strings.Trim(string(field), " \x00")
	if digits == "" {
		return new(big.Int), true
	}
	for _, d := range digits {
		if d < '0' || d > '7' {
			return nil, false
		}
	}
	return new(big.Int).SetString(digits, 8)
}

// most is 2^63 - 512: sizes are less.
var most = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 63), big.NewInt(512))

// sizeOf is what the block is as a header: its size, and whether it is one.
func sizeOf(block []byte) (int64, bool) {
	var sum int64
	for i, b := range block {
		if i >= 148 && i <= 155 {
			b = ' '
		}
		sum += int64(b)
	}
	if n, ok := number(block[148:156]); !ok || n.Cmp(big.NewInt(sum)) != 0 {
		return 0, false
	}
	n, ok := number(block[124:136])
	if !ok || n.Cmp(most) >= 0 {
		return 0, false
	}
	return n.Int64(), true
}

// told is the size that an extended header tells, -1 for none.
func told(literals []byte) int64 {
	size := int64(-1)
	if len(literals) > 64<<10 {
		return size
	}
	for len(literals) > 0 {
		space := bytes.IndexByte(literals, ' ')
		if space < 1 || strings.Trim(string(literals[:space]), "0123456789") != "" {
			break
		}
		n, err := strconv.Atoi(string(literals[:space]))
		if err != nil || n < space+2 || n > len(literals) || literals[n-1] != '\n' || !bytes.Contains(literals[space:n], []byte("=")) {
			break
		}
		if value, ok := strings.CutPrefix(string(literals[space+1:n-1]), "size="); ok && value != "" && strings.Trim(value, "0123456789") == "" {
			if v, _ := new(big.Int).SetString(value, 10); v.Cmp(most) < 0 {
				size = v.Int64()
			}
		}
		literals = literals[n:]
	}
	return size
}

func describe(tar []byte) *described {
	d := &described{kind: make([]byte, len(tar)), run: make([]int, len(tar))}
	at, run := 0, 0
	mark := func(kind byte, n int64) {
		for ; n > 0 && at < len(tar); n-- {
			d.kind[at], d.run[at] = kind, run
			at++
		}
	}
	pad := func() {
		for at%512 != 0 && at < len(tar) {
			mark('l', 1)
		}
	}
	known := int64(-1)
	for at < len(tar) {
		if len(tar)-at < 512 {
			mark('l', 512)
			break
		}
		block := tar[at : at+512]
		if bytes.Count(block, []byte{0}) == 512 {
			mark('l', 512)
			continue
		}
		size, ok := sizeOf(block)
		if !ok {
			run++
			mark('c', int64(len(tar)))
			break
		}
		mark('l', 512)
		switch kind := block[156]; kind {
		case 'x', 'X', 'g', 'L', 'K':
			if kind == 'x' || kind == 'X' || size == 0 {
				known = -1
			}
			from := at
			mark('l', size)
			if (kind == 'x' || kind == 'X') && int64(at-from) == size {
				known = told(tar[from:at])
			}
		case '1', '2', '3', '4', '5', '6':
			known = -1
		default:
			if kind == 'S' {
				for more := block[482] != 0; more; {
					more = at+504 < len(tar) && tar[at+504] != 0
					mark('l', 512)
				}
			} else if known >= 0 {
				size = known
			}
			known = -1
			if size >= 8192 {
				run++
			}
			mark('c', size)
			if size >= 8192 {
				run++
			}
		}
		pad()
	}
	d.cut(tar)
	return d
}

// cut cuts the content in chunks.
func (d *described) cut(tar []byte) {
	n, first, run := 0, 0, 0
	var last []byte
	end := func() {
		if n > 0 {
			d.chunks = append(d.chunks, n)
		}
		n, last = 0, nil
	}
	for at, kind := range d.kind {
		if kind != 'c' {
			continue
		}
		if n > 0 && (d.run[at] != run || at-first >= 524288) {
			end()
		}
		if n == 0 {
			first, run = at, d.run[at]
		}
		n, last = n+1, append(last, tar[at])
		if n > 32768 && binary.LittleEndian.Uint64(last[n-8:])*0x9e3779b97f4a7c15>>49 == 0x7fff {
			end()
		}
		if n == 262144 {
			end()
		}
	}
	end()
}

// tabled is a file as its own index has it.
type tabled struct {
	size, stored          int
	frames, spans, blocks [][2]int
	chunks                []int
	sums                  [][]byte
	payload               []byte
	literals, framesRaw   []byte
}

// readFile reads a file as the text has it. It returns nil where there is no index.
func readFile(b []byte, c codec.Codec) (*tabled, error) {
	if len(b) < 40 || string(b[len(b)-32:][:9]) != "dogindex\x01" {
		return nil, nil
	}
	footer := b[len(b)-32:]
	table, decoded, all := int(binary.LittleEndian.Uint32(footer[16:])), int(binary.LittleEndian.Uint32(footer[20:])), int(binary.LittleEndian.Uint32(footer[24:]))
	if want := map[codec.Codec]byte{codec.LZ4: 1, codec.Zstd: 2}[c]; footer[9] != want || !bytes.Equal(footer[10:16], make([]byte, 6)) || !bytes.Equal(footer[28:], make([]byte, 4)) || all > 64<<20 {
		return nil, fmt.Errorf("footer %x", footer)
	}
	start := len(b) - all - 8
	if got := b[start : start+8]; binary.LittleEndian.Uint32(got) != 0x184D2A5D || int(binary.LittleEndian.Uint32(got[4:])) != all {
		return nil, fmt.Errorf("the skippable frame begins with %x", got)
	}
	x := &tabled{payload: b[start+8 : len(b)-32-table]}
	z, err := zstd.NewReader(nil, zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	raw, err := z.DecodeAll(b[len(b)-32-table:len(b)-32], nil)
	if err != nil || len(raw) != decoded {
		return nil, fmt.Errorf("a table of %d bytes, %w", len(raw), err)
	}
	next := func() int {
		v, n := binary.Uvarint(raw)
		if n <= 0 || v >= 1<<62 {
			panic("not a number")
		}
		raw = raw[n:]
		return int(v)
	}
	pairs := func(n int) (p [][2]int) {
		for range n {
			p = append(p, [2]int{next(), next()})
		}
		return p
	}
	x.size, x.stored = next(), next()
	frames, chunks, spans, blocks := next(), next(), next(), next()
	x.frames = pairs(frames)
	for range chunks {
		x.chunks = append(x.chunks, next())
	}
	x.spans, x.blocks = pairs(spans), pairs(blocks)
	for range chunks {
		x.sums, raw = append(x.sums, raw[:16]), raw[16:]
	}
	if len(raw) > 0 || x.stored != start {
		return nil, fmt.Errorf("%d bytes behind the table, %d of %d bytes of frames", len(raw), x.stored, start)
	}
	for _, f := range x.frames { // each is decoded by itself
		r := c.Decode(bytes.NewReader(b[:f[1]]))
		one, err := io.ReadAll(r)
		r.Close()
		if err != nil || len(one) != f[0] || f[0] > 1<<20 {
			return nil, fmt.Errorf("a frame of %d bytes, not %d: %w", len(one), f[0], err)
		}
		x.framesRaw, b = append(x.framesRaw, one...), b[f[1]:]
	}
	payload := x.payload
	for _, l := range x.blocks {
		if l[1] == 0 {
			x.literals = append(x.literals, make([]byte, l[0])...)
			continue
		}
		one, err := z.DecodeAll(payload[:l[1]], nil)
		if err != nil || len(one) != l[0] {
			return nil, fmt.Errorf("a literal block of %d bytes, not %d: %w", len(one), l[0], err)
		}
		x.literals, payload = append(x.literals, one...), payload[l[1]:]
	}
	return x, nil
}

// agree proves that a file which the package makes of a tar is what the text says.
func agree(t rapid.TB, tar []byte, c codec.Codec, target int) error {
	x, err := readFile(encodeAll(t, c, bytes.NewReader(tar), target), c)
	if err != nil || x == nil && len(tar) == 0 {
		return err
	}
	if !bytes.Equal(x.framesRaw, tar) || x.size != len(tar) {
		return errors.New("the frames are another tar")
	}
	d := describe(tar)
	if !slices.Equal(x.chunks, d.chunks) {
		return fmt.Errorf("chunks of %d bytes, by the text %d", x.chunks, d.chunks)
	}
	var content, literals []byte
	at, place, lens := 0, 0, len(x.literals)
	for _, s := range x.spans {
		for i, kind := range []byte{'l', 'c'} {
			for range s[i] {
				if d.kind[at] != kind {
					return fmt.Errorf("at %d the text has %c", at, d.kind[at])
				}
				if at++; kind == 'c' {
					content = append(content, tar[at-1])
				} else {
					literals = append(literals, tar[at-1])
				}
			}
		}
	}
	if at != len(tar) || len(literals) != lens {
		return fmt.Errorf("the spans have %d bytes of %d, %d of them literals and in blocks %d", at, len(tar), len(literals), lens)
	}
	for i, n := range x.chunks {
		sum := xxh3.Hash128(content[place : place+n])
		if place += n; !bytes.Equal(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, sum.Hi), sum.Lo), x.sums[i]) {
			return fmt.Errorf("chunk %d has another sum", i)
		}
	}
	for _, l := range x.blocks {
		if l[1] > 0 && !bytes.Equal(literals[:l[0]], x.literals[:l[0]]) {
			return errors.New("a literal block has something else")
		}
		literals, x.literals = literals[l[0]:], x.literals[l[0]:]
	}
	return nil
}

// TestAsDescribed: what is written is what docs/format.md says, of real releases and of tars that careless code breaks.
func TestAsDescribed(t *testing.T) {
	atOnce := contentEnding(chunkLeast + 1)
	cases := map[string][]byte{"version one": tarOfVersionOne(), "cut at once": entryOf('0', octal(len(atOnce)), atOnce)}
	for _, p := range enginetest.SmallPairs() {
		_, second := p.For(t)
		b := second.Bytes()
		cases[string(p)] = b[:min(len(b), 1<<20)]
	}
	for _, i := range append(enginetest.Trouble(), enginetest.TroubleImage{Name: "old sparse", Image: enginetest.OldSparse()}) {
		for j, l := range i.Layers()[:min(3, len(i.Layers()))] {
			b := l.Bytes()
			cases[fmt.Sprint(i.Name, " ", j)] = b[:min(len(b), 1<<20)]
		}
	}
	for name, tar := range cases {
		for _, c := range codecsWithFrames {
			if err := agree(t, tar, c, targets[c]); err != nil {
				t.Errorf("%s, %v: %v", name, c, err)
			}
		}
	}
}

// TestOddAsDescribed: the same of what may stand in a tar, and what may not, in any order.
func TestOddAsDescribed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tar []byte
		for i := range rapid.IntRange(1, 10).Draw(t, "entries") {
			size := rapid.SampledFrom([]int{0, 1, 511, 512, 3000, 8191, 8192, 20_000, 70_000, 300_000}).Draw(t, "size")
			kind := rapid.SampledFrom([]byte("00000\x0000577xxXgLKS1256Vz")).Draw(t, "kind")
			field := rapid.SampledFrom([]string{octal(size), strings.TrimLeft(octal(size), "0"), "  " + octal(size)[2:] + "\x00", "\x80" + string(binary.BigEndian.AppendUint64([]byte{0, 0, 0}, uint64(size)))}).Draw(t, "field")
			content := noise(uint64(i%5), size)
			switch kind {
			case 'x', 'X':
				content = []byte(rapid.SampledFrom([]string{
					"", "15 size=009000\n", "13 size=9000\n", "12 size=900\n", "13 size=9000\n12 size=900\n", "6 a=b\n13 size=9000\n", "5 ab\n13 size=9000\n", "3 \n13 size=9000\n", "2 13 size=9000\n",
					"13 size=9000 12 size=900\n", "13 Size=9000\n", "14 size=+9000\n", "14 size=0x900\n", "8 size=\n", "13 size=9000\n99 size=3\n", "013 size=900\n", "28 size=9223372036854775807\n",
				}).Draw(t, "records"))
				field = octal(len(content))
			case '1', '2', '5', '6':
				content = nil // whatever the field says
			}
			e := entryOf(kind, field, content)
			if kind == 'S' {
				more := rapid.IntRange(0, 3).Draw(t, "more")
				blocks := make([]byte, more*blockSize)
				for j := range more - 1 {
					blocks[j*blockSize+extendedAgain] = 1
				}
				if more > 0 {
					e[extendedField] = 1
				}
				copy(e[checksumField:], fmt.Sprintf("%06o\x00 ", checksum(e)))
				e = slices.Concat(e[:blockSize], blocks, e[blockSize:])
			}
			tar = append(tar, e...)
			if rapid.IntRange(0, 9).Draw(t, "zeros") == 0 {
				tar = append(tar, make([]byte, blockSize)...)
			}
		}
		tar = tar[:len(tar)-min(len(tar), rapid.SampledFrom([]int{0, 0, 1, 511, 700}).Draw(t, "cut"))]
		if err := agree(t, tar, codec.LZ4, 64<<10); err != nil {
			t.Error(err)
		}
	})
}
