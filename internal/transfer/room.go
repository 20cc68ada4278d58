package transfer

import (
	"fmt"

	"github.com/docker/go-units"
)

// Roomy is what an engine is that knows how much room it has left.
type Roomy interface {
	// Room returns the free bytes where it keeps images and stages exports and
	// loads; ok is false where that is not known.
	Room() (free int64, ok bool)
}

// warnRoom says beforehand when an engine will likely run out of space: it
// stages whole archives on its own disk before it passes them on. It is no
// error: the engine may find room that we do not see.
func warnRoom(o Options, engine any, need int64) {
	r, ok := engine.(Roomy)
	if !ok {
		return
	}
	if free, ok := r.Room(); ok && free < need {
		o.Progress.Note(fmt.Sprintf("the engine's disk has %s left, and the engine needs about %s while it works",
			units.HumanSizeWithPrecision(float64(free), 3), units.HumanSizeWithPrecision(float64(need), 3)))
	}
}
