// Package progress shows on a terminal, or in a log, what a transfer is doing,
// so that nobody waits in silence.
//
// The renderer is our own, not vbauerster/mpb's: what does not fit the screen
// is to be folded into one line that counts it, while mpb drops such rows, has
// no row that sums up others, and takes a goroutine for every bar. Redrawing a
// few lines from one ticker is less code than bending it.
package progress

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/transfer"
	"golang.org/x/term"
)

// interval is the time between two frames.
const interval = 100 * time.Millisecond

// Choice is an option that the surroundings decide unless the user does.
type Choice int

// The values of a Choice.
const (
	Auto Choice = iota
	Always
	Never
)

// Options say how a Display speaks. The zero value suits a command.
type Options struct {
	Quiet bool   // say nothing at all
	Bars  Choice // lines that are redrawn. Auto: on a terminal, unless TERM is dumb or unset
	Color Choice // Auto: unless NO_COLOR is set. Bars only

	// Verb is what a log says of bytes that went by; empty means "moved", with the
	// number of layers: otherwise a bar is of many.
	Verb string

	// Names is how many columns the names of bars take; 0 means those of a short digest.
	Names int

	size func() (width, height int) // of the terminal; nil asks it
}

// Display is a transfer.Progress that draws what it is told on a terminal, or
// writes it line by line elsewhere. Its methods are safe for concurrent use and
// do not wait for the writer; a goroutine of its own writes, until Close.
type Display struct {
	w    io.Writer
	view view // used by run only

	mu     sync.Mutex
	bars   []*bar // in the order they were announced; only appended to
	events []event
	status status
	closed bool

	quit chan struct{} // closed by Close
	done chan struct{} // closed by run when the last frame is written
}

var _ transfer.Progress = (*Display)(nil)

// view turns what happened into the bytes to write. It is used by one goroutine.
type view interface {
	// draw returns the next frame, or nothing where it would not change.
	draw(now time.Time, s scene) []byte
	// close returns the last one.
	close(now time.Time, s scene) []byte
}

// scene is what a frame shows.
type scene struct {
	bars   []*bar
	events []event // since the previous frame, in order
	status status
}

// status is what dogestry waits for, if anything.
type status struct {
	text  string
	since time.Time
}

// event is something that happened once: a note, or the end of a bar.
type event struct {
	note  string
	ended *bar
}

// New returns a Display that writes to w. The caller closes it, and writes
// nothing else to w before that. Errors of w are not reported: progress is not
// worth failing a transfer for.
func New(w io.Writer, o Options) *Display {
	d := &Display{w: w, quit: make(chan struct{}), done: make(chan struct{})}
	switch {
	case o.Quiet:
		d.closed = true
		close(d.done)
		return d
	case o.bars(w):
		if o.size == nil {
			o.size = sizeOf(w)
		}
		color := o.Color == Always || o.Color == Auto && os.Getenv("NO_COLOR") == ""
		t := newTerminal(time.Now(), o.size, color)
		t.names = max(t.names, o.Names)
		d.view = t
	default:
		l := newLines(time.Now())
		l.verb = o.Verb
		d.view = l
	}
	go d.run()
	return d
}

// bars says whether lines on w are to be redrawn.
func (o Options) bars(w io.Writer) bool {
	if o.Bars != Auto {
		return o.Bars == Always
	}
	if t := os.Getenv("TERM"); t == "" || t == "dumb" {
		return false
	}
	f, ok := w.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}

// sizeOf returns a function that asks w for its size, or assumes 80 by 24 where it does not say.
func sizeOf(w io.Writer) func() (width, height int) {
	f, ok := w.(interface{ Fd() uintptr })
	return func() (int, int) {
		if ok {
			if width, height, err := term.GetSize(int(f.Fd())); err == nil && width > 0 && height > 0 {
				return width, height
			}
		}
		return 80, 24
	}
}

// Status says what dogestry waits for, until the next call; an empty text ends it.
func (d *Display) Status(text string) {
	text = clean(text)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || text == d.status.text {
		return
	}
	d.status = status{text, time.Now()}
}

// Note says something that stays on the screen, one line. Control characters
// in it become spaces, for some of these texts come from elsewhere.
func (d *Display) Note(text string) {
	text = clean(text)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed && text != "" {
		d.events = append(d.events, event{note: text})
	}
}

// Layer announces a layer of size decoded bytes, -1 where it is not known yet.
// The Bar's Add takes no lock. After Close the Bar tells nobody.
func (d *Display) Layer(name string, size int64) transfer.Bar {
	b := &bar{display: d, name: clean(name)}
	b.size.Store(size)
	b.meter.at = time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return transfer.NoProgress{}.Layer(name, size)
	}
	d.bars = append(d.bars, b)
	return b
}

// ended records that b has ended.
func (d *Display) ended(b *bar) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.events = append(d.events, event{ended: b})
	}
}

// Close ends the display: it takes the bars off the screen, leaves the notes,
// and returns when that is written. It waits for nothing but the writer: bars
// that have not ended are forgotten. Later calls of any method do nothing.
func (d *Display) Close() {
	d.mu.Lock()
	if !d.closed {
		d.closed = true
		close(d.quit)
	}
	d.mu.Unlock()
	<-d.done
}

// run writes a frame at every tick, and the last one when the display is closed.
func (d *Display) run() {
	defer close(d.done)
	t := time.NewTicker(interval)
	defer t.Stop()
	broken := false
	write := func(b []byte) {
		if len(b) == 0 || broken {
			return
		}
		_, err := d.w.Write(b) // one call a frame, so that it does not flicker
		broken = err != nil
	}
	for {
		select {
		case <-t.C:
			write(d.view.draw(time.Now(), d.scene()))
		case <-d.quit:
			write(d.view.close(time.Now(), d.scene()))
			return
		}
	}
}

// scene takes what the next frame shows.
func (d *Display) scene() scene {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := scene{bars: d.bars[:len(d.bars):len(d.bars)], events: d.events, status: d.status}
	d.events = nil
	return s
}
