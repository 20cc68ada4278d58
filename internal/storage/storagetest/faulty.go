package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"

	"github.com/dogestry/dogestry/internal/storage"
)

// ErrInjected is what an operation chosen by Faulty.FailAt fails with.
var ErrInjected = errors.New("injected failure")

// Mode says how an operation fails.
type Mode int

const (
	// Before: nothing is done.
	Before Mode = iota
	// After: it is done, and the answer is lost. Get and List, which have no effect, fail as with Before.
	After
	// Inside: half of it. A write's body breaks in its middle, so nothing is
	// published; a reader breaks in the middle of its object; a list breaks
	// after half of its keys. Stat, Swap, Delete and DeleteIf have no inside: as Before.
	Inside
	// Dead: the process is dead from here on. This operation and all later ones
	// do nothing, and those that run, on other goroutines, do not finish: open
	// readers break, and writes under way publish nothing or lose the answer.
	Dead
)

// Modes are all of them, for loops.
var Modes = []Mode{Before, After, Inside, Dead}

func (m Mode) String() string {
	return [...]string{"before", "after", "inside", "dead"}[m]
}

// Inner is what Faulty wraps.
type Inner interface {
	storage.Store
	storage.Creator
	storage.Swapper
	storage.Remover
}

// Faulty is a store that fails on purpose, at one operation. Operations are
// counted from 1, in the order in which they begin, each call of a method one.
// It is safe for concurrent use, but a count is only repeatable where its user calls in the same order.
// It holds write bodies and inside lists in memory.
type Faulty struct {
	inner Inner

	mu   sync.Mutex
	ops  int
	at   int // 0: never
	mode Mode
	dead bool
	log  []string
}

var _ Inner = (*Faulty)(nil)

// NewFaulty returns a store that does what inner does, until FailAt is called.
func NewFaulty(inner Inner) *Faulty { return &Faulty{inner: inner} }

// FailAt lets operation n, counted from the first one ever, fail. It replaces
// what was set before; 0 stands for none.
func (f *Faulty) FailAt(n int, mode Mode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.mode = n, mode
}

// Ops returns how many operations have begun.
func (f *Faulty) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// Log returns a line for each operation that has begun, for the output of a failed test.
func (f *Faulty) Log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

// action is what an operation is to do.
type action int

const (
	work action = iota
	fail
	loseAnswer
	breakInside
)

// begin counts an operation and says what it is to do. err is the error that it is to fail with.
func (f *Faulty) begin(verb, key string) (do action, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops++
	line := fmt.Sprintf("%d %s %s", f.ops, verb, key)
	defer func() { f.log = append(f.log, line) }()
	if f.dead {
		line += ": dead"
		return fail, fmt.Errorf("%s %s: operation %d: %w", verb, key, f.ops, ErrInjected)
	}
	if f.ops != f.at {
		return work, nil
	}
	line += ": fails " + f.mode.String()
	err = fmt.Errorf("%s %s: operation %d %s: %w", verb, key, f.ops, f.mode, ErrInjected)
	switch f.mode {
	case After:
		return loseAnswer, err
	case Inside:
		return breakInside, err
	case Dead:
		f.dead = true
	}
	return fail, err
}

// died returns ErrInjected once the process is dead.
func (f *Faulty) died() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return fmt.Errorf("the process is dead: %w", ErrInjected)
	}
	return nil
}

// Get implements storage.Store.
func (f *Faulty) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	do, fault := f.begin("get", key)
	if do == fail || do == loseAnswer {
		return nil, fault
	}
	r, err := f.inner.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	if do == work {
		return &mortal{Reader: r, Closer: r, faulty: f}, nil
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return &mortal{Reader: &breaking{body: bytes.NewReader(content[:len(content)/2]), err: fault}, Closer: io.NopCloser(nil), faulty: f}, nil
}

// Put implements storage.Store.
func (f *Faulty) Put(ctx context.Context, key string, body io.Reader) error {
	return f.write("put", ctx, key, body, f.inner.Put)
}

// Create implements storage.Creator.
func (f *Faulty) Create(ctx context.Context, key string, body io.Reader) error {
	return f.write("create", ctx, key, body, f.inner.Create)
}

func (f *Faulty) write(verb string, ctx context.Context, key string, body io.Reader, write func(context.Context, string, io.Reader) error) error {
	do, fault := f.begin(verb, key)
	if do == fail {
		return fault
	}
	if do == breakInside {
		content, err := io.ReadAll(body)
		if err != nil {
			fault = err // the body was quicker
		}
		body = &breaking{body: bytes.NewReader(content[:len(content)/2]), err: fault}
	}
	err := write(ctx, key, &mortal{Reader: body, faulty: f})
	if do == loseAnswer {
		return errors.Join(fault, err)
	}
	if dead := f.died(); dead != nil {
		return dead
	}
	return err
}

// mortal is a reader that breaks when the process dies.
type mortal struct {
	io.Reader
	io.Closer
	faulty *Faulty
}

func (m *mortal) Read(p []byte) (int, error) {
	if err := m.faulty.died(); err != nil {
		return 0, err
	}
	return m.Reader.Read(p)
}

// Stat implements storage.Store.
func (f *Faulty) Stat(ctx context.Context, key string) (storage.Info, error) {
	if do, fault := f.begin("stat", key); do != work {
		return storage.Info{}, fault
	}
	return f.inner.Stat(ctx, key)
}

// List implements storage.Store. The operation begins with the loop.
func (f *Faulty) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		do, fault := f.begin("list", prefix)
		if do == fail || do == loseAnswer {
			yield(storage.Info{}, fault)
			return
		}
		var held []storage.Info
		for info, err := range f.inner.List(ctx, prefix) {
			if err == nil {
				err = f.died()
			}
			if err != nil {
				yield(storage.Info{}, err)
				return
			}
			if do == breakInside {
				held = append(held, info)
			} else if !yield(info, nil) {
				return
			}
		}
		if do != breakInside {
			return
		}
		for _, info := range held[:len(held)/2] {
			if !yield(info, nil) {
				return
			}
		}
		yield(storage.Info{}, fault)
	}
}

// Swap implements storage.Swapper.
func (f *Faulty) Swap(ctx context.Context, key string, old, new []byte) error {
	return f.change("swap", key, func() error { return f.inner.Swap(ctx, key, old, new) })
}

// Delete implements storage.Store.
func (f *Faulty) Delete(ctx context.Context, key string) error {
	return f.change("delete", key, func() error { return f.inner.Delete(ctx, key) })
}

// DeleteIf implements storage.Remover.
func (f *Faulty) DeleteIf(ctx context.Context, key string, old []byte) error {
	return f.change("delete if", key, func() error { return f.inner.DeleteIf(ctx, key, old) })
}

// change is an operation that has no inside.
func (f *Faulty) change(verb, key string, change func() error) error {
	do, fault := f.begin(verb, key)
	if do != work && do != loseAnswer {
		return fault
	}
	err := change()
	if do == loseAnswer {
		return errors.Join(fault, err)
	}
	if dead := f.died(); dead != nil {
		return dead
	}
	return err
}
