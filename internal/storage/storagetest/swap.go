package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/storage"
)

func (s *suite) swapper(store storage.Store) storage.Swapper {
	s.Helper()
	return ability[storage.Swapper](s, store, "Swap")
}

func (s *suite) swaps() bool {
	s.Helper()
	return declares[storage.Swapper](s, s.Swap, "Swap")
}

func (s *suite) swap() {
	if !s.swaps() {
		return
	}
	a, b := s.swapper(s.A), s.swapper(s.B)
	const key = "dir/object"
	most := bytesOf(1, storage.MaxSwap)
	now := []byte("first")
	s.put(key, now)
	for i, next := range [][]byte{[]byte("other"), []byte("longer than that"), {}, most, bytesOf(2, storage.MaxSwap), []byte("x")} {
		if err := s.swapper(s.side(i)).Swap(s.ctx(), key, now, next); err != nil {
			s.Fatalf("swap of %d bytes for %d: %v", len(now), len(next), err)
		}
		now = next
		s.holds(key, now)
	}
	// Something else is there: as long, longer, shorter, empty, the same to its last byte but one.
	now = []byte("current")
	s.put(key, now)
	for _, old := range []string{"Current", "currenT", "current ", "curren", "", string(most)} {
		for _, w := range []storage.Swapper{a, b} {
			s.changed("swap for another content", w.Swap(s.ctx(), key, []byte(old), []byte("new")))
		}
	}
	s.holds(key, now)
	s.lists("", key)
	// Nothing is there. That is not the same as an empty object.
	for _, missing := range []string{"dir/other", "other", "other/deep/object", "dir", "dir/object/below"} {
		s.changed("swap of nothing at "+missing, a.Swap(s.ctx(), missing, nil, []byte("new")))
		s.changed("swap of nothing at "+missing, a.Swap(s.ctx(), missing, now, []byte("new")))
		s.absent(missing)
	}
	s.lists("", key)
	if err := s.B.Delete(s.ctx(), key); err != nil {
		s.Fatal(err)
	}
	s.changed("swap after delete", a.Swap(s.ctx(), key, now, []byte("new")))
	s.lists("")
	// What is too large is refused, and nothing comes of it.
	s.put(key, now)
	if err := a.Swap(s.ctx(), key, now, bytesOf(3, storage.MaxSwap+1)); err == nil || errors.Is(err, storage.ErrChanged) {
		s.Errorf("swap of more than %d bytes: %v, want another error", storage.MaxSwap, err)
	}
	s.put("dir/large", bytesOf(4, s.Large))
	s.changed("swap of a large object", a.Swap(s.ctx(), "dir/large", bytesOf(4, 10), []byte("new")))
	s.holds("dir/large", bytesOf(4, s.Large))
	s.holds(key, now)
}

func (s *suite) changed(what string, err error) {
	s.Helper()
	if !errors.Is(err, storage.ErrChanged) {
		s.Errorf("%s: %v, want ErrChanged", what, err)
	}
	for _, kind := range []error{storage.ErrNotFound, storage.ErrExists, storage.ErrConflict} {
		if errors.Is(err, kind) {
			s.Errorf("%s: a change is taken for something else: %v", what, err)
		}
	}
}

// swapRace proves that of many who know the same content one wins.
func (s *suite) swapRace() {
	if !s.swaps() {
		return
	}
	const racers = 16
	for round := range 10 {
		key := fmt.Sprintf("dir/%d", round)
		old := []byte("old")
		s.put(key, old)
		start := make(chan struct{})
		errs := make([]error, racers)
		var group sync.WaitGroup
		for i := range racers {
			w := s.swapper(s.side(i))
			group.Go(func() {
				<-start
				errs[i] = w.Swap(s.ctx(), key, old, bytesOf(i, 1000+i))
			})
		}
		close(start)
		group.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				s.Errorf("%s: both %d and %d swapped it", key, winner, i)
			default:
				s.changed(fmt.Sprintf("%s: %d lost", key, i), err)
			}
		}
		if winner < 0 {
			s.Fatalf("%s: nobody swapped it: %v", key, errs)
		}
		s.holds(key, bytesOf(winner, 1000+winner))
	}
}

// swapChain proves that no swap is lost and none reads what is older than the
// last one: several count one number up, and all of their counts are in it.
func (s *suite) swapChain() {
	if !s.swaps() {
		return
	}
	const workers, counts = 4, 25
	s.put("number", []byte("0"))
	var group errgroup.Group
	for i := range workers {
		store, w := s.side(i), s.swapper(s.side(i))
		group.Go(func() error {
			for done := 0; done < counts; {
				old, err := s.content(store, "number")
				if err != nil {
					return err
				}
				n, err := strconv.Atoi(string(old))
				if err != nil {
					return err
				}
				err = w.Swap(s.ctx(), "number", old, []byte(strconv.Itoa(n+1)))
				if err != nil && !errors.Is(err, storage.ErrChanged) {
					return err
				}
				if err == nil {
					done++
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		s.Error(err)
	}
	s.holds("number", []byte(strconv.Itoa(workers*counts)))
}

// swapCancelled proves that a swap whose context has ended changes nothing, and
// that one which ends at any moment leaves the old object or, where it says nil, the new one.
func (s *suite) swapCancelled() {
	if !s.swaps() {
		return
	}
	old := []byte("old")
	s.put("object", old)
	ended, cancel := context.WithCancel(s.ctx())
	cancel()
	if err := s.swapper(s.A).Swap(ended, "object", old, []byte("new")); !errors.Is(err, context.Canceled) {
		s.Errorf("cancelled before: %v, want context.Canceled", err)
	}
	s.holds("object", old)
	for i := range 50 {
		next := []byte(strconv.Itoa(i))
		ctx, cancel := context.WithTimeout(s.ctx(), time.Duration(i)*20*time.Microsecond)
		err := s.swapper(s.side(i)).Swap(ctx, "object", old, next)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			s.Errorf("expired: %v, want context.DeadlineExceeded", err)
		}
		got, readErr := s.content(s.B, "object")
		if readErr != nil {
			s.Fatal(readErr)
		}
		switch {
		case bytes.Equal(got, next): // the answer may have been lost
		case err == nil || !bytes.Equal(got, old):
			s.Errorf("after %v there is %q, want %q or %q", err, got, old, next)
		}
		old = got
	}
}
