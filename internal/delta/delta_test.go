package delta

import (
	"slices"
	"testing"
)

// TestUnchanged: of a tree with new mtimes and one changed file the frame of that file is fetched, and literals.
func TestUnchanged(t *testing.T) {
	for _, c := range codecs {
		files := sizes(300, 1)
		old := newLayer(t, c, tree(t, files, 1))
		files = slices.Clone(files)
		files[150].seed++
		l := newLayer(t, c, tree(t, files, 1e9))
		p, stats := pull(t, l, old.local(&localTar{content: old.tar}))
		if p.Fetch != stats.Fetched || p.Local != stats.Local {
			t.Errorf("%v: planned %d and %d, took %+v", c, p.Fetch, p.Local, stats)
		}
		most := int64(0)
		for _, b := range l.index.Blocks {
			most += b.Stored
		}
		for _, f := range p.fetched() {
			most += int64(l.index.Frames[f].Stored)
		}
		if frames := len(p.fetched()); frames != 1 || stats.Fetched > most {
			t.Errorf("%v: %d frames are fetched, %d of %d bytes", c, frames, stats.Fetched, len(l.stored))
		}
		t.Logf("%v: %d of %d bytes in %d reads", c, stats.Fetched, len(l.stored), p.Reads)
	}
}

func TestNothingAtHand(t *testing.T) {
	for _, c := range codecs {
		l := newLayer(t, c, tree(t, sizes(100, 1), 1))
		if p, stats := pull(t, l); stats.Fetched != l.index.Stored || p.Worth(int64(len(l.stored)), 1e6, 1e9, 0) {
			t.Errorf("%v: %d bytes are fetched of %d", c, stats.Fetched, l.index.Stored)
		}
	}
}

// TestGap: frames are fetched with what is between them, where that is little.
func TestGap(t *testing.T) {
	l := plain(3, 16<<10)
	some := *l.index
	some.Chunks = slices.Clone(some.Chunks)
	for i := range some.Chunks {
		if l.index.FrameOf(some.Chunks[i]) != 1 {
			some.Chunks[i].Sum[0] ^= 1
		}
	}
	local := (&layer{index: &some}).local(&localTar{content: l.tar})
	p, stats := pull(t, l, local)
	if p.Reads != 1 || stats.Fetched != l.index.Stored || stats.Local != 16<<10 {
		t.Errorf("%d reads, %+v, of %d bytes", p.Reads, stats, l.index.Stored)
	}
}
