package chunk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/dogestry/dogestry/internal/codec"
)

// Reader reads n bytes of a stored layer from offset on; what there is, where the object ends before. The
// caller closes it.
type Reader func(ctx context.Context, offset, n int64) (io.ReadCloser, error)

// Read reads the index of a layer that is stored in so many bytes, by one small read from its end, or two. It
// fails with ErrNone where there is none, and with ErrDamaged where what is there does not fit together.
func Read(ctx context.Context, open Reader, stored int64) (*Index, error) {
	if stored < footerSize {
		return nil, ErrNone
	}
	guess := min(stored, max(16<<10, min(stored/512, 1<<20)))
	tail, err := readPart(ctx, open, stored-guess, guess)
	if err != nil {
		return nil, err
	}
	f, err := parseFooter(tail, stored)
	if err != nil {
		return nil, err
	}
	need := f.table + footerSize
	if need > int64(len(tail)) {
		more, err := readPart(ctx, open, stored-need, need-int64(len(tail)))
		if err != nil {
			return nil, err
		}
		tail = append(more, tail...)
	}
	return parse(tail[int64(len(tail))-need:int64(len(tail))-footerSize], f)
}

// ErrDamaged says that an index does not fit together. The layer may be whole all the same.
var ErrDamaged = errors.New("the chunk index is damaged")

func readPart(ctx context.Context, open Reader, offset, n int64) ([]byte, error) {
	r, err := open(ctx, offset, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: %w", ErrNone, err) // it has another size than was said
		}
		return nil, err
	}
	return b, nil
}

// footer is what stands at the end of an index.
type footer struct {
	codec           codec.Codec
	table, tableRaw int64 // bytes of the table, in the file and decoded
	payload         int64 // bytes of the skippable frame, its header left out
	frames          int64 // bytes of the file before the index
}

// parseFooter reads the end of a file of stored bytes.
func parseFooter(tail []byte, stored int64) (footer, error) {
	if len(tail) < footerSize {
		return footer{}, ErrNone
	}
	b := tail[len(tail)-footerSize:]
	if string(b[:len(footerMagic)]) != footerMagic || b[8] != footerVersion {
		return footer{}, ErrNone
	}
	f := footer{
		table:    int64(binary.LittleEndian.Uint32(b[16:])),
		tableRaw: int64(binary.LittleEndian.Uint32(b[20:])),
		payload:  int64(binary.LittleEndian.Uint32(b[24:])),
	}
	known := false
	for c, n := range codecs {
		if n == b[9] {
			f.codec, known = c, true
		}
	}
	f.frames = stored - f.payload - codec.SkippableHeader
	if !known || f.payload > payloadMost || f.tableRaw > payloadMost || f.table > f.payload-footerSize || f.frames <= 0 {
		return footer{}, ErrDamaged
	}
	return f, nil
}

// parse reads a table.
func parse(table []byte, f footer) (*Index, error) {
	raw, err := inflate(table, f.tableRaw)
	if err != nil {
		return nil, err
	}
	x := &Index{Codec: f.codec, Payload: f.payload - f.table - footerSize}
	t := columns{raw: raw}
	x.Size, x.Stored = t.int(), t.int()
	frames, chunks, spans, blocks := t.count(), t.count(), t.count(), t.count()
	if t.bad || x.Stored != f.frames || frames+chunks+spans+blocks > rowsMost {
		return nil, ErrDamaged
	}
	x.Frames, x.Chunks, x.Spans, x.Blocks = make([]Frame, frames), make([]Chunk, chunks), make([]Span, spans), make([]Block, blocks)
	for i := range x.Frames {
		x.Frames[i] = Frame{Size: t.int32(), Stored: t.int32()}
	}
	for i := range x.Chunks {
		x.Chunks[i].Size = t.int32()
	}
	for i := range x.Spans {
		x.Spans[i] = Span{Literal: t.int(), Content: t.int()}
	}
	for i := range x.Blocks {
		x.Blocks[i] = Block{Size: t.int(), Stored: t.int()}
	}
	for i := range x.Chunks {
		t.sum(&x.Chunks[i].Sum)
	}
	if t.bad || len(t.raw) > 0 || !x.place() {
		return nil, ErrDamaged
	}
	x.Payload = f.payload + codec.SkippableHeader
	return x, nil
}

// columns reads a table. Once something is wrong all is zero.
type columns struct {
	raw []byte
	bad bool
}

func (t *columns) int() int64 {
	n, k := binary.Uvarint(t.raw)
	if k <= 0 || n >= 1<<62 {
		t.bad, t.raw = true, nil
		return 0
	}
	t.raw = t.raw[k:]
	return int64(n)
}

func (t *columns) int32() int32 {
	n := t.int()
	if n > 1<<30 {
		t.bad = true
		return 0
	}
	return int32(n)
}

// count reads how many rows there are, of two bytes or more.
func (t *columns) count() int64 {
	n := t.int()
	if n > int64(len(t.raw))/2 {
		t.bad = true
		return 0
	}
	return n
}

func (t *columns) sum(s *Sum) {
	if len(t.raw) < len(s) {
		t.bad, t.raw = true, nil
		return
	}
	t.raw = t.raw[copy(s[:], t.raw):]
}

// inflateMost is how much a zstd frame of an index may refer back to, in bytes, and decode to, unless more is said.
const inflateMost = 8 << 20

// inflate decodes what is to be size bytes, which is bounded.
func inflate(b []byte, size int64) ([]byte, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(max(size, inflateMost))), zstd.WithDecoderMaxWindow(inflateMost))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	raw, err := z.DecodeAll(b, nil)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	case int64(len(raw)) != size:
		return nil, fmt.Errorf("%w: %d bytes of it are to be %d", ErrDamaged, len(raw), size)
	}
	return raw, nil
}

// ReadBlocks returns the literals of the index as they are stored, all that are there: blocks look theirs up in it.
func (x *Index) ReadBlocks(ctx context.Context, open Reader) ([]byte, error) {
	var n int64
	for _, b := range x.Blocks {
		n += b.Stored
	}
	if n == 0 {
		return nil, nil
	}
	return readPart(ctx, open, x.Stored+codec.SkippableHeader, n)
}

// Block decodes a block out of what ReadBlocks returned. It has to be one that is stored.
func (x *Index) Block(stored []byte, b Block) ([]byte, error) {
	if b.At+b.Stored > int64(len(stored)) {
		return nil, ErrDamaged
	}
	return inflate(stored[b.At:b.At+b.Stored], b.Size)
}
