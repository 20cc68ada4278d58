package front

import (
	"os"
	"sync"
	"time"
)

// watched is what files say. They are looked at each time, and read again when one
// was replaced or written. What cannot be read then is told, and what was read before
// stays in force: an editor that has saved half a file must not open or close a door.
type watched[T any] struct {
	names  []string
	read   func() (T, error)
	failed func(error) // told once for each change

	mu    sync.Mutex
	seen  []stamp
	value T
}

// watch reads the files for the first time; what fails then is its error.
func watch[T any](read func() (T, error), failed func(error), names ...string) (*watched[T], error) {
	w := &watched[T]{names: names, read: read, failed: failed}
	w.seen = w.look() // before they are read: what is written meanwhile is read again
	var err error
	w.value, err = read()
	return w, err
}

// get returns what the files say now. It is safe for concurrent use.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.look()
	for i := range now {
		if !now[i].same(w.seen[i]) {
			w.seen = now
			value, err := w.read()
			if err != nil {
				w.failed(err)
			} else {
				w.value = value
			}
			break
		}
	}
	return w.value
}

func (w *watched[T]) look() []stamp {
	stamps := make([]stamp, len(w.names))
	for i, name := range w.names {
		if info, err := os.Stat(name); err == nil {
			stamps[i] = stamp{info, info.Size(), info.ModTime()}
		}
	}
	return stamps
}

// stamp tells whether a file is as it was; the zero one is of a file that is not there.
type stamp struct {
	info     os.FileInfo
	size     int64
	modified time.Time
}

func (s stamp) same(o stamp) bool {
	if s.info == nil || o.info == nil {
		return s.info == nil && o.info == nil
	}
	return os.SameFile(s.info, o.info) && s.size == o.size && s.modified.Equal(o.modified)
}
