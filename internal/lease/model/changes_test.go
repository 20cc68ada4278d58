package model

import (
	"strings"
	"testing"
)

// small is the smallest configuration in which there is something to lose: all
// is there and nothing is tagged, so that a push uploads nothing and a collector
// wants everything.
func small(collectors int, pushers ...Pusher) Config {
	return Config{
		Layers: 1, Documents: []ids{x}, Collectors: collectors,
		Pushers: pushers, Starts: everything(1, 1),
	}
}

// index is two pushes of an index, each with one of its platforms.
func index(starts []Start) Config {
	return Config{
		Layers: 2, Documents: []ids{x | y}, Index: true, Collectors: 1, Starts: starts,
		Pushers: []Pusher{{Document: 2, Holds: x}, {Document: 2, Holds: y, Tag: 1}},
	}
}

// young is c with the grace: what is written meanwhile is not collected.
func young(c Config) Config {
	c.Grace = true
	return c
}

// removed is c with somebody who removes the first tag.
func removed(c Config) Config {
	c.Remover = true
	return c
}

// alias is two pushes of a config, each with a blob of its own that holds the
// layer. The config stands for itself and the alias.
func alias(starts []Start) Config {
	c := index(starts)
	c.Alias = true
	return c
}

var justX = []Start{{JSON: x, File: x}}

var (
	early = Pusher{Document: 1}
	late  = Pusher{Document: 1, First: x}
	other = Pusher{Document: 1, Tag: 1}
)

// TestEveryStepIsNeeded takes out each step that docs/format.md calls needed and
// finds a shortest way on which a push that reported success loses what its tag
// names. TestNothingIsLost explores the same configurations, or larger ones,
// without the change.
func TestEveryStepIsNeeded(t *testing.T) {
	nothing := small(1, early)
	nothing.Starts = []Start{{}}
	for _, test := range []struct {
		name   string
		long   bool // not with -short
		change Change
		config Config
	}{
		{"roots read before leases", false, RootsBeforeLeases, small(1, early)},
		{"no second look", false, NoLookAtLeases | NoLookAtRoots, small(1, early)},
		{"a second look at roots only", false, NoLookAtLeases, small(1, early)},
		{"a second look at leases only", false, NoLookAtRoots, small(1, early)},
		{"the second look before the list", false, LookBeforeList, small(1, early)},
		{"a push that does not read the register", false, NoSweepRead, small(1, early)},
		{"a lease with the image's id only", false, LeaseOfImageOnly, small(1, early)},
		{"late ids without reading the register again", false, ExtendWithoutRead, small(1, late)},
		{"a dead lease revived", false, LeaseRevived, small(1, early)},
		{"a tag without a look at the lease", false, NoLeaseCheck, small(1, early)},
		{"the lease removed before the tag is written", false, LeaseRemovedFirst, small(1, early)},
		{"the register deleted", false, EndDeletesRegister, small(2, early)},
		{"the register overwritten", false, EndOverwrites, small(2, early)},
		{"a takeover without compare-and-swap", false, TakeoverOverwrites, small(2, early)},
		{"existence by json alone, the file deleted first", false, JSONAlone | FileFirst, small(1, early)},
		{"existence by json alone, the json deleted first", false, JSONAlone, nothing},
		{"a tag that lands long after its check", false, LateTag, small(1, early)},
		{"a delete that lands long after its check", false, LateDelete, small(1, early)},
		{"a sweep that deletes beyond its hour", false, NoSweepClock, small(1, early)},
		{"what is marked in a leased index not spared", true, LeasesNotFollowed, index(everything(2, 1))},
		{"what a leased alias names not spared", true, LeasesNotFollowed, alias(everything(2, 1))},
		{"marks without a look at the lease", true, MarkWithoutCheck, index(everything(2, 1))},
		{"an alias without a look at the lease", true, MarkWithoutCheck, alias(everything(2, 1))},
		{"what others marked in an index not leased", true, HeldNotLeased, young(index(justX))},
		{"leases read once, one dies meanwhile", true, LeasesReadOnce, young(index(justX))},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.long && testing.Short() {
				t.Skip("takes long")
			}
			test.config.Change = test.change
			r := explore(t, test.config, neverLost)
			if r.Violation == nil {
				t.Fatal("nothing is lost: either the step is not needed, or the model does not show why it is")
			}
			t.Logf("shortest way:\n%s", strings.Join(r.Violation, "\n"))
		})
	}
}

// TestWhatIsNotNeeded takes out what docs/format.md calls not needed against
// collection.
func TestWhatIsNotNeeded(t *testing.T) {
	for _, test := range []struct {
		name   string
		change Change
	}{
		{"no P4", NoLookBefore},
		{"no P6", NoLookBehind},
		{"neither P4 nor P6", NoLookBefore | NoLookBehind},
		{"the file deleted first", FileFirst},
		{"leases read once", LeasesReadOnce},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := Config{
				Layers: 1, Documents: []ids{x}, Collectors: 1, Remover: true, Change: test.change,
				Pushers: []Pusher{late}, Starts: anything(1, 1, false),
			}
			if !testing.Short() {
				c.Pushers = append(c.Pushers, other)
			}
			r := explore(t, c, whole)
			if r.Violation != nil {
				t.Errorf("lost:\n%s", strings.Join(r.Violation, "\n"))
			}
			if r.Events&met != met {
				t.Errorf("met with %b, want %b", r.Events, met)
			}
		})
	}
}

// TestMarksGoFirst shows what becomes of a push when marks outlive the json of
// their index: with a lease in hand it finds a mark whose platform is gone.
func TestMarksGoFirst(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	mends := func(m *machine, s *State) bool { return whole(m, s) && m.seen&GaveUp == 0 }
	c := index(everything(2, 1))
	c.Pushers = c.Pushers[1:]
	c.Collectors = 2
	c.Starts[0].Held = x
	if r := explore(t, c, mends); r.Violation != nil {
		t.Errorf("a push gives up:\n%s", strings.Join(r.Violation, "\n"))
	}
	c.Change = MarksLast
	r := explore(t, c, mends)
	if r.Violation == nil {
		t.Fatal("no push gives up")
	}
	t.Logf("shortest way:\n%s", strings.Join(r.Violation, "\n"))
}

// TestNobodyWaitsForever proves that a push comes to its end when all others have
// come to theirs or died. It would not if it waited for a sweep that is dead.
func TestNobodyWaitsForever(t *testing.T) {
	moves := func(m *machine, s *State) bool { return !m.stuck(s) }
	c := small(1, late, other)
	if r := explore(t, c, moves); r.Violation != nil {
		t.Errorf("a push waits forever:\n%s", strings.Join(r.Violation, "\n"))
	}
	c.Change = DeadSweepsWaitedFor
	r := explore(t, c, moves)
	if r.Violation == nil {
		t.Fatal("a push that waits for a dead sweep is not found")
	}
	t.Logf("shortest way:\n%s", strings.Join(r.Violation, "\n"))
}
