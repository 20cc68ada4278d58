// Package chunk cuts layers so that a part of one can be read by itself, and so that what two releases of
// a layer have in common is found: it writes a layer as frames, with an index of its chunks at the end
// (docs/format.md, "The chunk index"), and reads such an index.
//
// An index proves nothing. Whoever puts a layer together by one verifies the whole.
package chunk

import (
	"errors"
	"iter"
	"sort"

	"github.com/dogestry/dogestry/internal/codec"
)

// Index says what a stored layer is made of. It is read only, and safe for concurrent use.
//
// The tar is literals and contents by turns (Spans): what is between the contents of its files, and these.
// All contents, one after the other, are the content stream, which Chunks cut. All literals, one after the
// other, are cut in Blocks. The tar itself is cut in Frames, which hold whole chunks.
type Index struct {
	Codec  codec.Codec
	Size   int64 // bytes of the tar
	Stored int64 // bytes of all frames, as stored: the first ones of the file

	Frames []Frame
	Chunks []Chunk
	Spans  []Span
	Blocks []Block

	// Payload is how many bytes the index has in the file, headers included.
	Payload int64
}

// Frame is a piece of the tar that can be decoded by itself.
type Frame struct {
	Tar, At      int64 // where it begins, in the tar and in the file
	Size, Stored int32 // bytes in the tar, and in the file
}

// Chunk is a piece of the content stream.
type Chunk struct {
	Sum Sum
	At  int64 // where it begins in the content stream
	// Size is in bytes.
	Size int32
}

// Identity is what makes chunks of two layers equal.
type Identity struct {
	Sum  Sum
	Size int32
}

// Identity returns that of the chunk.
func (c Chunk) Identity() Identity { return Identity{c.Sum, c.Size} }

// Span is literal bytes, and content bytes behind them.
type Span struct {
	Tar, LiteralAt, ContentAt int64 // where it begins: in the tar, among all literals, in the content stream
	Literal, Content          int64 // bytes
}

// Block is a piece of the literals.
type Block struct {
	LiteralAt int64 // where it begins among all literals
	Size      int64 // bytes

	// Stored is how many bytes it has in the index, At where they are, from the beginning of the index's
	// payload. Zero: it is not there, and its bytes come out of the frames.
	At, Stored int64
}

// ErrNone says that a file has no index, or none that this version reads.
var ErrNone = errors.New("there is no chunk index")

// Range is some bytes of a tar.
type Range struct{ Tar, Size int64 }

// End is where it ends.
func (r Range) End() int64 { return r.Tar + r.Size }

// Content yields the ranges of the tar that hold n bytes of the content stream from at on, in order.
func (x *Index) Content(at, n int64) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		i := sort.Search(len(x.Spans), func(i int) bool { return x.Spans[i].ContentAt+x.Spans[i].Content > at })
		for ; n > 0 && i < len(x.Spans); i++ {
			s := x.Spans[i]
			off := at - s.ContentAt
			size := min(n, s.Content-off)
			if size > 0 && !yield(Range{s.Tar + s.Literal + off, size}) {
				return
			}
			at, n = at+size, n-size
		}
	}
}

// Literals is Content of the literals.
func (x *Index) Literals(at, n int64) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		i := sort.Search(len(x.Spans), func(i int) bool { return x.Spans[i].LiteralAt+x.Spans[i].Literal > at })
		for ; n > 0 && i < len(x.Spans); i++ {
			s := x.Spans[i]
			off := at - s.LiteralAt
			size := min(n, s.Literal-off)
			if size > 0 && !yield(Range{s.Tar + off, size}) {
				return
			}
			at, n = at+size, n-size
		}
	}
}

// FramesOf returns the frames that hold a range: those from first on, before end. The range is not empty.
func (x *Index) FramesOf(r Range) (first, end int) {
	first = sort.Search(len(x.Frames), func(i int) bool { return x.Frames[i].Tar+int64(x.Frames[i].Size) > r.Tar })
	end = sort.Search(len(x.Frames), func(i int) bool { return x.Frames[i].Tar >= r.End() })
	return first, end
}

// FrameOf returns the frame that holds a chunk: each chunk is in one.
func (x *Index) FrameOf(c Chunk) int {
	for r := range x.Content(c.At, int64(c.Size)) {
		first, _ := x.FramesOf(r)
		return first
	}
	return 0
}

// frameSlack is how many bytes a frame may have in the file more than in the tar: who wants one holds all of it.
const frameSlack = 64 << 10

// place fills in where everything begins, and reports whether all of it fits: then the index is whole.
func (x *Index) place() bool {
	var tar, at int64
	for i := range x.Frames {
		f := &x.Frames[i]
		f.Tar, f.At = tar, at
		if f.Size <= 0 || f.Stored <= 0 || f.Size > frameMost || f.Stored > f.Size+frameSlack {
			return false
		}
		tar, at = tar+int64(f.Size), at+int64(f.Stored)
	}
	if tar != x.Size || at != x.Stored {
		return false
	}
	var content, literal int64
	tar = 0
	for i := range x.Spans {
		s := &x.Spans[i]
		s.Tar, s.LiteralAt, s.ContentAt = tar, literal, content
		if s.Literal < 0 || s.Content < 0 || s.Literal > x.Size-tar || s.Content > x.Size-tar-s.Literal {
			return false
		}
		if s.Literal == 0 && i > 0 || s.Content == 0 && (s.Literal == 0 || i < len(x.Spans)-1) {
			return false // two that are one
		}
		tar, literal, content = tar+s.Literal+s.Content, literal+s.Literal, content+s.Content
	}
	if tar != x.Size {
		return false
	}
	var chunks int64
	for i := range x.Chunks {
		c := &x.Chunks[i]
		c.At = chunks
		if c.Size <= 0 || c.Size > chunkMost {
			return false
		}
		chunks += int64(c.Size)
	}
	if chunks != content || !x.chunksInFrames() {
		return false
	}
	var blocks, payload int64
	for i := range x.Blocks {
		b := &x.Blocks[i]
		b.LiteralAt, b.At = blocks, payload
		if b.Size <= 0 || b.Size > blockMost || b.Stored < 0 || b.Stored > x.Payload {
			return false
		}
		blocks, payload = blocks+b.Size, payload+b.Stored
	}
	return blocks == literal && payload <= x.Payload
}

// chunksInFrames reports whether no frame ends within a chunk.
func (x *Index) chunksInFrames() bool {
	span, frame := 0, 0
	for _, c := range x.Chunks {
		for span < len(x.Spans) && x.Spans[span].ContentAt+x.Spans[span].Content <= c.At {
			span++
		}
		first := x.Spans[span]
		from := first.Tar + first.Literal + c.At - first.ContentAt
		end := c.At + int64(c.Size)
		last := span
		for x.Spans[last].ContentAt+x.Spans[last].Content < end {
			last++
		}
		to := x.Spans[last].Tar + x.Spans[last].Literal + end - x.Spans[last].ContentAt
		for frame < len(x.Frames) && x.Frames[frame].Tar+int64(x.Frames[frame].Size) <= from {
			frame++
		}
		if f := x.Frames[frame]; to > f.Tar+int64(f.Size) {
			return false
		}
		span = last
	}
	return true
}
