package model

import "fmt"

// Property is what every state has to have.
type Property func(m *machine, s *State) bool

// Result is what an exploration found.
type Result struct {
	States    int
	Depth     int      // steps of the longest shortest way to a state
	Events    Event    // what happened on some way
	Violation []string // the steps of a shortest way to a state that breaks the property; nil when there is none
}

// Explore visits every state that the configuration can come to, shortest ways
// first, and stops at the first that breaks the property. It keeps every state:
// about 40 bytes each. It fails when there are more than limit of them.
func Explore(c Config, holds Property, limit int) (Result, error) {
	m := newMachine(c)
	if err := m.fits(); err != nil {
		return Result{}, err
	}
	v := newVisited()
	var r Result
	visit := func(s *State, parent uint32) bool {
		if fresh := v.add(pack(s), parent); fresh && !holds(m, s) {
			r.Violation = m.trace(v, uint32(len(v.states)-1))
			return false
		}
		return true
	}
	for _, s := range m.begin() {
		if !visit(&s, noParent) {
			break
		}
	}
	// Whoever is before lastOfDepth was reached by Depth steps at most.
	lastOfDepth := len(v.states)
	for i := 0; i < len(v.states) && r.Violation == nil; i++ {
		if len(v.states) > limit {
			return r, fmt.Errorf("more than %d states", limit)
		}
		if i == lastOfDepth {
			r.Depth++
			lastOfDepth = len(v.states)
		}
		s := unpack(v.states[i])
		m.successors(&s, func(next *State, _ actor) {
			if r.Violation == nil {
				visit(next, uint32(i))
			}
		})
	}
	r.States, r.Events = len(v.states), m.seen
	return r, nil
}

// fits finds out whether the configuration fits into the machine.
func (m *machine) fits() error {
	switch entries := m.Layers + len(m.Documents); {
	case m.Layers < 1 || entries > maxIDs:
		return fmt.Errorf("%d entries", entries)
	case len(m.Pushers) > maxPushers || m.Collectors > maxCollectors || m.Runs > 2:
		return fmt.Errorf("%d pushers, %d collectors, %d runs", len(m.Pushers), m.Collectors, m.Runs)
	case len(m.Starts) == 0:
		return fmt.Errorf("nothing to begin with")
	}
	return nil
}

// packed is a state in 128 bits.
type packed [2]uint64

// packer writes or reads fields of some bits each, one after the other.
type packer struct {
	words packed
	at    uint
}

func (p *packer) put(value uint8, bits uint) {
	if p.at+bits > 64 && p.at < 64 {
		p.at = 64 // no field lies in both words
	}
	p.words[p.at>>6] |= uint64(value) << (p.at & 63)
	p.at += bits
}

func (p *packer) get(bits uint) uint8 {
	if p.at+bits > 64 && p.at < 64 {
		p.at = 64
	}
	value := p.words[p.at>>6] >> (p.at & 63) & (1<<bits - 1)
	p.at += bits
	return uint8(value)
}

func (p *packer) putBool(b bool) {
	var value uint8
	if b {
		value = 1
	}
	p.put(value, 1)
}

func pack(s *State) packed {
	var p packer
	p.put(uint8(s.JSON), 4)
	p.put(uint8(s.File), 4)
	p.put(uint8(s.Held), 2)
	p.put(uint8(s.Fresh), 4)
	p.put(s.Tags[0], 2)
	p.put(s.Tags[1], 2)
	p.putBool(s.Removed)
	p.put(s.Register.Generation, 3)
	p.put(uint8(s.Register.Phase), 2)
	p.put(uint8(s.Register.List), 4)
	p.putBool(s.Register.Dead)
	for i := range s.Push {
		push := &s.Push[i]
		p.put(uint8(push.Step), 5)
		p.put(uint8(push.Stage), 2)
		p.put(push.At, 2)
		p.put(uint8(push.Missing), 4)
		p.put(uint8(push.Lease), 4)
		p.put(push.Document, 2)
		p.put(uint8(push.Others), 2)
	}
	for i := range s.Collect {
		c := &s.Collect[i]
		p.put(uint8(c.Step), 4)
		p.put(c.Run, 1)
		p.put(uint8(c.Mark), 4)
		p.put(uint8(c.Candidates), 4)
		p.put(c.Read, 3)
	}
	return p.words
}

func unpack(words packed) State {
	p := packer{words: words}
	var s State
	s.JSON = ids(p.get(4))
	s.File = ids(p.get(4))
	s.Held = ids(p.get(2))
	s.Fresh = ids(p.get(4))
	s.Tags[0] = p.get(2)
	s.Tags[1] = p.get(2)
	s.Removed = p.get(1) == 1
	s.Register.Generation = p.get(3)
	s.Register.Phase = phase(p.get(2))
	s.Register.List = ids(p.get(4))
	s.Register.Dead = p.get(1) == 1
	for i := range s.Push {
		s.Push[i] = push{
			Step: pushStep(p.get(5)), Stage: pushStage(p.get(2)), At: p.get(2),
			Missing: ids(p.get(4)), Lease: ids(p.get(4)), Document: p.get(2), Others: ids(p.get(2)),
		}
	}
	for i := range s.Collect {
		s.Collect[i] = collection{
			Step: collectStep(p.get(4)), Run: p.get(1),
			Mark: ids(p.get(4)), Candidates: ids(p.get(4)), Read: p.get(3),
		}
	}
	return s
}

const noParent = ^uint32(0)

// visited is a set of states in the order in which they came, with the state
// that each was reached from first.
type visited struct {
	states  []packed
	parents []uint32
	table   []uint32 // open addressing: an index into states, plus one
}

func newVisited() *visited { return &visited{table: make([]uint32, 1<<12)} }

func (w packed) hash() uint64 {
	h := w[0]*0x9e3779b97f4a7c15 ^ w[1]*0xc2b2ae3d27d4eb4f
	h ^= h >> 29
	h *= 0xbf58476d1ce4e5b9
	return h ^ h>>32
}

// add puts a state in and returns whether it is new.
func (v *visited) add(state packed, parent uint32) bool {
	mask := uint64(len(v.table) - 1)
	at := state.hash() & mask
	for v.table[at] != 0 {
		if v.states[v.table[at]-1] == state {
			return false
		}
		at = (at + 1) & mask
	}
	v.states = append(v.states, state)
	v.parents = append(v.parents, parent)
	v.table[at] = uint32(len(v.states))
	if 2*len(v.states) > len(v.table) {
		v.grow()
	}
	return true
}

func (v *visited) grow() {
	table := make([]uint32, 2*len(v.table))
	mask := uint64(len(table) - 1)
	for i, state := range v.states {
		at := state.hash() & mask
		for table[at] != 0 {
			at = (at + 1) & mask
		}
		table[at] = uint32(i + 1)
	}
	v.table = table
}
