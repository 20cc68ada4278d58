package agent

import (
	"sync"
	"sync/atomic"

	"github.com/dogestry/dogestry/internal/transfer"
)

// maxNotes bounds the notes of a pull that those hear who come later.
const maxNotes = 100

// feed is the progress of a pull, as it is now, for any number of readers: each asks for
// what has changed since it asked last. So a slow one holds up nobody and takes no memory.
// It is a transfer.Progress.
type feed struct {
	mu       sync.Mutex
	status   string
	notes    []string
	expected int64 // bytes of layers
	layers   []*layer
}

// layer is a transfer.Bar.
type layer struct {
	name  string
	size  int64
	bytes atomic.Int64
	state atomic.Pointer[string] // nil while it is on its way
}

// States of layers that have ended.
var (
	statePresent = "present"
	stateDone    = "done"
	stateFailed  = "failed"
)

// Status implements transfer.Progress.
func (f *feed) Status(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status = text
}

// Note implements transfer.Progress.
func (f *feed) Note(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.notes) < maxNotes {
		f.notes = append(f.notes, text)
	}
}

// expect says that so many bytes of layers are to move, more than was said before.
func (f *feed) expect(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expected += n
}

// Layer implements transfer.Progress.
func (f *feed) Layer(name string, size int64) transfer.Bar {
	l := &layer{name: name, size: size}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.layers = append(f.layers, l)
	return l
}

// Add implements transfer.Bar.
func (l *layer) Add(n int) { l.bytes.Add(int64(n)) }

// Present implements transfer.Bar.
func (l *layer) Present() { l.state.CompareAndSwap(nil, &statePresent) }

// Done implements transfer.Bar.
func (l *layer) Done() { l.state.CompareAndSwap(nil, &stateDone) }

// Fail implements transfer.Bar.
func (l *layer) Fail() { l.state.CompareAndSwap(nil, &stateFailed) }

// cursor is what a reader has been told.
type cursor struct {
	status   string
	notes    int
	expected int64
	layers   []told
}

type told struct {
	bytes int64
	state *string
}

// since returns what the reader has not been told, and moves its cursor.
func (f *feed) since(c *cursor) []event {
	f.mu.Lock()
	status, notes, expected, layers := f.status, f.notes, f.expected, f.layers
	f.mu.Unlock()
	var news []event
	for ; c.notes < len(notes); c.notes++ {
		news = append(news, event{Note: notes[c.notes]})
	}
	if c.expected != expected {
		c.expected = expected
		news = append(news, event{Expect: expected})
	}
	for n, l := range layers {
		now := told{state: l.state.Load()} // before the bytes: what has ended gets no more
		now.bytes = l.bytes.Load()
		e := layerEvent{N: n, Bytes: now.bytes}
		if now.state != nil {
			e.State = *now.state
		}
		switch {
		case n == len(c.layers):
			c.layers = append(c.layers, now)
			e.Name, e.Size = l.name, l.size
		case c.layers[n] == now:
			continue
		}
		c.layers[n] = now
		news = append(news, event{Layer: &e})
	}
	if status != c.status {
		c.status = status
		news = append(news, event{Status: &status})
	}
	return news
}

// moved returns what is waited for, and the bytes that went by.
func (f *feed) moved() (status string, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.layers {
		bytes += l.bytes.Load()
	}
	return f.status, bytes
}
