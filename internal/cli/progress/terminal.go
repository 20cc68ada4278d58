package progress

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// terminal redraws a few lines: the status, then a line for each layer. Layers
// that do not fit are counted in one line, and those that run or failed keep
// theirs. Every frame leaves the cursor visible below the last line, so that
// there is nothing to restore when the process is killed.
type terminal struct {
	size  func() (width, height int)
	color bool
	names int // columns of the names of bars

	shown []line // what is on the screen
	width int    // of the screen when it was drawn
	meter meter  // of all layers
}

// line is one line of a frame.
type line struct {
	text  string
	state string // the end of the line
	paint string // the colour of state
}

const (
	green = "\x1b[32m"
	red   = "\x1b[31m"
	faint = "\x1b[2m"
	plain = "\x1b[0m"

	hide  = "\x1b[?25l" // the cursor, while it moves
	show  = "\x1b[?25h"
	toEnd = "\x1b[K" // clears the rest of the line
	below = "\x1b[J" // clears the rest of the screen
)

func newTerminal(now time.Time, size func() (width, height int), color bool) *terminal {
	return &terminal{size: size, color: color, names: shortDigest, meter: meter{at: now}}
}

func (t *terminal) draw(now time.Time, s scene) []byte {
	width, height := t.size()
	return t.replace(width, s.events, t.frame(now, s, max(width-1, 1), max(height-1, 0)))
}

func (t *terminal) close(_ time.Time, s scene) []byte {
	width, _ := t.size()
	return t.replace(width, s.events, nil)
}

// replace returns what turns the lines on the screen into the new notes followed by lines.
func (t *terminal) replace(width int, events []event, lines []line) []byte {
	var notes strings.Builder
	for _, e := range events {
		if e.note != "" {
			notes.WriteString(e.note + "\n") // a long one wraps: nothing will be drawn over it
		}
	}
	resized := width != t.width && len(t.shown) > 0
	if notes.Len() == 0 && !resized && slices.Equal(t.shown, lines) {
		return nil
	}

	var b strings.Builder
	b.WriteString(hide + "\r")
	if up := t.rows(width); up > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", up)
		if notes.Len() > 0 || resized || len(lines) == 0 {
			// Not the whole screen at once: some terminals would keep that in their history.
			b.WriteString(toEnd + "\n" + below + "\x1b[1A")
		}
	}
	b.WriteString(notes.String())
	for _, l := range lines {
		b.WriteString(l.text)
		if t.color && l.paint != "" {
			b.WriteString(l.paint + l.state + plain)
		} else {
			b.WriteString(l.state)
		}
		b.WriteString(toEnd + "\n")
	}
	if len(lines) > 0 {
		b.WriteString(below)
	}
	b.WriteString(show)
	t.shown, t.width = lines, width
	return []byte(b.String())
}

// rows is how many rows of the screen the lines on it take, now that it is
// width wide: when it becomes narrower, terminals wrap the lines they show.
func (t *terminal) rows(width int) int {
	n := 0
	for _, l := range t.shown {
		n += max(1, (columns(l.text)+columns(l.state)+width-1)/width)
	}
	return n
}

// frame is the lines to show, none wider than width, and at most height of them.
func (t *terminal) frame(now time.Time, s scene, width, height int) []line {
	var (
		lines []line
		sum   totals
	)
	if s.status.text != "" && height > 0 {
		lines = append(lines, statusLine(now, s.status, width))
		height--
	}
	bars := make([]reading, len(s.bars))
	for i, b := range s.bars {
		bars[i] = b.read()
		sum.add(bars[i])
	}
	rate := t.meter.rate(now, sum.raw)
	if len(bars) > height {
		var hidden totals
		bars, hidden = fold(bars, height-1)
		if height > 0 {
			lines = append(lines, line{text: cut(summary(hidden, sum, rate), width)})
		}
	}
	for _, r := range bars {
		lines = append(lines, barLine(now, r, t.names, width))
	}
	return lines
}

// fold picks the bars that keep a line when there is room for n, and counts the others.
func fold(all []reading, n int) (kept []reading, hidden totals) {
	runs := func(r reading) bool { return r.state == running && !r.waiting }
	active := 0
	for _, r := range all {
		if runs(r) {
			active++
		}
	}
	forRunning := min(active, max(n, 0))
	forFailed := max(n, 0) - forRunning
	for _, r := range all {
		switch {
		case runs(r) && forRunning > 0:
			forRunning--
			kept = append(kept, r)
		case r.state == failed && forFailed > 0:
			forFailed--
			kept = append(kept, r)
		default:
			hidden.add(r)
		}
	}
	return kept, hidden
}

// summary counts the hidden bars, and says how far all are. It stands above
// the bars, where it stays when their number changes.
func summary(hidden, all totals, rate int64) string {
	var counts []string
	for _, c := range []struct {
		n    int
		what string
	}{
		{hidden.running, "more running"},
		{hidden.failed, "failed"},
		{hidden.done, "done"},
		{hidden.present, "already there"},
		{hidden.waiting, "waiting"},
	} {
		if c.n > 0 {
			counts = append(counts, fmt.Sprint(c.n, " ", c.what))
		}
	}
	text := strings.Join(counts, ", ")
	if all.layers() == 0 {
		return text
	}
	text += ": " + all.bytes()
	if all.running > 0 {
		text += ", " + human(rate) + "/s"
	}
	return text
}

// statusLine is "| the engine is exporting myapp:1  3s".
func statusLine(now time.Time, s status, width int) line {
	waited := now.Sub(s.since)
	spinner := `|/-\`[waited/interval%4]
	tail := "  " + seconds(waited)
	text := cut(s.text, max(width-2-len(tail), 0))
	return line{text: cut(string(spinner)+" "+text+tail, width)}
}

const (
	minBar      = 8 // columns; a shorter bar says nothing and is left out
	maxBar      = 60
	shortDigest = len("4f5e6d7c8b9a")
	textColumns = len(" ") + len(" 45.2MB/45.2MB  already there")
)

// barLine is "4f5e6d7c8b9a [====>     ] 45.2MB/476MB   48.1MB/s".
func barLine(now time.Time, r reading, names, width int) line {
	text := fmt.Sprintf("%-*s ", names, r.name)
	n := min(width-textColumns-names, maxBar)
	gap := " "
	if n >= minBar {
		text += meterBar(now, r, n) + " "
		gap = "  "
	}

	size := ""
	if r.size >= 0 {
		size = human(r.size)
	}
	if r.state == running && !r.waiting {
		amount := fmt.Sprintf("%6s", human(r.arrived))
		if size != "" {
			amount += fmt.Sprintf("/%-6s", size)
		}
		text += fmt.Sprintf("%-13s%s%6s/s", amount, gap, human(r.meter.rate(now, r.raw)))
		return line{text: cut(text, width)}
	}

	var state, paint string
	switch r.state {
	case done:
		state, paint = "done", green
		if size == "" {
			size = human(r.arrived)
		}
	case failed:
		state, paint = "failed", red
	case present:
		state, paint = "already there", faint
	default:
		state, paint = "waiting", faint
		r.meter.rate(now, 0) // its time begins with its first byte
	}
	text += fmt.Sprintf("%6s%s", size, gap)
	if n >= minBar {
		text += strings.Repeat(" ", len("/45.2MB"))
	}
	text = cut(text, width)
	return line{text, cut(state, width-columns(text)), paint}
}

// meterBar is the bar itself, width columns of it.
func meterBar(now time.Time, r reading, width int) string {
	if r.state == present || r.waiting {
		return strings.Repeat(" ", width)
	}
	inner := width - 2
	if r.size < 0 && r.state == running { // how far is not known: something moves
		at := int(now.UnixMilli()/200) % (inner - 2)
		return "[" + strings.Repeat(" ", at) + "<=>" + strings.Repeat(" ", inner-3-at) + "]"
	}
	full := 0
	switch {
	case r.state == done || r.size == 0:
		full = inner
	case r.size > 0:
		full = int(float64(inner) * float64(r.arrived) / float64(r.size))
	}
	head := ""
	if full < inner {
		head = ">"
	}
	return "[" + strings.Repeat("=", full) + head + strings.Repeat(" ", inner-full-len(head)) + "]"
}
