package agent

import (
	"bufio"
	"io"

	"github.com/dogestry/dogestry/internal/transfer"
)

func newLines(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	return s
}

// shown is what of an agent's events was shown already: one that is asked again tells
// from the beginning how it goes.
type shown struct {
	progress transfer.Progress
	bars     []*shownBar
	now      []*shownBar // by their numbers in this connection
	notes    int         // in all
	expected int64       // bytes, the same
	came     int         // in this connection
}

// expecter is a fleet.Progress.
type expecter interface{ Expect(bytes int64) }

type shownBar struct {
	transfer.Bar
	name  string
	bytes int64
	taken bool // in this connection
	ended bool
}

// again is told that a new connection begins.
func (s *shown) again() {
	s.now, s.came = nil, 0
	for _, b := range s.bars {
		b.taken = false
	}
}

// show shows an event. Whatever an agent sends, it keeps account of no more layers and
// notes than there can be.
func (s *shown) show(e event) {
	switch {
	case e.Status != nil:
		s.progress.Status(*e.Status)
	case e.Note != "":
		if s.came++; s.came > s.notes && s.notes < maxNotes {
			s.notes++
			s.progress.Note(e.Note)
		}
	case e.Expect > s.expected:
		if p, ok := s.progress.(expecter); ok {
			p.Expect(e.Expect - s.expected)
		}
		s.expected = e.Expect
	case e.Layer != nil:
		s.layer(*e.Layer)
	}
}

func (s *shown) layer(l layerEvent) {
	switch {
	case l.N == len(s.now) && len(s.now) < maxLayers:
		s.now = append(s.now, s.bar(l))
	case l.N < 0 || l.N >= len(s.now):
		return
	}
	b := s.now[l.N]
	if more := l.Bytes - b.bytes; more > 0 {
		b.Add(int(more))
		b.bytes = l.Bytes
	}
	switch l.State {
	case statePresent:
		b.Present()
	case stateDone:
		b.Done()
	case stateFailed:
		b.Fail()
	default:
		return
	}
	b.ended = true
}

// bar returns that of a layer, which may have been there before the connection broke.
func (s *shown) bar(l layerEvent) *shownBar {
	for _, b := range s.bars {
		if b.name == l.Name && !b.taken {
			b.taken = true
			return b
		}
	}
	if len(s.bars) == maxLayers {
		return &shownBar{Bar: transfer.NoProgress{}.Layer("", 0)}
	}
	b := &shownBar{Bar: s.progress.Layer(l.Name, l.Size), name: l.Name, taken: true}
	s.bars = append(s.bars, b)
	return b
}

// end ends what has not ended.
func (s *shown) end() {
	s.progress.Status("")
	for _, b := range s.bars {
		if !b.ended {
			b.Fail()
		}
	}
}
