package progress

import (
	"fmt"
	"strings"
	"time"
)

const (
	reportEvery = 10 * time.Second // between two lines about layers that run
	manyPresent = 20               // layers already there that get a line each; more are counted in one
	statusAfter = time.Second / 2  // how long a wait lasts before it gets a line
)

// lines writes for a log: every line stays, so there are few.
type lines struct {
	verb    string // see Options.Verb
	out     strings.Builder
	present []string // names of layers already there, not yet written
	named   int      // how many of those got a line

	waited time.Time // the beginning of the last wait that got a line

	at  time.Time // of the last report, or when nothing ran
	raw int64     // bytes that had gone by then
}

func newLines(now time.Time) *lines { return &lines{at: now} }

func (l *lines) draw(now time.Time, s scene) []byte {
	came := l.write(s.events)
	if !came { // they come in one burst: wait for its end before choosing how to say it
		switch n := len(l.present); {
		case n > manyPresent:
			l.count()
		case n+l.named <= manyPresent:
			l.name()
		}
	}
	if s.status.text != "" && now.Sub(s.status.since) >= statusAfter && s.status.since != l.waited {
		l.waited = s.status.since
		l.printf("%s …", s.status.text)
	}
	l.report(now, s.bars)
	return l.flush()
}

func (l *lines) close(_ time.Time, s scene) []byte {
	l.write(s.events)
	l.settle()
	return l.flush()
}

func (l *lines) printf(format string, args ...any) { fmt.Fprintf(&l.out, format+"\n", args...) }

func (l *lines) flush() []byte {
	out := []byte(l.out.String())
	l.out.Reset()
	return out
}

// write says what happened, and whether layers that are already there were among it.
func (l *lines) write(events []event) (came bool) {
	for _, e := range events {
		switch {
		case e.note != "":
			l.printf("%s", e.note)
		case e.ended != nil:
			switch r := e.ended.read(); r.state {
			case present:
				l.present = append(l.present, r.name)
				came = true
			case done:
				l.printf("%s: done %s", r.name, human(r.arrived))
			case failed:
				l.printf("%s: failed", r.name)
			}
		}
	}
	return came
}

// name gives each layer that is already there a line.
func (l *lines) name() {
	for _, n := range l.present {
		l.printf("%s: already there", n)
	}
	l.named += len(l.present)
	l.present = nil
}

// count gives all layers that are already there one line.
func (l *lines) count() {
	switch n := len(l.present); n {
	case 0:
	case 1:
		l.name()
	default:
		l.printf("%d layers: already there", n)
	}
	l.present = nil
}

// settle says which layers are already there, as far as it was not said yet.
func (l *lines) settle() {
	if len(l.present)+l.named <= manyPresent {
		l.name()
	} else {
		l.count()
	}
}

// report says how far all layers are, when some have been running for a while.
func (l *lines) report(now time.Time, bars []*bar) {
	var sum totals
	for _, b := range bars {
		sum.add(b.read())
	}
	if sum.running == 0 {
		l.at, l.raw = now, sum.raw
		return
	}
	passed := now.Sub(l.at)
	if passed < reportEvery {
		return
	}
	l.settle()
	rate := int64(max(float64(sum.raw-l.raw)/passed.Seconds(), 0))
	if l.verb != "" {
		l.printf("%s %s, %s/s", l.verb, sum.bytes(), human(rate))
	} else {
		l.printf("moved %s, %d of %d layers, %s/s", sum.bytes(), sum.done, sum.layers(), human(rate))
	}
	l.at, l.raw = now, sum.raw
}
