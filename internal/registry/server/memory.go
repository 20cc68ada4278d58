package server

import "sync"

// memory remembers a bounded number of things, the newest ones. It is safe for
// concurrent use.
type memory[K comparable, V any] struct {
	mu     sync.Mutex
	most   int
	weight int // of all that is remembered
	kept   map[K]remembered[V]
	order  []K // the oldest first; some may be gone from kept
}

type remembered[V any] struct {
	value  V
	weight int
}

func newMemory[K comparable, V any](most int) *memory[K, V] {
	return &memory[K, V]{most: most, kept: map[K]remembered[V]{}}
}

func (m *memory[K, V]) get(key K) (value V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.kept[key]
	return r.value, ok
}

// put remembers a value that counts as weight, which is 1 at least, and forgets old ones for it.
func (m *memory[K, V]) put(key K, value V, weight int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.kept[key]; ok {
		m.weight -= old.weight
	} else {
		m.order = append(m.order, key)
	}
	m.kept[key] = remembered[V]{value, weight}
	m.weight += weight
	for m.weight > m.most && len(m.order) > 0 {
		oldest := m.order[0]
		m.order = m.order[1:]
		m.weight -= m.kept[oldest].weight
		delete(m.kept, oldest)
	}
}
