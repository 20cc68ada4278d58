package storagetest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/dogestry/dogestry/internal/storage"
)

// readOnlyTests are those of a store that is filled from behind.
var readOnlyTests = []test{
	{"not found", (*suite).readNotFound},
	{"sizes", (*suite).readSizes},
	{"ranges", (*suite).ranges},
	{"odd keys", (*suite).readOddKeys},
	{"cancelled", (*suite).cancelledReads},
	{"list", (*suite).readList},
	{"no writes", (*suite).noWrites},
}

func (s *suite) readNotFound() {
	s.absent("a")
	s.absent("a/b/c")
	s.put("dir/object", []byte("x"))
	s.absent("dir") // a directory is no object
	s.absent("dir/other")
	s.absent("di")
	s.holds("dir/object", []byte("x"))
}

func (s *suite) readSizes() {
	for i, size := range []int{0, 1, 32<<10 + 1, 1 << 20, s.Large} {
		key := "sizes/" + strings.Repeat("x", i+1)
		s.put(key, bytesOf(i, size))
		s.holds(key, bytesOf(i, size))
	}
}

func (s *suite) readOddKeys() {
	for i, key := range oddKeys {
		s.put(key, bytesOf(i, 100))
	}
	for i, key := range oddKeys {
		s.holds(key, bytesOf(i, 100))
	}
	s.listed("", oddKeys...)
}

func (s *suite) readList() {
	keys := []string{"a", "a!/x", "a-b", "aa/b/c", "aa/b-c", "aa/b.c", "b/c/d", "b/c-/d", "images/0/json", "images/00/json", "images/0-/json", "~", " "}
	for i, key := range keys {
		s.put(key, bytesOf(i, i))
	}
	for _, prefix := range []string{"", "a", "a/", "aa", "aa/", "aa/b", "aa/b/", "b/c", "images/0", "images/0/", "x", "x/y", "~"} {
		var want []string
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		s.listed(prefix, want...)
	}
	if s.Unlisted {
		return
	}
	for info, err := range s.A.List(s.ctx(), "") {
		if err != nil {
			s.Fatal(err)
		}
		stat, err := s.B.Stat(s.ctx(), info.Key)
		if err != nil || stat.Size != info.Size || !stat.Modified.Equal(info.Modified) || info.Size != int64(slices.Index(keys, info.Key)) {
			s.Errorf("list says %+v, stat %+v, %v", info, stat, err)
		}
	}
}

// listed is lists, or proves that nothing is listed where that is declared.
func (s *suite) listed(prefix string, want ...string) {
	s.Helper()
	if !s.Unlisted {
		s.lists(prefix, want...)
		return
	}
	n := 0
	for info, err := range s.A.List(s.ctx(), prefix) {
		if n++; !errors.Is(err, errors.ErrUnsupported) {
			s.Errorf("list %q: %+v, %v, want ErrUnsupported", prefix, info, err)
		}
	}
	if n != 1 {
		s.Errorf("list %q yields %d times, want one error", prefix, n)
	}
}

// noWrites: writes fail at once, touch no body, and change nothing.
func (s *suite) noWrites() {
	s.put("dir/object", []byte("old"))
	body := &touched{Reader: bytes.NewReader([]byte("new"))}
	for name, write := range map[string]func(context.Context) error{
		"put":     func(ctx context.Context) error { return s.A.Put(ctx, "dir/object", body) },
		"put new": func(ctx context.Context) error { return s.A.Put(ctx, "dir/new", body) },
		"delete":  func(ctx context.Context) error { return s.A.Delete(ctx, "dir/object") },
	} {
		if err := write(s.ctx()); !errors.Is(err, errors.ErrUnsupported) {
			s.Errorf("%s: %v, want ErrUnsupported", name, err)
		}
	}
	if body.touched {
		s.Error("the body was read")
	}
	if err := s.A.Put(s.ctx(), "../x", body); !errors.Is(err, storage.ErrInvalidKey) {
		s.Errorf("put of no key: %v", err)
	}
	_, creates := s.A.(storage.Creator)
	_, swaps := s.A.(storage.Swapper)
	_, removes := s.A.(storage.Remover)
	if creates || swaps || removes {
		s.Errorf("%T can only be read, and has methods that write", s.A)
	}
	s.holds("dir/object", []byte("old"))
	s.absent("dir/new")
}
