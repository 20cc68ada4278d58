package server

import "testing"

// TestMemory: what is remembered is bounded by weight, and the oldest goes first.
func TestMemory(t *testing.T) {
	m := newMemory[int, string](10)
	for i := range 5 {
		m.put(i, "one", 2)
	}
	m.put(2, "two", 4) // heavier than before: 0 has to go
	for key, want := range []string{"", "one", "two", "one", "one"} {
		if got, ok := m.get(key); got != want || ok != (want != "") {
			t.Errorf("%d: %q, %v", key, got, ok)
		}
	}
	m.put(5, "large", 20) // more than all: nothing is left
	for key := range 6 {
		if got, ok := m.get(key); ok {
			t.Errorf("%d: %q is remembered", key, got)
		}
	}
	for i := range 1000 {
		m.put(i%50, "again", 1)
	}
	if m.weight != 10 || len(m.kept) != 10 || len(m.order) > 10 {
		t.Errorf("%d of weight %d in an order of %d", len(m.kept), m.weight, len(m.order))
	}
}
