package lease

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/storage"
)

// state is how far a sweep has come.
type state string

const (
	marking state = "marking" // it finds out what is reachable, and deletes nothing
	listed  state = "list"    // it may delete what its list has
	ended   state = "ended"
)

// sweepDoc is the content of the register.
type sweepDoc struct {
	Generation string `json:"generation"` // random; the list has it in its key
	State      state  `json:"state"`
}

// sweepRegister is the register as it was read.
type sweepRegister struct {
	sweepDoc
	modified time.Time
}

// maxRegister bounds the register, in bytes.
const maxRegister = 4 << 10

// readRegister returns the register and its bytes; a zero one where there was never
// a sweep. Of one that has ended it does not ask when it was written.
func readRegister(ctx context.Context, store storage.Store) (r sweepRegister, content []byte, err error) {
	for {
		content, err = storage.Read(ctx, store, register, maxRegister)
		if errors.Is(err, storage.ErrNotFound) {
			return r, nil, nil
		}
		if err != nil {
			return r, nil, err
		}
		r = sweepRegister{}
		if err := json.Unmarshal(content, &r.sweepDoc); err != nil || !validGeneration(r.Generation) || !r.State.known() {
			return r, nil, fmt.Errorf("%s is damaged", register)
		}
		if r.State == ended {
			return r, content, nil
		}
		info, err := store.Stat(ctx, register)
		if err != nil {
			return r, nil, err
		}
		r.modified = info.Modified
		again, err := storage.Read(ctx, store, register, maxRegister)
		if err != nil {
			return r, nil, err
		}
		if bytes.Equal(again, content) {
			return r, content, nil
		} // else it was replaced meanwhile: the time may be another one's
	}
}

func (s state) known() bool { return s == marking || s == listed || s == ended }

func validGeneration(s string) bool {
	if len(s) != 32 {
		return false
	}
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// over reports whether a sweep that has not ended deletes nothing any more, now
// being a time by the store's clock: whoever ran it is gone, or has run out of time.
func (r sweepRegister) over(ctx context.Context, store storage.Store, now time.Time, t Times) (bool, error) {
	return dead(ctx, store, clocks+r.Generation, r.modified, now, t.Over)
}

// MaxList is how many ids a sweep may list.
const MaxList = 200_000

// lineSize is that of a list, in bytes: hex digits and a line feed.
const lineSize = 2*len(image.Digest{}) + 1

func readList(ctx context.Context, store storage.Store, generation string) ([]image.Digest, error) {
	b, err := storage.Read(ctx, store, lists+generation, int64(MaxList*lineSize))
	if err != nil {
		return nil, err
	}
	ids := make([]image.Digest, 0, len(b)/lineSize)
	for line := range bytes.Lines(b) {
		id, err := image.ParseHex(string(bytes.TrimSuffix(line, []byte("\n"))))
		if err != nil {
			return nil, fmt.Errorf("%s is damaged", lists+generation)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// ErrBusy says that another sweep runs.
var ErrBusy = errors.New("another garbage collection runs")

// Sweep is a garbage collection's turn. Its methods are called in the order
// Begin, Publish, Leases, Check for each batch, End; Check is safe for concurrent
// use. Whoever begins one calls Close.
type Sweep struct {
	store storage.Store
	swap  storage.Swapper
	times Times

	generation string
	held       []byte    // content of the register
	listed     time.Time // when the list was published, by the store's clock

	turn  chan struct{} // of one place: who asks for the time
	clock *presence
	asked moment // when the Check was sent that was last answered
}

// Begin takes the register (G1). ErrBusy where another sweep has it, and is not
// over; errors.ErrUnsupported where the store cannot compare and swap.
func Begin(ctx context.Context, store storage.Store, t Times) (*Sweep, error) {
	s := &Sweep{store: store, times: t.withDefaults(), generation: random(), turn: make(chan struct{}, 1)}
	creator, canCreate := store.(storage.Creator)
	swapper, canSwap := store.(storage.Swapper)
	if !canCreate || !canSwap {
		return nil, fmt.Errorf("this store cannot compare and swap: %w", errors.ErrUnsupported)
	}
	s.swap = swapper
	var err error
	if s.clock, err = appear(ctx, store, clocks+s.generation, nil); err != nil {
		return nil, fmt.Errorf("cannot write to the remote: %w", err)
	}
	if err := s.begin(ctx, creator); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

func (s *Sweep) begin(ctx context.Context, creator storage.Creator) error {
	old, content, err := readRegister(ctx, s.store)
	if err != nil {
		return err
	}
	next := s.register(marking)
	if content == nil {
		err = creator.Create(ctx, register, bytes.NewReader(next))
		if errors.Is(err, storage.ErrExists) {
			return ErrBusy
		}
	} else {
		if old.State != ended {
			over, err := old.over(ctx, s.store, s.clock.seen, s.times)
			if err != nil {
				return err
			}
			if !over {
				return ErrBusy
			}
		}
		err = s.swapTo(ctx, content, next)
	}
	if err != nil {
		return err
	}
	s.held = next
	_ = s.forget(ctx, old) // or the next one does: nobody needs it
	return nil
}

// forget removes what the sweep before has left, and what those have that were
// killed before they had the register, or after they had lost it: once that is as
// old as a sweep that is over.
func (s *Sweep) forget(ctx context.Context, old sweepRegister) error {
	if old.Generation != "" {
		if err := errors.Join(s.store.Delete(ctx, lists+old.Generation), s.store.Delete(ctx, clocks+old.Generation)); err != nil {
			return err
		}
	}
	for _, prefix := range []string{lists, clocks} {
		for info, err := range s.store.List(ctx, prefix) {
			if err != nil {
				return err
			}
			gone, err := dead(ctx, s.store, info.Key, info.Modified, s.clock.seen, s.times.Over)
			if err == nil && gone {
				err = s.store.Delete(ctx, info.Key)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Sweep) register(st state) []byte {
	b, err := json.Marshal(sweepDoc{s.generation, st})
	if err != nil {
		panic(err) // two strings
	}
	return b
}

func (s *Sweep) swapTo(ctx context.Context, old, next []byte) error {
	err := s.swap.Swap(ctx, register, old, next)
	if errors.Is(err, storage.ErrChanged) {
		return ErrBusy
	}
	return err
}

// Began returns when the sweep began, by the store's clock.
func (s *Sweep) Began() time.Time { return s.clock.seen }

// Publish lets pushes know which ids the sweep means to delete (G3), at most MaxList.
func (s *Sweep) Publish(ctx context.Context, ids []image.Digest) error {
	if len(ids) > MaxList {
		return fmt.Errorf("%d ids are too many for a sweep", len(ids))
	}
	body := make([]byte, 0, len(ids)*lineSize)
	for _, id := range ids {
		body = append(append(body, id.Hex()...), '\n')
	}
	if err := put(ctx, s.store, lists+s.generation, body); err != nil {
		return err
	}
	next := s.register(listed)
	if err := s.swapTo(ctx, s.held, next); err != nil {
		return err
	}
	s.held = next
	info, err := s.store.Stat(ctx, register)
	s.listed = info.Modified
	return err
}

// Leases returns every id that a push relies on (G4), which is to be spared. It
// is called after Publish, and before the roots are read again. Leases that are
// dead by then do not count, and are removed. All are read twice: of a lease that
// ends while they are read, what it has let others name is in one that was written
// meanwhile, and maybe behind the place that the first reading had come to.
func (s *Sweep) Leases(ctx context.Context) (map[image.Digest]bool, error) {
	spare := map[image.Digest]bool{}
	for range 2 {
		if err := s.readLeases(ctx, spare); err != nil {
			return nil, err
		}
	}
	return spare, nil
}

func (s *Sweep) readLeases(ctx context.Context, spare map[image.Digest]bool) error {
	for info, err := range s.store.List(ctx, leases) {
		if err != nil {
			return err
		}
		gone, err := dead(ctx, s.store, info.Key, info.Modified, s.listed, s.times.Dead)
		if err != nil {
			return err
		}
		if gone {
			if err := s.store.Delete(ctx, info.Key); err != nil {
				return err
			}
			continue
		}
		b, err := storage.Read(ctx, s.store, info.Key, maxLease)
		if errors.Is(err, storage.ErrNotFound) {
			continue // released: its tag is a root by now
		}
		if err != nil {
			return err
		}
		var doc leaseDoc
		if err := json.Unmarshal(b, &doc); err != nil {
			return fmt.Errorf("the lease %s is damaged: %w", info.Key, err)
		}
		for _, id := range doc.IDs {
			spare[id] = true
		}
	}
	return nil
}

// Ways a sweep ends early. Nothing is lost by either.
var (
	ErrTakenOver = errors.New("another garbage collection has taken over")
	ErrTimeUp    = errors.New("its time is up")
)

// Check makes sure that the sweep may go on deleting (G5): it is the guard of
// every deletion.
func (s *Sweep) Check(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.asked.recent() {
		return nil
	}
	now := rightNow()
	b, err := storage.Read(ctx, s.store, register, maxRegister)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if !bytes.Equal(b, s.held) {
		return ErrTakenOver
	}
	if err := s.clock.renew(ctx); errors.Is(err, storage.ErrNotFound) {
		return ErrTakenOver
	} else if err != nil {
		return err
	}
	if s.clock.seen.Sub(s.listed) >= s.times.Sweep {
		return ErrTimeUp
	}
	s.asked = now
	return nil
}

// End ends the sweep (G6): pushes that wait go on.
func (s *Sweep) End(ctx context.Context) error {
	if err := s.swapTo(ctx, s.held, s.register(ended)); err != nil {
		return err
	}
	return s.store.Delete(ctx, lists+s.generation)
}

// Close gives up the sweep's presence, also after ctx has ended. Without End,
// others go on once it is over.
func (s *Sweep) Close(ctx context.Context) error {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	return s.clock.leave(late)
}
