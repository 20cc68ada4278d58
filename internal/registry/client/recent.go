package client

import (
	"container/list"
	"sync"
)

// recent remembers what was of use last, as much as fits. What it has forgotten is
// found out again. It is safe for concurrent use.
type recent[K comparable, V any] struct {
	mu    sync.Mutex
	most  int // what all weigh together at most
	held  int
	at    map[K]*list.Element // of recentEntry[K, V]
	order list.List           // what was of use last first
}

type recentEntry[K comparable, V any] struct {
	key    K
	value  V
	weight int
}

func newRecent[K comparable, V any](most int) *recent[K, V] {
	return &recent[K, V]{most: most, at: map[K]*list.Element{}}
}

func (r *recent[K, V]) get(key K) (value V, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.at[key]
	if !ok {
		return value, false
	}
	r.order.MoveToFront(e)
	return e.Value.(recentEntry[K, V]).value, true
}

// put remembers a value, and forgets others for it.
func (r *recent[K, V]) put(key K, value V, weight int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.at[key]; ok {
		r.drop(e)
	}
	r.at[key] = r.order.PushFront(recentEntry[K, V]{key, value, weight})
	for r.held += weight; r.held > r.most; {
		r.drop(r.order.Back())
	}
}

// drop forgets one. r.mu is held.
func (r *recent[K, V]) drop(e *list.Element) {
	entry := r.order.Remove(e).(recentEntry[K, V])
	delete(r.at, entry.key)
	r.held -= entry.weight
}

// find returns a key for whose value is reports true.
func (r *recent[K, V]) find(is func(K, V) bool) (key K, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for e := r.order.Front(); e != nil; e = e.Next() {
		if entry := e.Value.(recentEntry[K, V]); is(entry.key, entry.value) {
			return entry.key, true
		}
	}
	return key, false
}
