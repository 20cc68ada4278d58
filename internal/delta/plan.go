package delta

import (
	"iter"
	"sort"
	"time"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
)

const (
	// gapMost is how many bytes that nobody needs are read rather than asked around: so many come in the time
	// of a request.
	gapMost = 32 << 10
	// readMost bounds a read of frames, and literalsMost one of literal blocks, which are held while the frames
	// go by that they belong to.
	readMost     = 4 << 20
	literalsMost = 1 << 20
	// keptMost bounds the chunks that are kept because they come again further on.
	keptMost = 32 << 20

	// worthMost is the share of a layer from which on a plan is not worth its trouble.
	worthMost = 0.6
)

// Plan says where each piece of a layer comes from. It is read only, and safe for concurrent use.
type Plan struct {
	Fetch int64 // bytes of the stored layer to be read: frames, literal blocks, and gaps between them
	Local int64 // content bytes that local layers give
	Reads int   // how many reads Fetch is made of

	index    *chunk.Index
	locals   []Local
	sources  []source // of each chunk
	parts    []part   // of each frame
	frames   []read   // of frames that are fetched
	literals []read   // of literal blocks
}

// source is where a chunk comes from, unless its frame is fetched.
type source struct {
	local, chunk int32 // which local layer, and which of its chunks; local is none: it was kept
	keep, drop   bool  // it is kept from here on; it does not come again
}

const none = -1

// part is what a frame consists of.
type part struct {
	chunk, end         int   // its chunks: from one on, before another
	literalAt, literal int64 // its literals: where they begin among all, bytes
	fetched            bool
}

// piece is a frame or a literal block, of that number, in the stored layer.
type piece struct {
	number   int
	at, size int64
}

// read is pieces that are read at once, with the gaps between them.
type read []piece

func (r read) size() int64 { return r[len(r)-1].at + r[len(r)-1].size - r[0].at }

// weight is what it counts of heldMost. A piece that is larger than any read may be comes to nothing by itself.
func (r read) weight() int64 { return min(max(r.size(), heldLeast), heldMost) }

// NewPlan decides where each piece of the layer with that index comes from: a chunk from the first local layer that
// has it, from its own earlier place in the layer, or from the remote. A frame that is fetched gives all
// that is in it. Locals may be none; their Open is not called.
func NewPlan(x *chunk.Index, locals []Local) *Plan {
	p := &Plan{index: x, locals: locals, sources: find(x, locals), parts: divide(x)}
	for i := range p.parts {
		for b := range p.blocksOf(p.parts[i]) {
			if x.Blocks[b].Stored == 0 {
				p.parts[i].fetched = true
			}
		}
	}
	p.choose()
	var frames, blocks []piece
	for i, part := range p.parts {
		if f := x.Frames[i]; part.fetched {
			frames = append(frames, piece{i, f.At, int64(f.Stored)})
			continue
		}
		for j := part.chunk; j < part.end; j++ {
			if p.sources[j].local != none {
				p.Local += int64(x.Chunks[j].Size)
			}
		}
		for b := range p.blocksOf(part) {
			if n := len(blocks); n == 0 || blocks[n-1].number < b {
				blocks = append(blocks, piece{b, x.Stored + codec.SkippableHeader + x.Blocks[b].At, x.Blocks[b].Stored})
			}
		}
	}
	p.frames, p.literals = coalesce(frames, readMost), coalesce(blocks, literalsMost)
	for _, reads := range [][]read{p.frames, p.literals} {
		p.Reads += len(reads)
		for _, r := range reads {
			p.Fetch += r.size()
		}
	}
	return p
}

// find looks up chunks in local layers.
func find(x *chunk.Index, locals []Local) []source {
	known := make(map[chunk.Identity]source, len(x.Chunks))
	for _, c := range x.Chunks {
		known[c.Identity()] = source{local: none}
	}
	for l := range locals {
		for i, c := range locals[l].Index.Chunks {
			if s, ok := known[c.Identity()]; ok && s.local == none {
				known[c.Identity()] = source{local: int32(l), chunk: int32(i)}
			}
		}
	}
	sources := make([]source, len(x.Chunks))
	for i, c := range x.Chunks {
		sources[i] = known[c.Identity()]
	}
	return sources
}

// divide says what frames consist of. A frame holds whole chunks, so that all else in it is literals.
func divide(x *chunk.Index) []part {
	parts := make([]part, len(x.Frames))
	next, literals := 0, int64(0)
	for i, f := range x.Frames {
		part := part{chunk: next, end: next, literalAt: literals, literal: int64(f.Size)}
		for ; part.end < len(x.Chunks) && x.FrameOf(x.Chunks[part.end]) == i; part.end++ {
			part.literal -= int64(x.Chunks[part.end].Size)
		}
		next, literals = part.end, literals+part.literal
		parts[i] = part
	}
	return parts
}

// blocksOf yields the literal blocks that a frame's literals are in.
func (p *Plan) blocksOf(f part) iter.Seq[int] {
	blocks := p.index.Blocks
	return func(yield func(int) bool) {
		if f.literal == 0 {
			return
		}
		i := sort.Search(len(blocks), func(i int) bool { return blocks[i].LiteralAt+blocks[i].Size > f.literalAt })
		for ; i < len(blocks) && blocks[i].LiteralAt < f.literalAt+f.literal; i++ {
			if !yield(i) {
				return
			}
		}
	}
}

// choose decides which frames are fetched for their chunks, and which chunks are kept for later frames.
// Whoever puts the layer together goes the same way: frame after frame.
func (p *Plan) choose() {
	last := map[chunk.Identity]int{}
	for i, c := range p.index.Chunks {
		if p.sources[i].local == none {
			last[c.Identity()] = i
		}
	}
	kept, room := map[chunk.Identity]bool{}, int64(keptMost)
	for f := range p.parts {
		part := &p.parts[f]
		for i := part.chunk; i < part.end && !part.fetched; i++ {
			part.fetched = p.sources[i].local == none && !kept[p.index.Chunks[i].Identity()]
		}
		for i := part.chunk; i < part.end; i++ {
			s, c := &p.sources[i], p.index.Chunks[i]
			if s.local != none {
				continue
			}
			id := c.Identity()
			switch s.drop = last[id] == i; {
			case s.drop && kept[id]:
				delete(kept, id)
				room += int64(c.Size)
			case !s.drop && !kept[id] && int64(c.Size) <= room:
				s.keep, kept[id] = true, true
				room -= int64(c.Size)
			}
		}
	}
}

// coalesce puts neighbours together that are worth one read, of at most so many bytes.
func coalesce(pieces []piece, most int64) (reads []read) {
	for from := 0; from < len(pieces); {
		to := from + 1
		for to < len(pieces) {
			before, next := pieces[to-1], pieces[to]
			if next.at-before.at-before.size > gapMost || next.at+next.size-pieces[from].at > most {
				break
			}
			to++
		}
		reads = append(reads, pieces[from:to])
		from = to
	}
	return reads
}

// FetchBefore returns how many bytes of Fetch lie before an offset of the stored layer.
func (p *Plan) FetchBefore(offset int64) (n int64) {
	for _, reads := range [][]read{p.frames, p.literals} {
		for _, r := range reads {
			n += max(0, min(r.size(), offset-r[0].at))
		}
	}
	return n
}

// Worth reports whether following the plan should take less time than the whole layer does, which is stored in
// so many bytes: at link and disk bytes a second, where what reads the local layers is the disk, and at a latency of
// requests. It is false where most of the layer would be fetched anyway, and where a rate is not known (zero).
func (p *Plan) Worth(stored int64, link, disk float64, latency time.Duration) bool {
	if float64(p.Fetch) > worthMost*float64(stored) || link <= 0 || disk <= 0 {
		return false
	}
	rounds := float64((p.Reads + readers - 1) / readers)
	parts := float64(p.Fetch)/link + rounds*latency.Seconds() + float64(p.Local)/disk
	return parts < latency.Seconds()+float64(stored)/link
}
