package progress

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// state is where a bar is.
type state int32

const (
	running state = iota
	present
	done
	failed
)

// bar is one layer on its way.
type bar struct {
	display *Display
	name    string
	size    atomic.Int64 // decoded bytes, -1 where not known
	moved   atomic.Int64
	state   atomic.Int32

	meter meter // used by the view only
}

// Add says that n more decoded bytes went by.
func (b *bar) Add(n int) {
	if state(b.state.Load()) == running {
		b.moved.Add(int64(n))
	}
}

// Present ends the bar: the layer does not travel.
func (b *bar) Present() { b.end(present) }

// Done ends the bar: the layer has arrived.
func (b *bar) Done() { b.end(done) }

// Fail ends the bar: the layer has not arrived.
func (b *bar) Fail() { b.end(failed) }

// grow adds n to the size.
func (b *bar) grow(n int64) {
	if !b.size.CompareAndSwap(-1, n) {
		b.size.Add(n)
	}
}

func (b *bar) end(s state) {
	if b.state.CompareAndSwap(int32(running), int32(s)) {
		b.display.ended(b)
	}
}

// reading is what a bar says at one moment.
type reading struct {
	*bar
	state   state
	size    int64 // as the bar's
	raw     int64 // bytes that went by, also those of an attempt that failed
	arrived int64 // of them, what counts towards the size
	waiting bool  // nothing went by yet
}

func (b *bar) read() reading {
	r := reading{bar: b, state: state(b.state.Load()), size: b.size.Load(), raw: max(b.moved.Load(), 0)}
	r.arrived = r.raw
	if r.size >= 0 && (r.state == done || r.arrived > r.size) {
		r.arrived = r.size
	}
	r.waiting = r.state == running && r.raw == 0
	return r
}

// totals sum up bars.
type totals struct {
	running, waiting, done, present, failed int

	raw     int64 // bytes that went by
	arrived int64 // of them, what counts towards the size
	size    int64 // bytes that are to travel
	unsized bool  // a layer's size is not known, so size is too small
}

func (t *totals) add(r reading) {
	switch {
	case r.state == present:
		t.present++
		return // does not travel
	case r.state == done:
		t.done++
	case r.state == failed:
		t.failed++
	case r.waiting:
		t.waiting++
	default:
		t.running++
	}
	t.raw += r.raw
	t.arrived += r.arrived
	switch {
	case r.size >= 0:
		t.size += r.size
	case r.state == done:
		t.size += r.raw
	default:
		t.unsized = true
	}
}

// layers is how many layers travel.
func (t *totals) layers() int { return t.running + t.waiting + t.done + t.failed }

// bytes is "210MB of 476MB", or "210MB" where the sum is not known.
func (t *totals) bytes() string {
	if t.unsized {
		return human(t.arrived)
	}
	return fmt.Sprintf("%s of %s", human(t.arrived), human(t.size))
}

// meter averages a rate over the last few seconds, less over what is longer ago.
type meter struct {
	at          time.Time
	last        int64
	sum, weight float64
}

// memory is the age at which a measurement counts for 1/e of a fresh one.
const memory = 2 * time.Second

// rate is the bytes per second at now, when total bytes have gone by. Waiting
// for the first of them does not count.
func (m *meter) rate(now time.Time, total int64) int64 {
	if total == 0 {
		*m = meter{at: now}
		return 0
	}
	if dt := now.Sub(m.at); dt > 0 {
		a := 1 - math.Exp(-float64(dt)/float64(memory))
		m.sum += a * (float64(total-m.last)/dt.Seconds() - m.sum)
		m.weight += a * (1 - m.weight)
		m.at, m.last = now, total
	}
	if m.weight == 0 {
		return 0
	}
	return int64(math.Round(max(m.sum/m.weight, 0)))
}
