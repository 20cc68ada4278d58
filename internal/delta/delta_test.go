package delta

import (
	"slices"
	"testing"
)

// TestUnchanged: of a tree with new mtimes and one changed file the frame of that file is fetched, and literals.
func TestUnchanged(t *testing.T) {
	for _, c := range codecs {
		files := sizes(500, 1)
		old := newLayer(t, c, tree(t, files, 1))
		files = slices.Clone(files)
		files[250].seed++
		l := newLayer(t, c, tree(t, files, 1e9))
		p, stats := pull(t, l, old.local(&localTar{content: old.tar}))
		if p.Fetch != stats.Fetched || p.Local != stats.Local {
			t.Errorf("%v: planned %d and %d, took %+v", c, p.Fetch, p.Local, stats)
		}
		frames := 0
		for _, part := range p.parts {
			if part.fetched {
				frames++
			}
		}
		if most := int64(len(l.stored) / 10); frames != 1 || stats.Fetched > most {
			t.Errorf("%v: %d frames are fetched, %d of %d bytes", c, frames, stats.Fetched, len(l.stored))
		}
		t.Logf("%v: %d of %d bytes in %d reads", c, stats.Fetched, len(l.stored), p.Reads)
	}
}

func TestNothingAtHand(t *testing.T) {
	for _, c := range codecs {
		l := newLayer(t, c, tree(t, sizes(300, 1), 1))
		if p, stats := pull(t, l); stats.Fetched != l.index.Stored || p.Worth(int64(len(l.stored)), 1e6, 1e9, 0) {
			t.Errorf("%v: %d bytes are fetched of %d", c, stats.Fetched, l.index.Stored)
		}
	}
}
