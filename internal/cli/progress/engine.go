package progress

import (
	"sync/atomic"

	"github.com/dogestry/dogestry/internal/transfer"
)

// Engine is a transfer.Progress for one of many engines: all that moves to it is one
// bar. Its methods are safe for concurrent use.
type Engine struct {
	display *Display
	name    string
	bar     transfer.Bar
	moves   atomic.Bool
}

var _ transfer.Progress = (*Engine)(nil)

// Engine announces an engine that much is to move to.
func (d *Display) Engine(name string) *Engine {
	return &Engine{display: d, name: name, bar: d.Layer(NameOf(name), -1)}
}

// maxName is how many columns the name of an engine takes.
const maxName = 32

// NameOf is what an engine's bar is called: the end of a long name, which tells more.
func NameOf(engine string) string {
	name := []rune(clean(engine))
	if over := len(name) - maxName; over > 0 {
		name = append([]rune{'…'}, name[over+1:]...)
	}
	return string(name)
}

// Status does nothing: what many engines wait for would not fit the screen.
func (e *Engine) Status(string) {}

// Note says something about the engine that stays on the screen.
func (e *Engine) Note(text string) { e.display.Note(e.name + ": " + text) }

// Layer returns what counts into the engine's bar.
func (e *Engine) Layer(string, int64) transfer.Bar { return part{e.bar} }

// Expect says that so many bytes are to move, more than was said before.
func (e *Engine) Expect(n int64) {
	if b, ok := e.bar.(*bar); ok && n > 0 {
		e.moves.Store(true)
		b.grow(n)
	}
}

// End ends the bar: err says whether something went wrong.
func (e *Engine) End(err error) {
	switch {
	case err != nil:
		e.bar.Fail()
	case e.moves.Load():
		e.bar.Done()
	default:
		e.bar.Present()
	}
}

// part is a layer on its way to one of many engines.
type part struct{ whole transfer.Bar }

func (p part) Add(n int) { p.whole.Add(n) }
func (part) Present()    {}
func (part) Done()       {}
func (part) Fail()       {}
