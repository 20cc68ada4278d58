package delta

import (
	"encoding/binary"
	"reflect"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
)

// synthetic is the index of a layer whose frames are one chunk each, of that size, named by numbers, and of a
// literal byte before it.
func synthetic(size int32, chunks ...int) *chunk.Index {
	x := &chunk.Index{Codec: codec.LZ4}
	for i, number := range chunks {
		c := chunk.Chunk{At: int64(i) * int64(size), Size: size}
		binary.LittleEndian.PutUint64(c.Sum[:], uint64(number))
		x.Chunks = append(x.Chunks, c)
		x.Frames = append(x.Frames, chunk.Frame{Tar: x.Size, At: x.Stored, Size: size + 1, Stored: size})
		x.Spans = append(x.Spans, chunk.Span{Tar: x.Size, LiteralAt: int64(i), ContentAt: c.At, Literal: 1, Content: int64(size)})
		x.Size, x.Stored = x.Size+int64(size)+1, x.Stored+int64(size)
	}
	x.Blocks = []chunk.Block{{Size: int64(len(chunks)), Stored: 10}}
	return x
}

// fetched returns the numbers of the frames that are fetched.
func (p *Plan) fetched() (frames []int) {
	for i, part := range p.parts {
		if part.fetched {
			frames = append(frames, i)
		}
	}
	return frames
}

func TestPlan(t *testing.T) {
	const size = 1000
	for _, c := range []struct {
		name          string
		chunks        []int
		locals        [][]int
		fetched       []int
		reads         int
		fetch, local_ int64
	}{
		{"nothing at hand", []int{1, 2, 3}, nil, []int{0, 1, 2}, 1, 3 * size, 0},
		{"all at hand", []int{1, 2, 3}, [][]int{{3}, {2, 1}}, nil, 1, 10, 3 * size},
		{"at hand twice", []int{1, 2}, [][]int{{1}, {1, 2}}, nil, 1, 10, 2 * size},
		{"a gap", []int{1, 2, 3}, [][]int{{2}}, []int{0, 2}, 2, 3*size + 10, size},
		{"a repeat", []int{1, 2, 1, 1}, nil, []int{0, 1}, 2, 2*size + 10, 0},
		{"a repeat at hand", []int{1, 2, 1}, [][]int{{1}}, []int{1}, 2, size + 10, 2 * size},
	} {
		var locals []Local
		for _, chunks := range c.locals {
			locals = append(locals, Local{Index: synthetic(size, chunks...)})
		}
		p := NewPlan(synthetic(size, c.chunks...), locals)
		if got := p.fetched(); !reflect.DeepEqual(got, c.fetched) || p.Reads != c.reads || p.Fetch != c.fetch || p.Local != c.local_ {
			t.Errorf("%s: frames %v in %d reads of %d bytes, %d at hand", c.name, got, p.Reads, p.Fetch, p.Local)
		}
	}
}

// TestPlanFirst: the first local layer that has a chunk gives it; chunks of one sum and two sizes are not equal.
func TestPlanFirst(t *testing.T) {
	first := []Local{{Index: synthetic(9, 1)}, {Index: synthetic(9, 1)}}
	if p := NewPlan(synthetic(9, 1), first); p.sources[0].local != 0 {
		t.Error("not the first local layer that has a chunk gives it")
	}
	if p := NewPlan(synthetic(1000, 1), []Local{{Index: synthetic(999, 1)}}); p.Local != 0 || p.Fetch != 1000 {
		t.Errorf("%d bytes at hand, %d are fetched", p.Local, p.Fetch)
	}
}

// TestPlanReferences: literals that are not in the index come out of their frames.
func TestPlanReferences(t *testing.T) {
	x := synthetic(1000, 1, 2, 3, 4)
	x.Blocks = []chunk.Block{{Size: 1, Stored: 5}, {LiteralAt: 1, Size: 2}, {LiteralAt: 3, Size: 1, At: 5, Stored: 7}}
	p := NewPlan(x, []Local{{Index: synthetic(1000, 1, 2, 3, 4)}})
	if got := p.fetched(); !reflect.DeepEqual(got, []int{1, 2}) || p.Fetch != 2000+12 || p.Local != 2000 {
		t.Errorf("frames %v, %d bytes, %d at hand", got, p.Fetch, p.Local)
	}
}

// TestPlanKeepsLittle: what comes again is kept as long as there is room for it, and fetched again where not.
func TestPlanKeepsLittle(t *testing.T) {
	const size = 256 << 10
	const fit = keptMost / size
	var chunks []int
	for range 3 {
		for i := range fit + 10 {
			chunks = append(chunks, i)
		}
	}
	p := NewPlan(synthetic(size, chunks...), nil)
	if got, want := len(p.fetched()), fit+10+10+10; got != want {
		t.Errorf("%d frames are fetched, want %d", got, want)
	}
	kept, most := map[chunk.Identity]bool{}, 0
	for i, s := range p.sources {
		if s.keep {
			kept[p.index.Chunks[i].Identity()] = true
		}
		if s.drop {
			delete(kept, p.index.Chunks[i].Identity())
		}
		most = max(most, len(kept))
	}
	if most != fit {
		t.Errorf("%d chunks are kept", most)
	}
	// What does not come again makes room.
	chunks = nil
	for i := range 3 * fit {
		chunks = append(chunks, i, i)
	}
	if got := len(NewPlan(synthetic(size, chunks...), nil).fetched()); got != 3*fit {
		t.Errorf("%d frames are fetched, want %d", got, 3*fit)
	}
}

func TestCoalesce(t *testing.T) {
	pieces := []piece{
		{0, 0, 10},
		{1, 10, 10},
		{2, 20 + gapMost, 10},
		{3, 31 + 2*gapMost, 10}, // a byte too far
		{4, 41 + 2*gapMost, readMost - 10},
		{5, 31 + 2*gapMost + readMost, 1}, // too much at once
		{6, 100 + 4*gapMost + readMost, 2 * readMost},
	}
	want := []read{pieces[:3], pieces[3:5], pieces[5:6], pieces[6:]}
	if got := coalesce(pieces, readMost); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	if got := coalesce(nil, readMost); got != nil {
		t.Errorf("%v", got)
	}
}

func TestWorth(t *testing.T) {
	const stored = 100 << 20
	for _, c := range []struct {
		name       string
		plan       Plan
		link, disk float64
		latency    time.Duration
		want       bool
	}{
		{"a slow link", Plan{Fetch: 2 << 20, Local: 200 << 20, Reads: 10}, 10e6, 500e6, 20 * time.Millisecond, true},
		{"a link as fast as the disk", Plan{Fetch: 2 << 20, Local: 200 << 20, Reads: 10}, 500e6, 500e6, 0, false},
		{"most has changed", Plan{Fetch: 61 << 20, Local: 60 << 20, Reads: 10}, 1e6, 500e6, 0, false},
		{"half has changed", Plan{Fetch: 59 << 20, Local: 60 << 20, Reads: 10}, 1e6, 500e6, 0, true},
		{"requests that take long", Plan{Fetch: 2 << 20, Local: 20 << 20, Reads: 400}, 50e6, 500e6, 100 * time.Millisecond, false},
		{"no rate known", Plan{Fetch: 1}, 0, 500e6, 0, false},
		{"no disk known", Plan{Fetch: 1}, 1e6, 0, 0, false},
	} {
		if got := c.plan.Worth(stored, c.link, c.disk, c.latency); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
