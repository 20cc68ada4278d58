package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/storage"
)

func (s *suite) list() {
	keys := []string{
		"a", "a!/x", "a-b", "a.b/c", "a0", "aa/b/c", "aa/b-c", "aa/b.c", "aa/b/c-d", "aa/b0",
		"b/c/d", "b/c-/d", "b/c/e/f", "b/cc", "b/c/e-", "images/0/json", "images/00/json", "images/0-/json",
		"z~", "~", " ", "!", "%3A", "A-x", "Z/x",
	}
	if !s.Conflicts {
		keys = append(keys, "a/b", "a/b/c", "b")
	}
	s.each(len(keys), func(i int) {
		if err := s.A.Put(s.ctx(), keys[i], bytes.NewReader(bytesOf(i, i))); err != nil {
			s.Errorf("put %s: %v", keys[i], err)
		}
	})
	s.lists("", keys...)
	prefixes := []string{
		"a", "a-", "a/", "a.", "a.b", "a.b/", "aa", "aa/", "aa/b", "aa/b/", "aa/b/c", "aa/b/c-d", "aa/b/c-dd", "b", "b/", "b/c", "b/c/",
		"b/c/e", "b/c/e/", "im", "images", "images/", "images/0", "images/00", "images/0/", "x", "x/y", "z~", "~", " ", "%", "Z", "A", "a!", "a!/",
	}
	s.each(len(prefixes), func(i int) {
		var want []string
		for _, key := range keys {
			if strings.HasPrefix(key, prefixes[i]) {
				want = append(want, key)
			}
		}
		s.lists(prefixes[i], want...)
	})
	afters := []string{"aa/b/c", "", "!", "a", "a-b", "a/b", "a0", "aa/b", "aa/b-", "aa/b/c-d", "aa/b/c0", "b/c-", "b/c/e", "b/cc/x", "z~", "~~"}
	if _, ok := s.B.(storage.LaterLister); !ok { // it is not the store's
		afters = afters[:1]
	}
	s.each(len(prefixes), func(i int) { // from the middle on, at objects and in between
		for _, after := range afters {
			var want, got []string
			for _, key := range keys {
				if strings.HasPrefix(key, prefixes[i]) && key > after {
					want = append(want, key)
				}
			}
			for info, err := range storage.ListAfter(s.ctx(), s.B, prefixes[i], after) {
				if err != nil {
					s.Errorf("list %q after %q: %v", prefixes[i], after, err)
				}
				got = append(got, info.Key)
			}
			if slices.Sort(want); !slices.Equal(got, want) {
				s.Errorf("list %q after %q: %q, want %q", prefixes[i], after, got, want)
			}
		}
	})
	for _, prefix := range []string{"/", "//", "a//", ".", "..", "../", "./", "a/../", "aa/./b", "/a", "\x00", "é", "aa/b/c/", "images/0/json/", strings.Repeat("long", 400)} {
		s.lists(prefix) // no key begins so
	}
	for info, err := range s.A.List(s.ctx(), "") {
		if err != nil {
			s.Fatal(err)
		}
		stat, err := s.B.Stat(s.ctx(), info.Key)
		if err != nil || stat.Size != info.Size || !stat.Modified.Equal(info.Modified) {
			s.Errorf("list says %+v, stat %+v, %v", info, stat, err)
		}
		if want := int64(slices.Index(keys, info.Key)); info.Size != want {
			s.Errorf("list: %s has %d bytes, want %d", info.Key, info.Size, want)
		}
	}
	// Stopping early, and using the store from inside the loop.
	seen := 0
	for info, err := range s.A.List(s.ctx(), "b/") {
		if err != nil {
			s.Fatal(err)
		}
		if err := s.A.Delete(s.ctx(), info.Key); err != nil {
			s.Fatal(err)
		}
		if seen++; seen == 2 {
			break
		}
	}
	if got := s.keys(s.B, "b/"); len(got) != 3 {
		s.Errorf("after the deletion of two of five: %q", got)
	}
}

func (s *suite) listMany() {
	var want []string
	for i := range s.Many {
		switch {
		case i%2 == 0:
			want = append(want, fmt.Sprintf("flat/%05d", i*7919%s.Many))
		case i%4 == 1:
			want = append(want, fmt.Sprintf("deep/%03d/%05d", i%97, i))
		default:
			want = append(want, fmt.Sprintf("deep/%03d-/%05d", i%97, i))
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	var group errgroup.Group
	group.SetLimit(8)
	if s.Slow {
		group.SetLimit(len(want))
	}
	for i, key := range want {
		group.Go(func() error { return s.side(i).Put(s.ctx(), key, strings.NewReader(key)) })
	}
	if err := group.Wait(); err != nil {
		s.Fatal(err)
	}
	s.lists("", want...)
	for _, prefix := range []string{"flat/", "deep/", "deep/0", "deep/011", "flat/00"} {
		var part []string
		for _, key := range want {
			if strings.HasPrefix(key, prefix) {
				part = append(part, key)
			}
		}
		s.lists(prefix, part...)
	}
}

// listWhileWriting proves that what was there before a listing, and stays, is
// in it, once and in order, whatever else comes and goes.
func (s *suite) listWhileWriting() {
	var stay []string
	n := s.rounds(60)
	for i := range n {
		stay = append(stay, fmt.Sprintf("stay/%02d/object", i), fmt.Sprintf("flat/%02d-stay", i))
	}
	s.putAll(stay)
	ctx, stop := context.WithCancel(s.ctx())
	defer stop()
	var group errgroup.Group
	group.Go(func() error {
		for i := 0; ctx.Err() == nil; i++ {
			for _, key := range []string{fmt.Sprintf("flat/%02d-go", i%n), fmt.Sprintf("stay/%02d/go", i%n), fmt.Sprintf("stay/%02d-go/x", i%n)} {
				if err := s.B.Put(s.ctx(), key, strings.NewReader("x")); err != nil {
					return err
				}
				if err := s.B.Delete(s.ctx(), key); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for range s.rounds(30) {
		got := map[string]bool{}
		last := ""
		for info, err := range s.A.List(s.ctx(), "") {
			if err != nil {
				s.Errorf("list: %v", err)
				break
			}
			if info.Key <= last {
				s.Errorf("%q behind %q", info.Key, last)
			}
			last = info.Key
			got[info.Key] = true
		}
		for _, key := range stay {
			if !got[key] {
				s.Errorf("%s, which was there all the time, is not listed", key)
			}
		}
		if s.Failed() {
			break
		}
	}
	stop()
	if err := group.Wait(); err != nil {
		s.Error(err)
	}
}

func (s *suite) delete() {
	s.put("a/b/c", []byte("x"))
	s.put("a/b/d", []byte("y"))
	s.put("other", []byte("z"))
	for _, key := range []string{"a", "a/b", "a/b/", "a/b/cc", "a/b/c/d", "other/below", strings.Repeat("long", 100)} {
		err := s.A.Delete(s.ctx(), key)
		if storage.ValidKey(key) == nil && err != nil {
			s.Errorf("delete %s, which is no object: %v", key, err)
		}
	}
	s.lists("", "a/b/c", "a/b/d", "other")
	for i := range 3 {
		if err := s.side(i).Delete(s.ctx(), "a/b/c"); err != nil {
			s.Errorf("delete number %d: %v", i+1, err)
		}
		s.absent("a/b/c")
	}
	s.holds("a/b/d", []byte("y"))
	s.put("a/b/c", []byte("again"))
	s.holds("a/b/c", []byte("again"))
	for _, key := range []string{"a/b/c", "a/b/d", "other"} {
		if err := s.B.Delete(s.ctx(), key); err != nil {
			s.Error(err)
		}
	}
	s.lists("")
	// Sixteen delete one object at once.
	s.put("a/b/c", nil)
	var group errgroup.Group
	for i := range 16 {
		group.Go(func() error { return s.side(i).Delete(s.ctx(), "a/b/c") })
	}
	if err := group.Wait(); err != nil {
		s.Error(err)
	}
	s.absent("a/b/c")
}

func (s *suite) conflict() {
	writes := map[string]func(key string) error{
		"put": func(key string) error { return s.B.Put(s.ctx(), key, strings.NewReader("new")) },
	}
	if s.Create {
		writes["create"] = func(key string) error { return s.creator(s.B).Create(s.ctx(), key, strings.NewReader("new")) }
	}
	for name, write := range writes {
		s.T.Run(name, func(t *testing.T) {
			sub := &suite{T: t, Harness: s.Harness, Target: s.Target}
			sub.oneConflict(name, write)
			sub.noLeftovers()
		})
	}
}

// oneConflict uses keys that begin with name.
func (s *suite) oneConflict(name string, write func(string) error) {
	s.put(name+"/a", []byte("old"))
	s.put(name+"/d/e/f", []byte("old"))
	below := []string{name + "/a/b", name + "/a/b/c", name + "/d", name + "/d/e", name + "/d/e/f/g"}
	for _, key := range below {
		err := write(key)
		if !s.Conflicts {
			if err != nil {
				s.Errorf("%s: %v, want no conflict, as none is declared", key, err)
			}
			continue
		}
		if !errors.Is(err, storage.ErrConflict) {
			s.Errorf("%s: %v, want ErrConflict", key, err)
		}
		if errors.Is(err, storage.ErrExists) || errors.Is(err, storage.ErrNotFound) {
			s.Errorf("%s: a conflict is taken for something else: %v", key, err)
		}
	}
	s.holds(name+"/a", []byte("old"))
	s.holds(name+"/d/e/f", []byte("old"))
	if !s.Conflicts {
		s.lists(name+"/", append(below, name+"/a", name+"/d/e/f")...)
		return
	}
	s.lists(name+"/", name+"/a", name+"/d/e/f")
	for _, key := range below {
		s.absent(key)
	}
	// Once what is in the way is gone, nothing of it is: not even an empty directory.
	for _, key := range []string{name + "/a", name + "/d/e/f"} {
		if err := s.A.Delete(s.ctx(), key); err != nil {
			s.Fatal(err)
		}
	}
	for _, key := range []string{name + "/a/b", name + "/d"} {
		if err := write(key); err != nil {
			s.Errorf("%s after the deletion of what was in its way: %v", key, err)
		}
	}
	// Neither is there after a failure below it.
	failing := io.MultiReader(strings.NewReader("x"), &breaking{body: bytes.NewReader(nil), err: errBody})
	if err := s.A.Put(s.ctx(), name+"/g/h/i", failing); !errors.Is(err, errBody) {
		s.Error(err)
	}
	if err := write(name + "/g/h"); err != nil {
		s.Errorf("write where another write failed below: %v", err)
	}
	s.lists(name+"/", name+"/a/b", name+"/d", name+"/g/h")
}
