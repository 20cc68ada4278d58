package verify

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sort"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/remote"
)

// indexed is a layer as it is stored, with a chunk index. The index says where to look; what it
// says is believed by nobody.
type indexed struct {
	*chunk.Index
	open chunk.Reader // of the stored layer
	literals
}

// errUnfit says that an index is of another layer than its file.
var errUnfit = errors.New("the chunk index is of another layer")

// openIndexed reads the index of a layer. Its error says that there is none to go by: then it is
// errors.ErrUnsupported, chunk.ErrNone, chunk.ErrDamaged or errUnfit, or that it could not be read.
func openIndexed(ctx context.Context, from remote.Source, l remote.Layer) (*indexed, error) {
	parts, ok := from.(remote.Parts)
	if !ok || l.Stored <= 0 {
		return nil, errors.ErrUnsupported
	}
	open := partsOf(parts, l)
	x, err := chunk.Read(ctx, open, l.Stored)
	if err != nil {
		return nil, err
	}
	if l.Size >= 0 && x.Size != l.Size {
		return nil, errUnfit
	}
	return &indexed{Index: x, open: open, literals: literals{block: -1}}, nil
}

// partsOf reads a layer as it is stored.
func partsOf(from remote.Parts, l remote.Layer) chunk.Reader {
	return func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
		return from.OpenPart(ctx, l, offset, n)
	}
}

// literals are those of an index, the block that was asked for last decoded.
type literals struct {
	stored []byte // all of them; nil before readLiterals
	block  int    // -1: none
	raw    []byte // that block; nil where it is not in the index, or damaged
}

// readLiterals reads what proves the literals of the layer. Where that fails, nothing does.
func (x *indexed) readLiterals(ctx context.Context) (err error) {
	x.stored, err = x.ReadBlocks(ctx, x.open)
	return err
}

// blockAt returns the literals of a block, nil where they are not known.
func (x *indexed) blockAt(i int) []byte {
	if i != x.block {
		x.block, x.raw = i, nil
		if b := x.Blocks[i]; b.Stored > 0 {
			x.raw, _ = x.Block(x.stored, b)
		}
	}
	return x.raw
}

// wrong returns which ranges of frame i, which was decoded to raw, are not what the index says.
func (x *indexed) wrong(i int, raw []byte) (wrong []chunk.Range) {
	f := x.Frames[i]
	literal, content := x.before(f.Tar)
	literalEnd, contentEnd := x.before(f.Tar + int64(f.Size))
	first := sort.Search(len(x.Chunks), func(i int) bool { return x.Chunks[i].At >= content })
	var hash chunk.Hash
	for _, c := range x.Chunks[first:] {
		if c.At >= contentEnd {
			break
		}
		for r := range x.Content(c.At, int64(c.Size)) {
			hash.Write(raw[r.Tar-f.Tar : r.End()-f.Tar])
		}
		if hash.Sum() != c.Sum {
			for r := range x.Content(c.At, int64(c.Size)) {
				wrong = append(wrong, r)
			}
		}
	}
	for r, known := range x.known(literal, literalEnd) {
		if !bytes.Equal(raw[r.Tar-f.Tar:r.End()-f.Tar], known) {
			wrong = append(wrong, r)
		}
	}
	sort.Slice(wrong, func(i, j int) bool { return wrong[i].Tar < wrong[j].Tar })
	return wrong
}

// known yields the literals from one on before another, where they are in the tar and what they
// are, as far as the index has them.
func (x *indexed) known(from, end int64) func(yield func(chunk.Range, []byte) bool) {
	return func(yield func(chunk.Range, []byte) bool) {
		i := sort.Search(len(x.Blocks), func(i int) bool { return x.Blocks[i].LiteralAt+x.Blocks[i].Size > from })
		for ; i < len(x.Blocks) && x.Blocks[i].LiteralAt < end; i++ {
			b, known := x.Blocks[i], x.blockAt(i)
			if known == nil {
				continue
			}
			at := max(from, b.LiteralAt)
			known = known[at-b.LiteralAt:]
			for r := range x.Literals(at, min(end, b.LiteralAt+b.Size)-at) {
				if !yield(r, known[:r.Size]) {
					return
				}
				known = known[r.Size:]
			}
		}
	}
}

// before returns how many literals and how much content there are before a place of the tar.
func (x *indexed) before(tar int64) (literal, content int64) {
	i := sort.Search(len(x.Spans), func(i int) bool { return x.Spans[i].Tar > tar }) - 1
	if i < 0 {
		return 0, 0
	}
	s := x.Spans[i]
	n := tar - s.Tar
	return s.LiteralAt + min(n, s.Literal), s.ContentAt + min(max(0, n-s.Literal), s.Content)
}

// frameReader reads frames one after the other.
type frameReader struct {
	*indexed
	next   int // the frame that is read next
	body   io.ReadCloser
	packed []byte
	raw    []byte
}

// read decodes the frame that is next into memory that is used again. ok is false where it does
// not decode; the error says that it cannot be read.
func (r *frameReader) read() (raw []byte, ok bool, err error) {
	f := r.Frames[r.next]
	r.next++
	if cap(r.packed) < int(f.Stored) {
		r.packed = make([]byte, f.Stored)
	}
	packed := r.packed[:f.Stored]
	if _, err := io.ReadFull(r.body, packed); err != nil {
		return nil, false, err
	}
	r.raw, err = r.Codec.AppendDecoded(r.raw[:0], packed, int(f.Size))
	if err != nil {
		r.raw = append(r.raw[:0], make([]byte, f.Size)...) // zeros
	}
	return r.raw, err == nil, nil
}

// headerIsRight reports whether what stands before the index is the header of its frame.
func (x *indexed) headerIsRight(ctx context.Context) bool {
	r, err := x.open(ctx, x.Stored, codec.SkippableHeader)
	if err != nil {
		return true // nobody knows
	}
	defer r.Close()
	var header [codec.SkippableHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return true
	}
	_, size, ok := codec.ParseSkippable(header[:])
	return ok && size == x.Payload-codec.SkippableHeader
}
