// Package model is the handshake between pushes and garbage collection as a
// machine small enough to try every interleaving of it. The protocol is that of
// docs/format.md, "Garbage collection": P1 to P7 and G1 to G6 below are its
// steps. The package is for its own tests and imports nothing of this module.
//
// Where this machine departs from that page the page is wrong, or the machine:
// change both. TestEveryStepIsNeeded shows what each step is for.
//
// The store holds up to four entries, two tags, a lease for each push and the
// register of the sweep. Every read and every write of one object is a step of
// its own, and between any two steps of a process the others may do any number
// of theirs. A process may die before any step. Listings are read object by
// object, in any order, so what comes or goes meanwhile is seen or not.
//
// Time is modelled by what it allows, not by clocks: a lease may die at any
// moment, except between the check before a tag and that tag (a check allows 25
// minutes more: 5 against 30); a sweep may die at any moment, except between the
// check before a batch and the end of that batch (1 hour against 2). A process
// that has died holds up nothing.
package model

// ids is a set of entries, a bit each. The layers come first, the documents
// after them: x, y, D, E.
type ids uint8

func one(id uint8) ids { return 1 << id }

func (s ids) has(id uint8) bool { return s&one(id) != 0 }

// next returns the lowest id of s that is not below from, and whether there is one.
func (s ids) next(from uint8) (uint8, bool) {
	for id := from; id < maxIDs; id++ {
		if s.has(id) {
			return id, true
		}
	}
	return 0, false
}

const (
	maxIDs        = 4
	maxTags       = 2
	maxPushers    = 3
	maxCollectors = 2
)

// Config says what there is and who acts on it.
type Config struct {
	Layers     int   // how many of the ids are layers; at least one
	Documents  []ids // the layers that each document needs
	Index      bool  // the one document is an index, and the layers stand for its platforms: it needs those that are marked
	Alias      bool  // with Index: a mark replaces the one before, as an alias is written over another
	Pushers    []Pusher
	Collectors int
	Runs       int  // how many collections each collector does, one after the other; 0 means one
	Remover    bool // somebody removes the first tag, at any time
	Grace      bool // what was uploaded meanwhile is too young to be collected
	Change     Change
	Starts     []Start
}

// Pusher is a push of a document and its layers to a tag. With Move it is one
// that tags what the other tag names, uploads nothing, and then removes the
// other tag.
type Pusher struct {
	Document uint8 // the id; unused with Move
	Tag      uint8
	First    ids  // what it knows before its first lease; 0 means all. The rest extends the lease
	Move     bool // knows the document first, and its layers by reading it
	Holds    ids  // the platforms of the index that it pushes and marks
}

// Start is a store to begin with. Its entries are old.
type Start struct {
	JSON, File ids
	Held       ids
	Tags       [maxTags]uint8
}

// Change is a set of departures from the protocol.
type Change uint32

// The departures. Those that docs/format.md names come first, in its order.
const (
	RootsBeforeLeases   Change = 1 << iota // G4 the other way round
	NoLookAtLeases                         // G4 without leases
	NoLookAtRoots                          // G4 without roots
	LookBeforeList                         // G4 before G3
	NoSweepRead                            // no P2
	LeaseOfImageOnly                       // P1 with the document's id alone
	ExtendWithoutRead                      // late ids without a second P2
	LeaseRevived                           // the owner of a dead lease goes on with it
	EndDeletesRegister                     // G6 removes the register, whosever it is
	EndOverwrites                          // G6 without compare-and-swap
	TakeoverOverwrites                     // G1 without compare-and-swap
	JSONAlone                              // an entry exists when its json does
	FileFirst                              // G5 deletes the file before the json
	LateTag                                // a tag is written long after its check
	LateDelete                             // a batch is deleted long after its check
	NoLeaseCheck                           // P5 without looking at the lease
	LeaseRemovedFirst                      // P7 before P5
	NoSweepClock                           // G5 beyond the sweep's hour, while the generation is its own
	NoLookBefore                           // no P4
	NoLookBehind                           // no P6
	DeadSweepsWaitedFor                    // P2 waits for a sweep that is dead
	LeasesNotFollowed                      // G4 spares the ids of a lease and not what is marked in them
	LeasesReadOnce                         // G4 does not read the leases a second time
	HeldNotLeased                          // a push does not lease what others have marked in its index
	MarkWithoutCheck                       // platforms are marked without a look at the lease
	MarksLast                              // G5 deletes the json of an index before its marks
)

// State is all there is between two steps.
type State struct {
	JSON, File ids // the objects of the entries; a document is its json
	Held       ids // the platforms that are marked in the index
	Fresh      ids // entries that were written meanwhile
	Tags       [maxTags]uint8
	Removed    bool // the remover is done
	Register   register
	Push       [maxPushers]push
	Collect    [maxCollectors]collection
}

// register is run/sweep. Whether its sweep is dead is a matter of its age.
type register struct {
	Generation uint8
	Phase      phase
	List       ids
	Dead       bool
}

type phase uint8

const (
	ended phase = iota // or never begun
	marking
	listed
	absent // deleted, which only a departure does
)

func (r register) running() bool { return r.Phase == marking || r.Phase == listed }

// machine is a configuration with what is worked out from it once.
type machine struct {
	Config
	layers ids
	order  []collectStep // what a collector does between G2 and G5
	seen   Event
}

func newMachine(c Config) *machine {
	if c.Runs == 0 {
		c.Runs = 1
	}
	m := &machine{Config: c, layers: 1<<c.Layers - 1}
	switch {
	case m.has(LookBeforeList):
		m.order = []collectStep{collectLeases, collectAgain, collectRoots, collectPublish}
	case m.has(RootsBeforeLeases):
		m.order = []collectStep{collectPublish, collectRoots, collectLeases, collectAgain}
	default:
		m.order = []collectStep{collectPublish, collectLeases, collectAgain, collectRoots}
	}
	return m
}

func (m *machine) has(c Change) bool { return m.Change&c != 0 }

// Event is a set of things that happened on some way.
type Event uint32

// What a configuration is expected to have met with.
const (
	Waited     Event = 1 << iota // a push found its id in a list
	Reported                     // a push reported success
	BeganAgain                   // a push found its lease dead
	Extended                     // a push learned ids late
	Spared                       // a collector spared an id of its list
	Deleted                      // a collector deleted an object
	TookOver                     // a collector took over a dead sweep
	LostRace                     // a collector's swap was refused
	Mended                       // P4 with a lease, or P6 under its tag, found something missing
	GaveUp                       // a push with a lease found something missing that it cannot upload
)

// closure is a document and what it needs.
func (m *machine) closure(s *State, document uint8) ids {
	if m.Index {
		return one(document) | s.Held
	}
	return one(document) | m.Documents[document-uint8(m.Layers)]
}

// reached is what gc finds from an entry: nothing more from one that is not there.
func (m *machine) reached(s *State, id uint8) ids {
	if m.layers.has(id) || !s.JSON.has(id) {
		return one(id)
	}
	return m.closure(s, id)
}

// isIndex returns whether an entry has marks.
func (m *machine) isIndex(id uint8) bool { return m.Index && !m.layers.has(id) }

// whole are the entries that exist, by the rule of the format.
func (m *machine) whole(s *State) ids {
	return s.JSON&^m.layers | s.JSON&s.File
}

// judged are the entries that a push takes for existing.
func (m *machine) judged(s *State) ids {
	if m.has(JSONAlone) {
		return s.JSON
	}
	return m.whole(s)
}

// torn returns whether a tag names something incomplete.
func (m *machine) torn(s *State) bool {
	whole := m.whole(s)
	for _, document := range s.Tags {
		if document != 0 && (m.closure(s, document)&^whole != 0 || m.Index && s.Held == 0) {
			return true
		}
	}
	return false
}

// lost returns whether a tag names something incomplete that a push has reported
// as pushed.
func (m *machine) lost(s *State) bool {
	whole := m.whole(s)
	for i, who := range m.Pushers {
		p := &s.Push[i]
		if p.Step.reported() && s.Tags[who.Tag] == p.Document && m.closure(s, p.Document)&^whole != 0 {
			return true
		}
	}
	return false
}

// begin returns the states to begin with.
func (m *machine) begin() []State {
	var all []State
	for _, start := range m.Starts {
		s := State{JSON: start.JSON, File: start.File, Held: start.Held, Tags: start.Tags}
		for i, who := range m.Pushers {
			s.Push[i] = m.newPush(who)
		}
		all = append(all, s)
	}
	return all
}

// actor is who or what takes a step.
type actor struct {
	kind   actorKind
	n      uint8 // which of that kind
	choice uint8 // which object of a listing it reads
}

type actorKind uint8

const (
	pushes actorKind = iota
	collects
	removes
	pushDies
	collectorDies
	leaseDies
	sweepDies
)

// successors calls yield for every state that may follow s. The state is only
// valid during the call.
func (m *machine) successors(s *State, yield func(*State, actor)) {
	for i := range m.Pushers {
		n := uint8(i)
		next := *s
		if m.push(&next, i) {
			yield(&next, actor{kind: pushes, n: n})
		}
		if !s.Push[i].Step.over() {
			next = *s
			m.killPush(&next, i)
			yield(&next, actor{kind: pushDies, n: n})
		}
		if m.leaseMayDie(s, i) {
			next = *s
			next.Push[i].Lease = 0
			yield(&next, actor{kind: leaseDies, n: n})
		}
	}
	for i := range m.Collectors {
		n := uint8(i)
		for choice := range m.choices(s, i) {
			next := *s
			if m.collect(&next, i, uint8(choice)) {
				yield(&next, actor{collects, n, uint8(choice)})
			}
		}
		if !s.Collect[i].Step.over() {
			next := *s
			next.Collect[i] = collection{Step: collectDead}
			yield(&next, actor{kind: collectorDies, n: n})
		}
	}
	if m.sweepMayDie(s) {
		next := *s
		next.Register.Dead = true
		yield(&next, actor{kind: sweepDies})
	}
	if m.Remover && !s.Removed {
		next := *s
		next.Removed = true
		next.Tags[0] = 0
		yield(&next, actor{kind: removes})
	}
}

// stuck returns whether a push has to wait and nobody is left who could end that.
func (m *machine) stuck(s *State) bool {
	waiting := false
	for i := range m.Pushers {
		waiting = waiting || !s.Push[i].Step.over()
	}
	if !waiting {
		return false
	}
	moves := false
	m.successors(s, func(_ *State, who actor) {
		moves = moves || who.kind == pushes || who.kind == collects || who.kind == sweepDies
	})
	return !moves
}
