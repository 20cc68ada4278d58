package model

// collection is a running garbage collection.
type collection struct {
	Step       collectStep
	Run        uint8
	Mark       ids   // G2: what roots reach; G4: the index, if a lease has it; before G1 the generation that was read
	Candidates ids   // what is to be deleted; before G1 the phase that was read
	Read       uint8 // what of a listing has been read: a bit for each object, or how many entries
}

type collectStep uint8

const (
	collectRead    collectStep = iota // G1, reads the register
	collectSwap                       // G1, swaps it
	collectMark                       // G2, a tag each time
	collectList                       // G2, an entry each time
	collectPublish                    // G3
	collectLeases                     // G4, a lease each time
	collectAgain                      // G4, the same once more
	collectRoots                      // G4, a tag each time
	collectCheck                      // G5, before each entry
	collectDelete                     // G5, the first object of an entry
	collectRest                       // G5, the other one of a layer
	collectEnd                        // G6
	collectDone
	collectDead
)

func (s collectStep) over() bool { return s >= collectDone }

func (s collectStep) deletes() bool { return s == collectDelete || s == collectRest }

// generation is that of a collector's present run.
func (m *machine) generation(i int, c *collection) uint8 {
	return 1 + uint8(i*m.Runs) + c.Run
}

// choices is how many next steps a collector has: in a listing any object that
// was not read yet may be the next. Some of them are no steps.
func (m *machine) choices(s *State, i int) int {
	switch s.Collect[i].Step {
	case collectMark:
		return maxTags
	case collectRoots:
		if m.Index {
			return maxTags + 1 // and the index of a lease
		}
		return maxTags
	case collectLeases, collectAgain:
		return len(m.Pushers)
	case collectDone, collectDead:
		return 0
	}
	return 1
}

// collect takes a next step of a collector and returns whether there is one.
func (m *machine) collect(s *State, i int, choice uint8) bool {
	c := &s.Collect[i]
	generation := m.generation(i, c)
	mine := s.Register.running() && s.Register.Generation == generation
	switch c.Step {
	case collectRead:
		if s.Register.running() && !s.Register.Dead {
			return false
		}
		c.Mark, c.Candidates = ids(s.Register.Generation), ids(s.Register.Phase)
		c.Step = collectSwap
	case collectSwap:
		same := c.Mark == ids(s.Register.Generation) && c.Candidates == ids(s.Register.Phase)
		c.Mark, c.Candidates = 0, 0
		if !same && !m.has(TakeoverOverwrites) {
			m.seen |= LostRace
			c.Step = collectRead
			break
		}
		if s.Register.running() {
			m.seen |= TookOver
		}
		s.Register = register{Generation: generation, Phase: marking}
		c.Step = collectMark
	case collectMark:
		if c.Read&(1<<choice) != 0 {
			return false
		}
		if document := s.Tags[choice]; document != 0 {
			c.Mark |= m.reached(s, document)
		}
		c.Read |= 1 << choice
		if c.Read == 1<<maxTags-1 {
			c.Read, c.Step = 0, collectList
		}
	case collectList:
		there := ((s.JSON | s.File).has(c.Read) || m.isIndex(c.Read) && s.Held != 0) && !c.Mark.has(c.Read)
		if there && !s.Fresh.has(c.Read) {
			c.Candidates |= one(c.Read)
		}
		c.Read++
		if int(c.Read) == m.Layers+len(m.Documents) {
			c.Mark, c.Read = 0, 0
			m.afterG2(c)
		}
	case collectPublish:
		if !mine || s.Register.Phase != marking {
			m.seen |= LostRace
			*c = collection{Step: collectDone, Run: c.Run}
			break
		}
		s.Register = register{Generation: generation, Phase: listed, List: c.Candidates}
		m.afterG2(c)
	case collectLeases, collectAgain:
		if c.Read&(1<<choice) != 0 {
			return false
		}
		lease := s.Push[choice].Lease
		m.spare(c, lease)
		if m.Index {
			c.Mark |= lease &^ m.layers
		}
		c.Read |= 1 << choice
		if c.Read == 1<<len(m.Pushers)-1 || c.Candidates == 0 {
			c.Read = 0
			if c.Candidates == 0 || m.has(LeasesNotFollowed) {
				c.Mark = 0
			}
			m.afterG2(c)
		}
	case collectRoots:
		if c.Read&(1<<choice) != 0 {
			return false
		}
		if choice == maxTags {
			m.follow(s, c)
		} else if document := s.Tags[choice]; document != 0 {
			m.spare(c, m.reached(s, document))
		}
		c.Read |= 1 << choice
		if c.Read == 1<<m.choices(s, i)-1 || c.Candidates == 0 {
			c.Read, c.Mark = 0, 0
			m.afterG2(c)
		}
	case collectCheck:
		c.Step = collectDelete
		if !mine || s.Register.Dead && !m.has(NoSweepClock) {
			c.Candidates, c.Step = 0, collectEnd
		}
	case collectDelete:
		m.seen |= Deleted
		id := c.next()
		switch {
		case m.layers.has(id) && m.has(FileFirst):
			s.File &^= one(id)
		case m.isIndex(id) && !m.has(MarksLast):
			s.Held = 0
		default:
			s.JSON &^= one(id)
		}
		c.Step = collectRest
		if !m.layers.has(id) && !m.isIndex(id) {
			m.deleted(s, c)
		}
	case collectRest:
		switch id := c.next(); {
		case m.isIndex(id) && m.has(MarksLast):
			s.Held = 0
		case m.isIndex(id), m.has(FileFirst):
			s.JSON &^= one(id)
		default:
			s.File &^= one(id)
		}
		m.deleted(s, c)
	case collectEnd:
		switch {
		case m.has(EndDeletesRegister):
			s.Register = register{Phase: absent}
		case mine || m.has(EndOverwrites):
			s.Register = register{Generation: generation}
		}
		if int(c.Run)+1 < m.Runs {
			*c = collection{Run: c.Run + 1}
			break
		}
		*c = collection{Step: collectDone, Run: c.Run}
	default:
		return false
	}
	return true
}

// afterG2 goes on in the order of steps between G2 and G5. A collector that has
// nothing to delete ends.
func (m *machine) afterG2(c *collection) {
	if c.Candidates == 0 {
		c.Step = collectEnd
		return
	}
	next := 0
	for n, step := range m.order {
		if step == c.Step {
			next = n + 1
		}
	}
	c.Step = collectCheck
	for ; next < len(m.order); next++ {
		step := m.order[next]
		if m.skipped(step) {
			continue
		}
		c.Step = step
		return
	}
}

// follow spares what is marked in an index that a lease has.
func (m *machine) follow(s *State, c *collection) {
	for id, more := c.Mark.next(0); more; id, more = c.Mark.next(id + 1) {
		m.spare(c, m.reached(s, id))
	}
}

// skipped returns whether a departure leaves out a step.
func (m *machine) skipped(s collectStep) bool {
	switch s {
	case collectLeases:
		return m.has(NoLookAtLeases)
	case collectAgain:
		return m.has(NoLookAtLeases) || m.has(LeasesReadOnce)
	case collectRoots:
		return m.has(NoLookAtRoots)
	}
	return false
}

func (m *machine) spare(c *collection, those ids) {
	if c.Candidates&those != 0 {
		m.seen |= Spared
	}
	c.Candidates &^= those
}

// next is the entry that is deleted next: documents before layers.
func (c *collection) next() uint8 {
	for id := uint8(maxIDs - 1); ; id-- {
		if c.Candidates.has(id) || id == 0 {
			return id
		}
	}
}

// deleted goes on behind an entry.
func (m *machine) deleted(s *State, c *collection) {
	id := c.next()
	if s.JSON&one(id) == 0 && s.File&one(id) == 0 {
		s.Fresh &^= one(id)
	}
	c.Candidates &^= one(id)
	c.Step = collectCheck
	if c.Candidates == 0 {
		c.Step = collectEnd
	}
}

// sweepMayDie returns whether time allows that the sweep in the register dies now.
func (m *machine) sweepMayDie(s *State) bool {
	if !s.Register.running() || s.Register.Dead {
		return false
	}
	for i := range m.Collectors {
		c := &s.Collect[i]
		if c.Step.deletes() && s.Register.Generation == m.generation(i, c) && !m.has(LateDelete) {
			return false
		}
	}
	return true
}
