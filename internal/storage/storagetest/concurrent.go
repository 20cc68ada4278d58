package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing/iotest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/storage"
)

func (s *suite) overwriteUnderReader() {
	old, replacement := bytesOf(1, s.Large), bytesOf(2, s.Large)
	for _, before := range []int{0, 1, 100_000, s.Large - 1} {
		s.put("object", old)
		r, err := s.B.Get(s.ctx(), "object", 0, -1)
		if err != nil {
			s.Fatal(err)
		}
		first := make([]byte, before)
		if _, err := io.ReadFull(r, first); err != nil {
			s.Fatal(err)
		}
		s.put("object", replacement)
		rest, err := io.ReadAll(r)
		_ = r.Close()
		if got := append(first, rest...); err == nil && !bytes.Equal(got, old) {
			s.Errorf("replaced after %d bytes: the reader got %d bytes that are not the old object", before, len(got))
		}
		s.holds("object", replacement)

		// The same with a delete.
		if r, err = s.B.Get(s.ctx(), "object", 0, -1); err != nil {
			s.Fatal(err)
		}
		if _, err := io.ReadFull(r, first); err != nil {
			s.Fatal(err)
		}
		if err := s.A.Delete(s.ctx(), "object"); err != nil {
			s.Fatal(err)
		}
		rest, err = io.ReadAll(r)
		_ = r.Close()
		if got := append(first, rest...); err == nil && !bytes.Equal(got, replacement) {
			s.Errorf("deleted after %d bytes: the reader got %d bytes that are not the object", before, len(got))
		}
	}
	// A body that has been read half replaces nothing yet.
	s.put("object", old)
	looked := false
	look := acting(func() {
		looked = true
		s.holds("object", old)
		s.lists("", "object")
	})
	half := len(replacement) / 2
	body := io.MultiReader(bytes.NewReader(replacement[:half]), look, bytes.NewReader(replacement[half:]))
	if err := s.A.Put(s.ctx(), "object", body); err != nil || !looked {
		s.Fatal(err, looked)
	}
	s.holds("object", replacement)
}

// concurrentOverwriters proves that one whole object stays, and that all
// writers are told so, while they write different sizes in small pieces.
func (s *suite) concurrentOverwriters() {
	const writers = 8
	bodies := make([][]byte, writers)
	for i := range bodies {
		bodies[i] = bytesOf(i, 300_000+1000*i)
	}
	for round := range 4 {
		key := fmt.Sprintf("dir/object-%d", round)
		var group errgroup.Group
		for i, body := range bodies {
			store := s.side(i)
			group.Go(func() error { return store.Put(s.ctx(), key, iotest.HalfReader(bytes.NewReader(body))) })
		}
		if err := group.Wait(); err != nil {
			s.Fatal(err)
		}
		got, err := s.content(s.A, key)
		if err != nil {
			s.Fatal(err)
		}
		s.holds(key, got)
		if !isOneOf(got, bodies) {
			s.Errorf("%s: %d bytes that nobody wrote", key, len(got))
		}
	}
	if got := s.keys(s.B, ""); len(got) != 4 {
		s.Errorf("listed %q, want 4 keys", got)
	}
}

// readersBesideOverwriter proves that a read begun at any time gives one whole object or an error, and that ErrNotFound is never it.
func (s *suite) readersBesideOverwriter() {
	bodies := [][]byte{bytesOf(1, 200_000), bytesOf(2, 100_000), bytesOf(3, 300_000)}
	s.put("object", bodies[0])
	ctx, stop := context.WithCancel(s.ctx())
	defer stop()
	var group errgroup.Group
	var whole atomic.Int64
	for i := range 3 {
		store := s.side(i)
		group.Go(func() error {
			for ctx.Err() == nil {
				got, err := s.content(store, "object")
				if errors.Is(err, storage.ErrNotFound) {
					return fmt.Errorf("an overwritten object was gone for a moment: %w", err)
				}
				if err != nil {
					continue
				}
				if !isOneOf(got, bodies) {
					return fmt.Errorf("read %d bytes (%x…) that nobody wrote", len(got), head(got))
				}
				whole.Add(1)
				if info, err := store.Stat(ctx, "object"); err == nil && info.Size != 100_000 && info.Size != 200_000 && info.Size != 300_000 {
					return fmt.Errorf("stat: %d bytes, which nobody wrote", info.Size)
				}
			}
			return nil
		})
	}
	late := time.Now().Add(time.Minute)
	for i := 0; i < s.rounds(60) || whole.Load() == 0; i++ { // readers may begin late on a busy machine
		if err := s.side(i).Put(s.ctx(), "object", bytes.NewReader(bodies[i%3])); err != nil {
			s.Error(err)
		}
		if time.Now().After(late) && whole.Load() == 0 {
			s.Error("no reader got an object")
			break
		}
	}
	stop()
	if err := group.Wait(); err != nil {
		s.Error(err)
	}
}

// deleteBesidePut proves that a Put does not fail because what is beside it, or above it, goes.
func (s *suite) deleteBesidePut() {
	const workers = 4
	rounds := s.rounds(40)
	var group errgroup.Group
	for i := range workers {
		store := s.side(i)
		group.Go(func() error {
			for round := range rounds {
				key := fmt.Sprintf("shared/dir/ec/tory/%d-%d", i, round)
				if err := store.Put(s.ctx(), key, bytes.NewReader([]byte(key))); err != nil {
					return err
				}
				got, err := s.content(store, key)
				if err != nil || string(got) != key {
					return fmt.Errorf("just written: %q, %w", got, err)
				}
				if err := store.Delete(s.ctx(), key); err != nil {
					return err
				}
				// All delete this one, one of them writes it.
				if i == 0 {
					if err := store.Put(s.ctx(), "shared/one", bytes.NewReader(nil)); err != nil {
						return err
					}
				}
				if err := store.Delete(s.ctx(), "shared/one"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		s.Error(err)
	}
	s.lists("")
}

func (s *suite) side(i int) storage.Store {
	if i%2 == 0 {
		return s.A
	}
	return s.B
}

func isOneOf(got []byte, bodies [][]byte) bool {
	for _, body := range bodies {
		if bytes.Equal(got, body) {
			return true
		}
	}
	return false
}

// ability returns what a store can do besides the five methods: the interface T,
// which the harness's field of that name declares.
func ability[T any](s *suite, store storage.Store, field string) T {
	s.Helper()
	able, ok := store.(T)
	if !ok {
		s.Fatalf("%T declares %s and has no such method", store, field)
	}
	return able
}

// declares reports whether there is something to test, and else proves that.
func declares[T any](s *suite, declared bool, field string) bool {
	s.Helper()
	if !declared {
		if _, ok := s.A.(T); ok {
			s.Errorf("%T does not declare %s, and has the method", s.A, field)
		}
	}
	return declared
}

func (s *suite) creator(store storage.Store) storage.Creator {
	s.Helper()
	return ability[storage.Creator](s, store, "Create")
}

func (s *suite) creates() bool {
	s.Helper()
	return declares[storage.Creator](s, s.Create, "Create")
}

func (s *suite) create() {
	if !s.creates() {
		return
	}
	a, b := s.creator(s.A), s.creator(s.B)
	for _, size := range []int{0, 10, s.Large} {
		key := fmt.Sprintf("dir/%d", size)
		body := bytesOf(1, size)
		if err := a.Create(s.ctx(), key, bytes.NewReader(body)); err != nil {
			s.Fatal(err)
		}
		s.holds(key, body)
		for _, c := range []storage.Creator{a, b} {
			if err := c.Create(s.ctx(), key, bytes.NewReader(bytesOf(2, 100))); !errors.Is(err, storage.ErrExists) {
				s.Errorf("create over an object: %v, want ErrExists", err)
			}
		}
		s.holds(key, body)
	}
	// Put replaces what Create made, and the other way round Create refuses; after a delete it may again.
	s.put("dir/10", []byte("put"))
	s.holds("dir/10", []byte("put"))
	if err := b.Create(s.ctx(), "dir/10", bytes.NewReader(nil)); !errors.Is(err, storage.ErrExists) {
		s.Errorf("create over a put: %v, want ErrExists", err)
	}
	if err := s.A.Delete(s.ctx(), "dir/10"); err != nil {
		s.Fatal(err)
	}
	if err := b.Create(s.ctx(), "dir/10", bytes.NewReader([]byte("again"))); err != nil {
		s.Errorf("create after delete: %v", err)
	}
	s.holds("dir/10", []byte("again"))
	// An object that comes while the body is read wins.
	late := acting(func() { s.put("dir/late", []byte("first")) })
	err := a.Create(s.ctx(), "dir/late", io.MultiReader(bytes.NewReader(bytesOf(3, 1000)), late))
	if !errors.Is(err, storage.ErrExists) {
		s.Errorf("create while another writes: %v, want ErrExists", err)
	}
	s.holds("dir/late", []byte("first"))
}

func (s *suite) createRace() {
	if !s.creates() {
		return
	}
	const racers = 16
	for round := range 10 {
		key := fmt.Sprintf("new/%d/object", round)
		start := make(chan struct{})
		errs := make([]error, racers)
		var group sync.WaitGroup
		for i := range racers {
			creator := s.creator(s.side(i))
			group.Go(func() {
				<-start
				errs[i] = creator.Create(s.ctx(), key, bytes.NewReader(bytesOf(i, 1000+i)))
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
				s.Errorf("%s: both %d and %d created it", key, winner, i)
			case !errors.Is(err, storage.ErrExists):
				s.Errorf("%s: %d lost with %v, want ErrExists", key, i, err)
			}
		}
		if winner < 0 {
			s.Fatalf("%s: nobody created it: %v", key, errs)
		}
		s.holds(key, bytesOf(winner, 1000+winner))
	}
}

// createFailing proves that a create which failed leaves the key free. The
// failures themselves are among those of "failing body" and "cancelled".
func (s *suite) createFailing() {
	if !s.creates() {
		return
	}
	c := s.creator(s.A)
	err := c.Create(s.ctx(), "object", &breaking{body: bytes.NewReader(bytesOf(1, s.Large)), err: errBody})
	if !errors.Is(err, errBody) {
		s.Errorf("%v, want the body's error", err)
	}
	if err := s.creator(s.B).Create(s.ctx(), "object", bytes.NewReader([]byte("x"))); err != nil {
		s.Errorf("create after a failed one: %v", err)
	}
	s.holds("object", []byte("x"))
}
