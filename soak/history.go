package main

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// event is what a command did to a tag, or saw of it, at some instant between
// start and end. No command that has succeeded is without one.
type event struct {
	start, end time.Time
	id         string // of the image; gone for none, anything where nobody knows
	written    bool   // else it was read
	sure       bool   // a write that a killed or failed command may have done is not
	by         string // for messages
}

const (
	gone     = ""
	anything = "*"
)

// late is how long after a process was killed its last request may take effect.
const late = 10 * time.Second

// history is what happened to the tags. It is safe for concurrent use.
type history struct {
	mu     sync.Mutex
	events map[string][]event
}

func (h *history) add(tag string, e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.events == nil {
		h.events = map[string][]event{}
	}
	h.events[tag] = append(h.events[tag], e)
}

// stays reports whether nobody has written a tag in that time, or may have.
func (h *history) stays(tag string, start, end time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !slices.ContainsFunc(h.events[tag], func(e event) bool {
		return e.written && e.start.Before(end) && e.last().After(start)
	})
}

// last is when e had its effect at the latest.
func (e event) last() time.Time {
	if e.sure || !e.written {
		return e.end
	}
	return e.end.Add(late)
}

// violations tells of each thing read that no order of the writes explains: a tag
// of which a command was told that it is written, and which is not there, or names
// what it named before. At the beginning there are no tags.
func (h *history) violations() (all []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for tag, events := range h.events {
		for _, read := range events {
			if !read.written && !explained(read, events) {
				all = append(all, fmt.Sprintf("%s: %s saw %q, which it cannot have named by then", tag, read.by, read.id))
			}
		}
	}
	slices.Sort(all)
	return all
}

func explained(read event, events []event) bool {
	// overwritten: somebody was told, before it was read, of a write that began after w.
	overwritten := func(w event) bool {
		return slices.ContainsFunc(events, func(v event) bool {
			return v.written && v.sure && v.start.After(w.last()) && v.end.Before(read.start)
		})
	}
	if read.id == gone && !overwritten(event{written: true, sure: true}) {
		return true
	}
	return slices.ContainsFunc(events, func(w event) bool {
		return w.written && (w.id == read.id || w.id == anything) && !w.start.After(read.end) && !overwritten(w)
	})
}
