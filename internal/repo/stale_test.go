package repo_test

import (
	"cmp"
	"context"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// stale is a store whose lists are behind: what was just written is not in the next few lists that would have it, and what
// was just deleted still is. `dogestry check` finds such stores out ("list after write"); no promise of docs/format.md is made for them.
type stale struct {
	*mem.Store
	late int // lists

	mu     sync.Mutex
	hidden map[string]int
	ghosts map[string]*ghost
}

type ghost struct {
	info storage.Info
	left int
}

func newStale(late int) *stale {
	return &stale{Store: mem.New(), late: late, hidden: map[string]int{}, ghosts: map[string]*ghost{}}
}

func (s *stale) Put(ctx context.Context, key string, body io.Reader) error {
	_, err := s.Stat(ctx, key)
	s.mu.Lock()
	if delete(s.ghosts, key); err != nil {
		s.hidden[key] = s.late
	}
	s.mu.Unlock()
	return s.Store.Put(ctx, key, body)
}

func (s *stale) Delete(ctx context.Context, key string) error {
	if info, err := s.Stat(ctx, key); err == nil {
		s.mu.Lock()
		s.ghosts[key] = &ghost{info, s.late}
		s.mu.Unlock()
	}
	return s.Store.Delete(ctx, key)
}

func (s *stale) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		var all []storage.Info
		for info, err := range s.Store.List(ctx, prefix) {
			if err != nil {
				yield(info, err)
				return
			}
			s.mu.Lock()
			if s.hidden[info.Key]--; s.hidden[info.Key] < 0 {
				all = append(all, info)
			}
			s.mu.Unlock()
		}
		s.mu.Lock()
		for key, g := range s.ghosts {
			if strings.HasPrefix(key, prefix) && g.left > 0 {
				g.left--
				all = append(all, g.info)
			}
		}
		s.mu.Unlock()
		slices.SortFunc(all, func(a, b storage.Info) int { return cmp.Compare(a.Key, b.Key) })
		for _, info := range all {
			if !yield(info, nil) {
				return
			}
		}
	}
}

// TestStaleLists: where lists are behind, a push tags nothing that is incomplete, and does not say that it is done when it
// cannot see what it wrote; a collection is not misled by what is still listed, and the grace keeps what is not listed yet.
func TestStaleLists(t *testing.T) {
	for _, late := range []int{1, 2, 3, 1000} {
		s := newStale(late)
		var failure error
		for _, name := range []string{"app:1", "app:2"} {
			if _, err := remotetest.Push(t.Context(), open(t, s, codec.LZ4), remotetest.Ref(t, name), image3(t, name)); err != nil {
				failure = err
			} else {
				checkPulls(t, s, name, image3(t, name))
			}
		}
		if tags, err := (plain{s.Store}).check(); err != nil {
			t.Errorf("%d lists late: %q, %v", late, tags, err)
		}
		if late == 1000 {
			if incomplete := incompleteError(t, failure); incomplete.Tagged {
				t.Errorf("what it never sees is tagged: %v", failure)
			}
			continue
		}

		// What is not there any more.
		s = newStale(0)
		for _, name := range []string{"app:1", "app:2", "app:3"} {
			pushTo(t, s, name, image3(t, name))
		}
		s.late = late
		for _, key := range []string{"repositories/app/2", "repositories/app/3"} {
			if err := s.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			time.Sleep(time.Millisecond)
			if _, err := open(t, s, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: soon}); err != nil {
				t.Errorf("%d lists late: %v", late, err)
			}
			checkPulls(t, s, "app:1", image3(t, "app:1"))
		}
		if left := len(entryIDs(t, s.Store)); left != 4 {
			t.Errorf("%d lists late: %d entries are left", late, left)
		}

		// What is not seen yet: a new image and its tag.
		pushTo(t, s.Store, "app:4", image3(t, "app:4"))
		for _, key := range keys(t, s.Store, "") {
			if strings.HasPrefix(key, "repositories/app/4") {
				s.hidden[key] = late
			}
		}
		if _, err := open(t, s, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: time.Hour}); err != nil {
			t.Errorf("%d lists late: %v", late, err)
		}
		checkPulls(t, s.Store, "app:4", image3(t, "app:4"))
	}
}
