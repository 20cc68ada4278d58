package repo_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// twoImages pushes them to s, and returns the repository.
func twoImages(t *testing.T, s storage.Store) (r *repo.Repo, one, two remotetest.Image) {
	t.Helper()
	r = open(t, s, codec.None)
	one, two = remotetest.NewImage(t, "one", []byte("shared"), []byte("one")), remotetest.NewImage(t, "two", []byte("shared"))
	for ref, img := range map[string]remotetest.Image{"app:1": one, "app:2": two, "team/app:1": one} {
		if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, ref), img); err != nil {
			t.Fatal(err)
		}
	}
	return r, one, two
}

// TestUntag removes tags from stores that can compare and delete, and from one that cannot.
func TestUntag(t *testing.T) {
	for name, s := range map[string]storage.Store{"mem": mem.New(), "flat": newFlat(), "file": openDir(t, t.TempDir())} {
		t.Run(name, func(t *testing.T) {
			r, one, two := twoImages(t, s)
			if _, ok := s.(storage.Remover); ok != (name != "flat") {
				t.Fatalf("it can compare and delete: %t", ok)
			}
			before := tree(t, s)
			untag := func(ref string, id image.ID) error { return r.Untag(t.Context(), remotetest.Ref(t, ref), id) }
			refused := func(ref string, id image.ID) {
				t.Helper()
				if err := untag(ref, id); !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), ref) || fault.AdviceOf(err) == "" {
					t.Errorf("%s that names another image: %v, want a refused fault that names it", ref, err)
				}
				if diff := cmp.Diff(before, tree(t, s)); diff != "" {
					t.Errorf("it changed (-want +got):\n%s", diff)
				}
			}
			removes := func(ref string, id image.ID) {
				t.Helper()
				for range 2 { // the second time it is gone, which is no error
					if err := untag(ref, id); err != nil {
						t.Errorf("%s: %v", ref, err)
					}
				}
				delete(before, tagKey(ref))
				if diff := cmp.Diff(before, tree(t, s)); diff != "" {
					t.Errorf("without %s (-want +got):\n%s", ref, diff)
				}
			}
			refused("app:1", two.ID)
			refused("app:1", image.ID{})
			removes("app:1", one.ID) // nothing else goes: no entry, no other tag of the image
			removes("app:3", one.ID)

			for what, content := range map[string]string{"garbage": "not an ID", "nothing": "", "large": strings.Repeat("x", 100<<10), "upper case": strings.ToUpper(two.ID.Hex())} {
				before["repositories/app/2"] = []byte(content)
				put(t, s, "repositories/app/2", []byte(content))
				refused("app:2", two.ID)
				removes("app:2", image.ID{})
				if _, err := r.Resolve(t.Context(), remotetest.Ref(t, "app:2")); !fault.Is(err, fault.NotFound) {
					t.Errorf("%s: %v", what, err)
				}
			}
			before["repositories/app/2"] = []byte(two.ID.Hex() + "\n") // as an editor writes it
			put(t, s, "repositories/app/2", before["repositories/app/2"])
			removes("app:2", two.ID)

			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if err := r.Untag(ended, remotetest.Ref(t, "team/app:1"), one.ID); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
			if _, err := remotetest.Pull(t.Context(), r, remotetest.Ref(t, "team/app:1")); err != nil {
				t.Errorf("another tag: %v", err)
			}
		})
	}
}

// racing is a store in which something happens just before a tag is read for the nth
// time, or just before it is compared and deleted.
type racing struct {
	*mem.Store
	gets     int
	onGet    func(n int)
	onRemove func() error
}

func (s *racing) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if strings.HasPrefix(key, "repositories/") && s.onGet != nil {
		s.gets++
		s.onGet(s.gets)
	}
	return s.Store.Get(ctx, key, offset, length)
}

func (s *racing) DeleteIf(ctx context.Context, key string, old []byte) error {
	if s.onRemove != nil {
		if err := s.onRemove(); err != nil {
			return err
		}
	}
	return s.Store.DeleteIf(ctx, key, old)
}

// TestUntagRaces has somebody at work between the look at a tag and its removal.
func TestUntagRaces(t *testing.T) {
	const key = "repositories/app/1"
	ref := remotetest.Ref(t, "app:1")
	inner := mem.New()
	_, one, two := twoImages(t, inner)
	for name, test := range map[string]struct {
		write   string // what is written meanwhile; "" removes the tag
		always  bool   // each time, and not the first time alone
		refused bool
		left    string // what the tag holds then; "" for no tag
	}{
		"moved":                     {write: two.ID.Hex(), refused: true, left: two.ID.Hex()},
		"damaged":                   {write: "not an ID", refused: true, left: "not an ID"},
		"gone":                      {},
		"written again as it was":   {write: one.ID.Hex()},
		"written in another way":    {write: one.ID.Hex() + "\n"},
		"written again and again":   {write: one.ID.Hex(), always: true},
		"moved, each time it looks": {write: two.ID.Hex(), always: true, refused: true, left: two.ID.Hex()},
	} {
		for _, compares := range []bool{true, false} {
			put(t, inner, key, []byte(one.ID.Hex()))
			times := 0
			meanwhile := func() {
				if times++; times > 1 && !test.always {
					return
				}
				if test.write == "" {
					remove(t, inner, key)
				} else {
					put(t, inner, key, []byte(test.write))
				}
			}
			s := &racing{Store: inner}
			if compares {
				s.onRemove = func() error {
					meanwhile()
					return nil
				}
			} else {
				s.onRemove = func() error { return fmt.Errorf("no locks here: %w", errors.ErrUnsupported) }
				s.onGet = func(n int) {
					if n == 2 { // the last look before it deletes
						meanwhile()
					}
				}
			}
			err := open(t, s, codec.None).Untag(t.Context(), ref, one.ID)
			if test.refused != fault.Is(err, fault.Refused) || !test.refused && err != nil {
				t.Errorf("%s, compare and delete %t: %v", name, compares, err)
			}
			if times == 0 {
				t.Errorf("%s, compare and delete %t: nothing happened meanwhile", name, compares)
			}
			left := ""
			if _, err := inner.Stat(t.Context(), key); err == nil {
				left = string(get(t, inner, key))
			}
			if left != test.left {
				t.Errorf("%s, compare and delete %t: the tag holds %q, want %q", name, compares, left, test.left)
			}
		}
	}
}

// TestUntagFails: a failure of the store is told with the remote and the tag, and nothing else is tried.
func TestUntagFails(t *testing.T) {
	inner := mem.New()
	_, one, _ := twoImages(t, inner)
	for cause, kind := range map[error]fault.Kind{errors.New("the network is gone"): fault.Other, storage.ErrPermission: fault.Refused} {
		s := &racing{Store: inner, onRemove: func() error { return cause }}
		err := open(t, s, codec.None).Untag(t.Context(), remotetest.Ref(t, "app:1"), one.ID)
		if !errors.Is(err, cause) || fault.KindOf(err) != kind || !strings.Contains(err.Error(), "the tag app:1 from the-remote") {
			t.Errorf("%v: %v (%v)", cause, err, fault.KindOf(err))
		}
		if got := string(get(t, inner, "repositories/app/1")); got != one.ID.Hex() {
			t.Errorf("%v: the tag holds %q", cause, got)
		}
	}
	// A tag that changes for ever is given up.
	s := &racing{Store: inner, onRemove: func() error { return storage.ErrChanged }}
	if err := open(t, s, codec.None).Untag(t.Context(), remotetest.Ref(t, "app:1"), one.ID); !errors.Is(err, storage.ErrChanged) {
		t.Errorf("a tag that changes for ever: %v", err)
	}
}

// TestTagTimes: a tag was written when the store says; naming the same again does not write it.
func TestTagTimes(t *testing.T) {
	for name, s := range map[string]storage.Store{"mem": mem.New(), "file": openDir(t, t.TempDir())} {
		r, one, two := twoImages(t, s)
		times := func() map[string]time.Time {
			t.Helper()
			times := map[string]time.Time{}
			for tag, err := range r.References(t.Context(), "app") {
				if err != nil {
					t.Fatal(err)
				}
				info, err := s.Stat(t.Context(), tagKey(tag.Reference.String()))
				if err != nil || tag.Modified.IsZero() || !tag.Modified.Equal(info.Modified) {
					t.Errorf("%s: %s was written %v, its object %v, %v", name, tag.Reference, tag.Modified, info.Modified, err)
				}
				times[tag.Reference.Tag] = tag.Modified
			}
			return times
		}
		before := times()
		time.Sleep(20 * time.Millisecond) // more than a tick of any file system's clock
		for ref, id := range map[string]image.ID{"app:1": one.ID, "app:2": one.ID} {
			if err := r.Tag(t.Context(), remotetest.Ref(t, ref), id); err != nil {
				t.Fatal(err)
			}
		}
		after := times()
		if len(after) != 2 || !after["1"].Equal(before["1"]) || !after["2"].After(before["2"]) {
			t.Errorf("%s: before %v, after %v: want that the second one alone is newer (%s)", name, before, after, two.ID.Short())
		}
	}
}
