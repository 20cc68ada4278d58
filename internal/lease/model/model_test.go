package model

import (
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// every is for `make crash`, which has time: the protocol does not change with the code beside it.
var every = flag.Bool("every", false, "TestNothingIsLost explores all configurations")

func whole(m *machine, s *State) bool { return !m.torn(s) && !m.lost(s) }

func neverLost(m *machine, s *State) bool { return !m.lost(s) }

// anything returns the stores in which every layer is missing, whole or half
// there, and every document is missing or there; nothing is tagged. torn adds
// layers of which only the json is there, as careless copies leave them.
func anything(layers, documents int, torn bool) []Start {
	all := []Start{{}}
	for id := range uint8(layers + documents) {
		var more []Start
		for _, s := range all {
			there := s
			there.JSON |= one(id)
			if int(id) >= layers {
				more = append(more, s, there)
				continue
			}
			if torn {
				more = append(more, there)
			}
			file := s
			file.File |= one(id)
			there.File |= one(id)
			more = append(more, s, file, there)
		}
		all = more
	}
	return all
}

// everything returns the store in which all is there, under these tags.
func everything(layers, documents int, tags ...uint8) []Start {
	s := Start{JSON: 1<<(layers+documents) - 1, File: 1<<layers - 1}
	copy(s.Tags[:], tags)
	return []Start{s}
}

const (
	x = ids(1)
	y = ids(2)
)

const limit = 20_000_000

// aliases returns indexes() with one alias at most.
func aliases() []Start {
	return slices.DeleteFunc(indexes(), func(s Start) bool { return s.Held == x|y })
}

// explore logs how much there was to explore.
func explore(t *testing.T, c Config, holds Property) Result {
	t.Helper()
	begin := time.Now()
	r, err := Explore(c, holds, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d states, up to %d steps, in %v", r.States, r.Depth, time.Since(begin).Round(time.Millisecond))
	return r
}

// indexes returns stores in which an index and its two platforms are, marked or
// not, tagged or not, and one with a platform alone.
func indexes() []Start {
	all := slices.Clone(justX)
	for held := range (x | y) + 1 {
		s := everything(2, 1)[0]
		s.Held = held
		all = append(all, s)
		if held != 0 {
			s.Tags[0] = 2
			all = append(all, s)
		}
	}
	return all
}

func sum(all ...[]Start) []Start {
	var s []Start
	for _, more := range all {
		s = append(s, more...)
	}
	return s
}

// explored are the configurations in which nothing may be lost.
var explored = []struct {
	name   string
	long   bool // not with -short
	most   bool // only with -every: the largest, three quarters of all the time
	config Config
	met    Event // what must have happened on some way, else the exploration proves little
}{
	{
		name: "a push, a collector, a remover",
		config: Config{
			Layers: 1, Documents: []ids{x}, Collectors: 1, Remover: true,
			Pushers: []Pusher{early},
			Starts:  anything(1, 1, true),
		},
		met: met,
	},
	{
		name: "the same, with the grace",
		config: Config{
			Layers: 1, Documents: []ids{x}, Collectors: 1, Remover: true, Grace: true,
			Pushers: []Pusher{early},
			Starts:  anything(1, 1, true),
		},
		met: met,
	},
	{
		name:   "a push with late ids, a collector",
		config: small(1, late),
		met:    met | Extended,
	},
	{
		name:   "a push, two collectors",
		config: small(2, early),
		met:    met | TookOver | LostRace,
	},
	{
		name: "a push with late ids, two collectors, a remover",
		long: true,
		config: Config{
			Layers: 1, Documents: []ids{x}, Collectors: 2, Remover: true,
			Pushers: []Pusher{late},
			Starts:  anything(1, 1, true),
		},
		met: met | Extended | TookOver | LostRace,
	},
	{
		name: "a push with late ids, a collector that runs twice, a remover",
		long: true,
		config: Config{
			Layers: 1, Documents: []ids{x}, Collectors: 1, Runs: 2, Remover: true,
			Pushers: []Pusher{late},
			Starts:  anything(1, 1, true),
		},
		met: met | Extended,
	},
	{
		name: "a push with late ids of two layers, two collectors",
		long: true,
		config: Config{
			Layers: 2, Documents: []ids{x | y}, Collectors: 2,
			Pushers: []Pusher{{Document: 2, First: x}},
			Starts:  everything(2, 1),
		},
		met: met | Extended | TookOver | LostRace,
	},
	{
		name: "two pushes, one with late ids, a collector, a remover",
		long: true,
		config: Config{
			Layers: 1, Documents: []ids{x}, Collectors: 1, Remover: true,
			Pushers: []Pusher{late, other},
			Starts:  anything(1, 1, false),
		},
		met: met | Extended,
	},
	{
		name:   "two pushes, two collectors",
		most:   true,
		config: small(2, early, other),
		met:    met | TookOver | LostRace,
	},
	{
		name: "two pushes of different images to one tag, a collector, a remover",
		long: true,
		config: Config{
			Layers: 2, Documents: []ids{x, x | y}, Collectors: 1, Remover: true,
			Pushers: []Pusher{{Document: 2}, {Document: 3, First: x}},
			Starts:  sum(everything(2, 2), everything(2, 2, 2)),
		},
		met: met | Extended,
	},
	{
		name: "a move, a push, a collector, a remover",
		long: true,
		config: Config{
			Layers: 1, Documents: []ids{x}, Collectors: 1, Remover: true,
			Pushers: []Pusher{{Move: true, Tag: 1}, early},
			Starts:  sum(everything(1, 1, 1), anything(1, 1, false)),
		},
		met: met | Extended,
	},
	{
		name: "a move, two collectors, a remover",
		long: true,
		config: Config{
			Layers: 1, Documents: []ids{x}, Collectors: 2, Remover: true,
			Pushers: []Pusher{{Move: true, Tag: 1}},
			Starts:  everything(1, 1, 1),
		},
		met: met | Extended | TookOver | LostRace,
	},
	{
		name:   "three pushes, one with late ids, a collector",
		most:   true,
		config: small(1, early, other, late),
		met:    met | Extended,
	},
	{
		name:   "two pushes of an index, each with its platform, a collector",
		most:   true,
		config: index(indexes()),
		met:    met | Extended,
	},
	{
		name:   "the same, with the grace and a remover",
		long:   true,
		config: removed(young(index(justX))),
		met:    met | Extended,
	},
	{
		name: "a move of an index, a push of one more platform, a collector, a remover",
		most: true,
		config: Config{
			Layers: 2, Documents: []ids{x | y}, Index: true, Collectors: 1, Remover: true,
			Pushers: []Pusher{{Move: true, Tag: 1}, {Document: 2, Holds: x}},
			Starts:  indexes(),
		},
		met: met | Extended,
	},
	{
		name:   "two pushes of a config, each with a blob and an alias, a collector",
		most:   true,
		config: alias(aliases()),
		met:    met | Extended,
	},
	{
		name:   "the same, with the grace and a remover",
		long:   true,
		config: removed(young(alias(justX))),
		met:    met | Extended,
	},
}

// met is what happens in every configuration.
const met = Waited | Reported | BeganAgain | Spared | Deleted

// TestNothingIsLost explores the protocol as it is.
func TestNothingIsLost(t *testing.T) {
	for _, test := range explored {
		t.Run(test.name, func(t *testing.T) {
			if test.most && !*every || test.long && testing.Short() {
				t.Skip("takes long")
			}
			r := explore(t, test.config, whole)
			if r.Violation != nil {
				t.Errorf("a tag names something incomplete:\n%s", strings.Join(r.Violation, "\n"))
			}
			if r.Events&test.met != test.met {
				t.Errorf("met with %b, want %b: the exploration did not come to what it is for", r.Events, test.met)
			}
			// What an alias named once may go when it names another blob.
			if r.Events&Mended != 0 && !test.config.Alias {
				t.Error("P4 or P6 found something missing: collection took what a push relied on")
			}
		})
	}
}

// TestPacking proves that no two states are taken for one.
func TestPacking(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		words := packed{random.Uint64(), random.Uint64()}
		s := unpack(words)
		if again := unpack(pack(&s)); again != s {
			t.Fatalf("%+v\nbecame\n%+v", s, again)
		}
	}
}
