package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/dogestry/dogestry/internal/storage"
)

var errForbidden = errors.New("the guard says no")

// guard: what a guard forbids changes nothing, what it allows goes on, and reads do not ask it.
func (s *suite) guard() {
	const key = "dir/object"
	s.put(key, []byte("old"))
	large := bytesOf(1, s.Large)
	asked := 0
	forbid := storage.WithGuard(s.ctx(), func(ctx context.Context) error {
		asked++
		if _, err := s.B.Stat(ctx, key); err != nil { // a guard may use the store, also to write
			s.Errorf("in the guard: %v", err)
		}
		if err := s.B.Put(ctx, "clock", bytes.NewReader(nil)); err != nil {
			s.Errorf("in the guard: %v", err)
		}
		return errForbidden
	})
	writes := map[string]func(context.Context) error{
		"put":       func(ctx context.Context) error { return s.A.Put(ctx, key, bytes.NewReader([]byte("new"))) },
		"large put": func(ctx context.Context) error { return s.A.Put(ctx, "large", bytes.NewReader(large)) },
		"delete":    func(ctx context.Context) error { return s.A.Delete(ctx, key) },
	}
	if creator, ok := s.A.(storage.Creator); ok {
		writes["create"] = func(ctx context.Context) error { return creator.Create(ctx, "created", bytes.NewReader(nil)) }
	}
	if swapper, ok := s.A.(storage.Swapper); ok {
		writes["swap"] = func(ctx context.Context) error { return swapper.Swap(ctx, key, []byte("old"), []byte("new")) }
	}
	if remover, ok := s.A.(storage.Remover); ok {
		writes["delete if"] = func(ctx context.Context) error { return remover.DeleteIf(ctx, key, []byte("old")) }
	}
	for name, write := range writes {
		asked = 0
		if err := write(forbid); !errors.Is(err, errForbidden) || asked != 1 {
			s.Errorf("%s: the guard was asked %d times, error %v", name, asked, err)
		}
	}
	s.holds(key, []byte("old"))
	s.lists("", "clock", key)
	asked = 0
	if _, err := s.A.Stat(forbid, key); err != nil {
		s.Error(err)
	}
	if r, err := s.A.Get(forbid, key, 0, -1); err != nil {
		s.Error(err)
	} else if err := r.Close(); err != nil {
		s.Error(err)
	}
	for _, err := range s.A.List(forbid, "") {
		if err != nil {
			s.Error(err)
		}
	}
	if asked > 0 {
		s.Errorf("reads have asked the guard %d times", asked)
	}
	allow := storage.WithGuard(s.ctx(), func(context.Context) error { asked++; return nil })
	for _, name := range []string{"put", "large put", "delete"} {
		asked = 0
		if err := writes[name](allow); err != nil || asked == 0 {
			s.Error(fmt.Errorf("%s: the guard was asked %d times, error %w", name, asked, err))
		}
	}
	s.absent(key)
	s.lists("", "clock", "large")
}
