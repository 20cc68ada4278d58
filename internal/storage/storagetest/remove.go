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

func (s *suite) remover(store storage.Store) storage.Remover {
	s.Helper()
	return ability[storage.Remover](s, store, "Remove")
}

func (s *suite) removes() bool {
	s.Helper()
	return declares[storage.Remover](s, s.Remove, "Remove")
}

func (s *suite) remove() {
	if !s.removes() {
		return
	}
	both := []storage.Remover{s.remover(s.A), s.remover(s.B)}
	const key = "dir/object"
	most := bytesOf(1, storage.MaxSwap)
	for i, content := range [][]byte{[]byte("content"), {}, most, []byte("x")} {
		s.put(key, content)
		for range 2 { // the second time it is gone, which is no error
			if err := both[i%2].DeleteIf(s.ctx(), key, content); err != nil {
				s.Fatalf("removal of %d bytes: %v", len(content), err)
			}
			s.absent(key)
		}
		s.lists("")
		s.noLeftovers()
	}
	// Something else is there: as long, longer, shorter, empty, the same to its last byte but one.
	now := []byte("current")
	s.put(key, now)
	s.put("dir/beside", now)
	for _, old := range []string{"Current", "currenT", "current ", "curren", "", string(most)} {
		for _, r := range both {
			s.changed("removal of another content", r.DeleteIf(s.ctx(), key, []byte(old)))
		}
	}
	s.put("dir/large", bytesOf(4, s.Large))
	s.changed("removal of a large object", both[0].DeleteIf(s.ctx(), "dir/large", bytesOf(4, 10)))
	s.holds("dir/large", bytesOf(4, s.Large))
	if err := both[0].DeleteIf(s.ctx(), key, bytesOf(3, storage.MaxSwap+1)); err == nil || errors.Is(err, storage.ErrChanged) {
		s.Errorf("removal of what is said to have more than %d bytes: %v, want another error", storage.MaxSwap, err)
	}
	s.holds(key, now)
	// Nothing is there, also where a key is the beginning of others or goes on behind one.
	for _, missing := range []string{"dir/other", "other", "other/deep/object", "dir", "dir/object/below"} {
		for _, old := range [][]byte{nil, now} {
			if err := both[1].DeleteIf(s.ctx(), missing, old); err != nil {
				s.Errorf("removal of nothing at %s: %v", missing, err)
			}
		}
	}
	s.lists("", key, "dir/beside", "dir/large")
	if err := both[1].DeleteIf(s.ctx(), key, now); err != nil {
		s.Error(err)
	}
	s.lists("", "dir/beside", "dir/large")
	s.holds("dir/beside", now)
	if err := both[0].DeleteIf(s.ctx(), "../key", nil); !errors.Is(err, storage.ErrInvalidKey) {
		s.Errorf("an invalid key: %v", err)
	}
	// What is gone may come again.
	s.put(key, now)
	s.holds(key, now)
}

// removeRace proves that many who know the same content remove it once, disturb
// nobody beside it, and that none takes the others' work for a change.
func (s *suite) removeRace() {
	if !s.removes() {
		return
	}
	const racers = 16
	for round := range 10 {
		key := fmt.Sprintf("dir/%d/object", round)
		s.put(key, []byte("old"))
		start := make(chan struct{})
		errs := make([]error, racers)
		var group sync.WaitGroup
		for i := range racers {
			r := s.remover(s.side(i))
			group.Go(func() {
				<-start
				errs[i] = r.DeleteIf(s.ctx(), key, []byte("old"))
			})
		}
		close(start)
		group.Wait()
		if err := errors.Join(errs...); err != nil {
			s.Errorf("%s: %v", key, err)
		}
		s.absent(key)
	}
	s.lists("")
}

// removeBesidePut proves that what a Put has reported as written is not removed
// by those who know what was there before.
func (s *suite) removeBesidePut() {
	if !s.removes() {
		return
	}
	ctx, stop := context.WithCancel(s.ctx())
	defer stop()
	var group errgroup.Group
	for i := range 3 {
		r := s.remover(s.side(i))
		group.Go(func() error {
			for ctx.Err() == nil {
				if err := r.DeleteIf(s.ctx(), "dir/object", []byte("old")); err != nil && !errors.Is(err, storage.ErrChanged) {
					return err
				}
			}
			return nil
		})
	}
	for i := range 30 {
		for _, content := range []string{"old", "new"} {
			if err := s.side(i).Put(s.ctx(), "dir/object", bytes.NewReader([]byte(content))); err != nil {
				s.Errorf("round %d: %v", i, err)
			}
		}
		if got, err := s.content(s.side(i+1), "dir/object"); string(got) != "new" {
			s.Fatalf("round %d: there is %q, %v, want what was written last", i, got, err)
		}
	}
	stop()
	if err := group.Wait(); err != nil {
		s.Error(err)
	}
	s.lists("", "dir/object")
}

// removeBesideSwap proves that of a removal and a swap that know the same
// content one wins, and the other says so.
func (s *suite) removeBesideSwap() {
	if !s.removes() || !s.swaps() {
		return
	}
	for round := range 30 {
		key := "dir/" + strconv.Itoa(round)
		s.put(key, []byte("old"))
		start := make(chan struct{})
		var removed, swapped error
		var group sync.WaitGroup
		remover, swapper := s.remover(s.side(round)), s.swapper(s.side(round+1))
		group.Go(func() {
			<-start
			removed = remover.DeleteIf(s.ctx(), key, []byte("old"))
		})
		group.Go(func() {
			<-start
			swapped = swapper.Swap(s.ctx(), key, []byte("old"), []byte("new"))
		})
		close(start)
		group.Wait()
		switch {
		case removed == nil && swapped == nil, removed != nil && swapped != nil:
			s.Errorf("%s: removal %v, swap %v, want one winner", key, removed, swapped)
		case swapped == nil:
			s.changed(key+": the removal lost", removed)
			s.holds(key, []byte("new"))
		default:
			s.changed(key+": the swap lost", swapped)
			s.absent(key)
		}
	}
}

// removeCancelled proves that a removal whose context has ended changes nothing,
// and that one which ends at any moment leaves the object or, where it says nil, nothing.
func (s *suite) removeCancelled() {
	if !s.removes() {
		return
	}
	content := []byte("content")
	s.put("object", content)
	ended, cancel := context.WithCancel(s.ctx())
	cancel()
	if err := s.remover(s.A).DeleteIf(ended, "object", content); !errors.Is(err, context.Canceled) {
		s.Errorf("cancelled before: %v, want context.Canceled", err)
	}
	s.holds("object", content)
	for i := range 50 {
		s.put("object", content)
		ctx, cancel := context.WithTimeout(s.ctx(), time.Duration(i)*20*time.Microsecond)
		err := s.remover(s.side(i)).DeleteIf(ctx, "object", content)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			s.Errorf("expired: %v, want context.DeadlineExceeded", err)
		}
		got, readErr := s.content(s.B, "object")
		switch {
		case errors.Is(readErr, storage.ErrNotFound): // the answer may have been lost
		case readErr != nil:
			s.Fatal(readErr)
		case err == nil || !bytes.Equal(got, content):
			s.Errorf("after %v there is %q", err, got)
		}
	}
}
