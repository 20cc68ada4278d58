package model

import (
	"fmt"
	"strings"
)

// trace tells the way to a state.
func (m *machine) trace(v *visited, last uint32) []string {
	var way []packed
	for i := last; i != noParent; i = v.parents[i] {
		way = append(way, v.states[i])
	}
	s := unpack(way[len(way)-1])
	lines := []string{"begin: " + m.inventory(&s)}
	for i := len(way) - 2; i >= 0; i-- {
		said := false
		m.successors(&s, func(next *State, who actor) {
			if !said && pack(next) == way[i] {
				lines = append(lines, m.tell(&s, next, who))
				said = true
			}
		})
		s = unpack(way[i])
	}
	return append(lines, "then:  "+m.inventory(&s))
}

const names = "xyDE"

// nameIDs gives entries the names under which traces tell of them.
func (m *machine) nameIDs(those ids) string {
	var b strings.Builder
	for id := range uint8(maxIDs) {
		if those.has(id) {
			b.WriteString(m.nameID(id))
		}
	}
	if b.Len() == 0 {
		return "nothing"
	}
	return b.String()
}

func (m *machine) nameID(id uint8) string {
	if m.layers.has(id) {
		return names[id : id+1]
	}
	at := 2 + int(id) - m.Layers
	return names[at : at+1]
}

// inventory is what the store holds.
func (m *machine) inventory(s *State) string {
	whole := m.whole(s)
	text := m.nameIDs(whole) + " whole"
	if json := s.JSON &^ whole; json != 0 {
		text += ", json alone of " + m.nameIDs(json)
	}
	if file := s.File &^ whole; file != 0 {
		text += ", file alone of " + m.nameIDs(file)
	}
	if s.Held != 0 {
		text += ", marked: " + m.nameIDs(s.Held)
	}
	for n, document := range s.Tags {
		if document != 0 {
			text += fmt.Sprintf(", tag %d names %s", n, m.nameID(document))
		}
	}
	return text
}

// tell is a line about a step.
func (m *machine) tell(before, after *State, who actor) string {
	switch who.kind {
	case pushes:
		name := fmt.Sprintf("push %d", who.n+1)
		if m.Pushers[who.n].Move {
			name = "move"
		}
		return fmt.Sprintf("%-6s %s", name, m.tellPush(before, after, int(who.n)))
	case collects:
		return fmt.Sprintf("gc %d   %s", who.n+1, m.tellCollect(before, after, who))
	case removes:
		return "rm     removes tag 0"
	case pushDies:
		return fmt.Sprintf("push %d dies", who.n+1)
	case collectorDies:
		return fmt.Sprintf("gc %d   dies", who.n+1)
	case leaseDies:
		return fmt.Sprintf("time   the lease of push %d is dead", who.n+1)
	}
	return "time   the sweep is dead"
}

func (m *machine) tellPush(before, after *State, i int) string {
	b, a, who := &before.Push[i], &after.Push[i], m.Pushers[i]
	found := func() string {
		there := "there"
		if !m.judged(before).has(b.At) {
			there = "missing"
		}
		return m.nameID(b.At) + ": " + there
	}
	switch b.Step {
	case pushRead:
		return fmt.Sprintf("reads tag %d", 1-who.Tag)
	case pushLease:
		return "P1 writes its lease with " + m.nameIDs(a.Lease)
	case pushSweep:
		return "P2 reads the register: " + m.tellRegister(before)
	case pushAsk, pushLook:
		name := "P3"
		if b.Step == pushLook {
			name = "P4"
		}
		if a.Step == pushExtend && a.Others != b.Others {
			return fmt.Sprintf("%s finds %s marked in %s by others", name, m.nameIDs(a.Others), m.nameID(b.Document))
		}
		return name + " asks for " + found()
	case pushFile:
		return "P3 uploads the file of " + m.nameID(b.At)
	case pushJSON:
		return "P3 uploads the json of " + m.nameID(b.At)
	case pushExtend:
		if a.Step == pushLease {
			return "finds its lease dead and begins again"
		}
		return "P1 extends its lease to " + m.nameIDs(a.Lease)
	case pushMayMark:
		if a.Step == pushLease {
			return "P5 finds its lease dead and begins again"
		}
		return "P5 finds its lease alive"
	case pushMark:
		return fmt.Sprintf("P5 marks %s in %s", m.nameIDs(who.Holds), m.nameID(b.Document))
	case pushCheck:
		if a.Step == pushLease {
			return "P5 finds its lease dead and begins again"
		}
		if b.Lease == 0 {
			return "P5 revives its lease"
		}
		return "P5 finds its lease alive"
	case pushTag:
		return fmt.Sprintf("P5 writes tag %d", who.Tag)
	case pushBehind:
		return "P6 asks for " + found()
	case pushUnlease:
		return "P7 removes its lease"
	}
	return fmt.Sprintf("removes tag %d", 1-who.Tag)
}

func (m *machine) tellCollect(before, after *State, who actor) string {
	b, a := &before.Collect[who.n], &after.Collect[who.n]
	switch b.Step {
	case collectRead:
		return "G1 reads the register: " + m.tellRegister(before)
	case collectSwap:
		if a.Step == collectRead {
			return "G1 is refused the swap"
		}
		return "G1 swaps the register to marking"
	case collectMark:
		return fmt.Sprintf("G2 reads tag %d; reached: %s", who.choice, m.nameIDs(a.Mark))
	case collectList:
		return fmt.Sprintf("G2 lists %s; candidates: %s", m.nameID(b.Read), m.nameIDs(a.Candidates|b.Candidates))
	case collectPublish:
		if a.Step == collectDone {
			return "G3 is refused the swap and stops"
		}
		return "G3 swaps in the list: " + m.nameIDs(after.Register.List)
	case collectLeases, collectAgain:
		return fmt.Sprintf("G4 reads the lease of push %d: %s; left: %s", who.choice+1, m.nameIDs(before.Push[who.choice].Lease), m.nameIDs(a.Candidates))
	case collectRoots:
		if who.choice == maxTags {
			return fmt.Sprintf("G4 follows the leases; left: %s", m.nameIDs(a.Candidates))
		}
		return fmt.Sprintf("G4 reads tag %d; left: %s", who.choice, m.nameIDs(a.Candidates))
	case collectCheck:
		if a.Step == collectEnd {
			return "G5 may delete no more"
		}
		return "G5 may delete " + m.nameID(a.next())
	case collectDelete:
		if m.layers.has(b.next()) && m.has(FileFirst) {
			return "G5 deletes the file of " + m.nameID(b.next())
		}
		if m.isIndex(b.next()) && !m.has(MarksLast) {
			return "G5 deletes the marks of " + m.nameID(b.next())
		}
		return "G5 deletes the json of " + m.nameID(b.next())
	case collectRest:
		switch id := b.next(); {
		case m.isIndex(id) && m.has(MarksLast):
			return "G5 deletes the marks of " + m.nameID(id)
		case m.isIndex(id), m.has(FileFirst):
			return "G5 deletes the json of " + m.nameID(b.next())
		}
		return "G5 deletes the file of " + m.nameID(b.next())
	}
	return "G6 ends; the register: " + m.tellRegister(after)
}

func (m *machine) tellRegister(s *State) string {
	r := s.Register
	if !r.running() {
		if r.Phase == absent {
			return "absent"
		}
		return "ended"
	}
	text := fmt.Sprintf("run %d, marking", r.Generation)
	if r.Phase == listed {
		text = fmt.Sprintf("run %d, list %s", r.Generation, m.nameIDs(r.List))
	}
	if r.Dead {
		text += ", dead"
	}
	return text
}
