package model

// push is a running push.
type push struct {
	Step     pushStep
	Stage    pushStage
	At       uint8 // the entry that is asked for next
	Missing  ids   // what is to be uploaded
	Lease    ids   // the ids in its lease; none when it has no lease, or a dead one, which others ignore
	Document uint8
	Others   ids // platforms of its index that others have marked, as far as it knows
}

type pushStep uint8

const (
	pushRead    pushStep = iota // a move reads the tag that it moves
	pushLease                   // P1
	pushSweep                   // P2
	pushAsk                     // P3, an entry each time
	pushFile                    // P3, uploads
	pushJSON                    // the same; last of its entry
	pushExtend                  // late ids: P1 for them
	pushMayMark                 // P5 for marks, is the lease alive?
	pushMark                    // P5, marks platforms
	pushLook                    // P4
	pushCheck                   // P5, is the lease alive?
	pushTag                     // P5
	pushBehind                  // P6
	pushUnlease                 // P7; success is reported from here on
	pushDrop                    // a move removes the tag that it moved
	pushDone
	pushFailed
	pushDead
)

func (s pushStep) over() bool { return s >= pushDone }

func (s pushStep) reported() bool { return s >= pushUnlease && s <= pushDone }

// pushStage is what a look at entries and an upload belong to.
type pushStage uint8

const (
	stageFirst  pushStage = iota // the ids that were known first
	stageAll                     // all ids, known at once or late
	stageLook                    // what P4 found missing
	stageBehind                  // what P6 found missing
)

func (m *machine) newPush(who Pusher) push {
	p := push{Step: pushLease, Document: who.Document}
	if who.Move {
		p = push{Step: pushRead}
	}
	return m.fromP1(who, p)
}

// fromP1 returns p where it begins, at first or again.
func (m *machine) fromP1(who Pusher, p push) push {
	stage := stageAll
	if who.First != 0 || who.Move {
		stage = stageFirst
	}
	return push{Step: p.Step, Stage: stage, Lease: p.Lease, Document: p.Document}
}

// first are the ids that a push has in its first lease.
func (m *machine) first(who Pusher, p *push) ids {
	switch {
	case who.Move:
		return one(p.Document)
	case who.First != 0:
		return who.First
	}
	return m.all(who, p)
}

// all are the ids that a push relies on, as far as it can know.
func (m *machine) all(who Pusher, p *push) ids {
	if m.Index {
		return one(p.Document) | who.Holds | p.Others
	}
	return m.closure(nil, p.Document)
}

// known are the ids that a push knows at its stage, and asked those of them that
// P3 asks for: not again for those that the lease has kept since they were.
func (m *machine) known(who Pusher, p *push) ids {
	if p.Stage == stageFirst {
		return m.first(who, p)
	}
	return m.all(who, p)
}

func (m *machine) asked(who Pusher, p *push) ids {
	if p.Stage == stageAll && (who.First != 0 || who.Move) {
		return m.all(who, p) &^ m.first(who, p)
	}
	return m.known(who, p)
}

// push takes the next step of a push and returns whether there is one.
func (m *machine) push(s *State, i int) bool {
	p, who := &s.Push[i], m.Pushers[i]
	switch p.Step {
	case pushRead:
		p.Document = s.Tags[1-who.Tag]
		p.Step = pushLease
		if p.Document == 0 {
			*p = push{Step: pushFailed}
		}
	case pushLease:
		p.Lease = m.known(who, p)
		if m.has(LeaseOfImageOnly) {
			p.Lease = one(p.Document)
		}
		p.Step = pushSweep
		if m.has(NoSweepRead) {
			m.ask(who, p)
		}
	case pushSweep:
		if m.mustWait(s, m.known(who, p)) {
			m.seen |= Waited
			return false
		}
		m.ask(who, p)
	case pushAsk:
		if m.learn(s, who, p) {
			break
		}
		if m.look(s, p, m.asked(who, p)) {
			m.afterLook(s, who, p, p.Stage)
		}
	case pushFile:
		s.File |= one(p.At)
		m.freshen(s, p.At)
		p.Step = pushJSON
	case pushJSON:
		s.JSON |= one(p.At)
		m.freshen(s, p.At)
		p.Missing &^= one(p.At)
		m.upload(p)
	case pushExtend:
		if p.Lease == 0 && !m.has(LeaseRevived) {
			m.again(who, p)
			break
		}
		m.seen |= Extended
		p.Lease = m.all(who, p)
		p.Stage = stageAll
		p.Step = pushSweep
		if m.has(ExtendWithoutRead) {
			m.ask(who, p)
		}
	case pushMayMark:
		if p.Lease == 0 {
			m.again(who, p)
			break
		}
		p.Step = pushMark
		if m.Alias && s.Held != 0 && s.Held&^m.judged(s) == 0 {
			m.lookFrom(p, pushLook) // one that serves is left
		}
	case pushMark:
		if m.Alias {
			s.Held = 0
		}
		s.Held |= who.Holds
		m.lookFrom(p, pushLook)
		if m.has(NoLookBefore) {
			m.check(p)
		}
	case pushLook:
		if m.learn(s, who, p) {
			break
		}
		if m.look(s, p, m.closure(s, p.Document)) {
			m.afterLook(s, who, p, stageLook)
		}
	case pushCheck:
		switch {
		case p.Lease == 0 && m.has(LeaseRevived):
			p.Lease = m.all(who, p)
		case p.Lease == 0:
			m.again(who, p)
			return true
		case m.has(LeaseRemovedFirst):
			p.Lease = 0
		}
		p.Step = pushTag
	case pushTag:
		s.Tags[who.Tag] = p.Document
		m.lookFrom(p, pushBehind)
		if m.has(NoLookBehind) {
			m.report(p)
		}
	case pushBehind:
		if m.look(s, p, m.closure(s, p.Document)) {
			m.afterLook(s, who, p, stageBehind)
		}
	case pushUnlease:
		*p = push{Step: pushDone, Document: p.Document}
		if who.Move {
			p.Step = pushDrop
		}
	case pushDrop:
		// Compare-and-delete: what somebody else wrote stays.
		if s.Tags[1-who.Tag] == p.Document {
			s.Tags[1-who.Tag] = 0
		}
		p.Step = pushDone
	default:
		return false
	}
	return true
}

// mustWait returns whether P2 has to wait with these ids.
func (m *machine) mustWait(s *State, known ids) bool {
	r := s.Register
	return r.Phase == listed && r.List&known != 0 && (!r.Dead || m.has(DeadSweepsWaitedFor))
}

// learn reads the marks of the index, if it is its turn, and returns whether a push
// does not go on with its look: there are marks that it did not know of, which it
// has to take into its lease, or none, where it brings none.
func (m *machine) learn(s *State, who Pusher, p *push) bool {
	if !m.isIndex(p.At) {
		return false
	}
	if who.Move && s.Held == 0 { // it is no image
		*p = push{Step: pushFailed, Lease: p.Lease}
		return true
	}
	others := s.Held &^ m.all(who, p)
	if others == 0 || m.has(HeldNotLeased) {
		return false
	}
	*p = push{Step: pushExtend, Lease: p.Lease, Document: p.Document, Others: p.Others | others}
	return true
}

// again begins at P1 after the lease was found dead.
func (m *machine) again(who Pusher, p *push) {
	m.seen |= BeganAgain
	*p = m.fromP1(who, *p)
	p.Step = pushLease
}

// ask begins P3.
func (m *machine) ask(who Pusher, p *push) {
	asked := m.asked(who, p)
	if asked == 0 {
		m.afterP3(p)
		return
	}
	p.Step = pushAsk
	p.At = m.firstOf(asked)
}

// lookFrom begins P4 or P6.
func (m *machine) lookFrom(p *push, step pushStep) {
	p.Step, p.Stage = step, stageAll
	p.At = p.Document // of an index: first of all what is marked in it
	if !m.Index {
		p.At = m.firstOf(m.closure(nil, p.Document))
	}
}

// firstOf and nextOf are the order in which entries are asked for: an index,
// then what is marked in it; else children first.
func (m *machine) firstOf(those ids) uint8 {
	if index := uint8(m.Layers); m.Index && those.has(index) {
		return index
	}
	at, _ := those.next(0)
	return at
}

func (m *machine) nextOf(those ids, at uint8) (uint8, bool) {
	if !m.Index {
		return those.next(at + 1)
	}
	if m.isIndex(at) {
		return (those & m.layers).next(0)
	}
	return (those & m.layers).next(at + 1)
}

// look asks for one entry of those and returns whether it was the last.
func (m *machine) look(s *State, p *push, those ids) bool {
	if !m.judged(s).has(p.At) {
		p.Missing |= one(p.At)
	}
	at, more := m.nextOf(those, p.At)
	p.At = at
	return !more
}

// afterLook goes on with what a look found at a stage.
func (m *machine) afterLook(s *State, who Pusher, p *push, stage pushStage) {
	p.Stage = stage
	if p.Missing != 0 {
		if stage == stageLook && p.Lease != 0 || stage == stageBehind && s.Tags[who.Tag] == p.Document {
			m.seen |= Mended
		}
		if cannot := m.Index && p.Missing&^(who.Holds|one(p.Document)) != 0; cannot && p.Lease == 0 {
			m.again(who, p)
			return
		} else if cannot || who.Move {
			m.seen |= GaveUp
			*p = push{Step: pushFailed, Lease: p.Lease}
			return
		}
		m.upload(p)
		return
	}
	switch stage {
	case stageFirst, stageAll:
		m.afterP3(p)
	case stageLook:
		m.check(p)
	case stageBehind:
		m.report(p)
	}
}

// upload goes on with what is missing, children first, or with what comes after it.
func (m *machine) upload(p *push) {
	at, more := p.Missing.next(0)
	p.At = at
	switch {
	case more && m.layers.has(at):
		p.Step = pushFile
	case more:
		p.Step = pushJSON
	case p.Stage == stageLook:
		m.lookFrom(p, pushLook)
	case p.Stage == stageBehind:
		m.lookFrom(p, pushBehind)
	default:
		m.afterP3(p)
	}
}

func (m *machine) afterP3(p *push) {
	switch {
	case p.Stage == stageFirst:
		p.At, p.Step = 0, pushExtend
	case m.Index && m.has(MarkWithoutCheck):
		p.At, p.Step = 0, pushMark
	case m.Index:
		p.At, p.Step = 0, pushMayMark
	case m.has(NoLookBefore):
		m.check(p)
	default:
		m.lookFrom(p, pushLook)
	}
}

func (m *machine) check(p *push) {
	p.At, p.Stage, p.Step = 0, stageAll, pushCheck
	if m.has(NoLeaseCheck) {
		p.Step = pushTag
	}
}

func (m *machine) report(p *push) {
	m.seen |= Reported
	*p = push{Step: pushUnlease, Lease: p.Lease, Document: p.Document}
}

// freshen makes an entry too young for collection.
func (m *machine) freshen(s *State, id uint8) {
	if m.Grace {
		s.Fresh |= one(id)
	}
}

// killPush ends a push where it is. Its lease stays.
func (m *machine) killPush(s *State, i int) {
	p := &s.Push[i]
	*p = push{Step: pushDead, Lease: p.Lease}
}

// leaseMayDie returns whether time allows that a lease dies now.
func (m *machine) leaseMayDie(s *State, i int) bool {
	p := &s.Push[i]
	checked := p.Step == pushTag && !m.has(NoLeaseCheck) || p.Step == pushMark && !m.has(MarkWithoutCheck)
	return p.Lease != 0 && (!checked || m.has(LateTag))
}
