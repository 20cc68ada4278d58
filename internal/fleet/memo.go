package fleet

import (
	"context"
	"sync"

	"github.com/dogestry/dogestry/internal/fault"
)

// memo is what was asked for once: by the first who needs it, for all. An interrupt
// of who asks is not remembered.
type memo[K comparable, V any] struct {
	keep func(V, error) bool // whether to remember an answer; nil remembers all but errors

	mu    sync.Mutex
	asked map[K]*answer[V]
}

type answer[V any] struct {
	come  chan struct{} // closed when the rest is there
	value V
	err   error
}

// get returns what key stands for, and asks where nobody has yet.
func (m *memo[K, V]) get(ctx context.Context, key K, ask func() (V, error)) (V, error) {
	for {
		m.mu.Lock()
		a := m.asked[key]
		if a == nil {
			a = &answer[V]{come: make(chan struct{})}
			if m.asked == nil {
				m.asked = map[K]*answer[V]{}
			}
			m.asked[key] = a
			m.mu.Unlock()
			m.ask(a, key, ask)
			return a.value, a.err
		}
		m.mu.Unlock()
		select {
		case <-a.come:
		case <-ctx.Done():
			var none V
			return none, ctx.Err()
		}
		if !fault.Interrupted(a.err) { // that was another one's
			return a.value, a.err
		}
		if err := ctx.Err(); err != nil {
			var none V
			return none, err
		}
	}
}

// known returns what key was found to stand for, if it was.
func (m *memo[K, V]) known(key K) (value V, ok bool) {
	m.mu.Lock()
	a := m.asked[key]
	m.mu.Unlock()
	if a == nil {
		return value, false
	}
	select {
	case <-a.come:
		return a.value, a.err == nil
	default:
		return value, false
	}
}

func (m *memo[K, V]) ask(a *answer[V], key K, ask func() (V, error)) {
	a.value, a.err = ask()
	keep := a.err == nil
	if m.keep != nil {
		keep = m.keep(a.value, a.err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !keep || fault.Interrupted(a.err) {
		delete(m.asked, key)
	}
	close(a.come)
}
