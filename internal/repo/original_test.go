package repo_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/original/originaltest"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// originals is a store with the golden repository of format 1.0, but for the image
// without its base.
func originals(t *testing.T) *mem.Store {
	t.Helper()
	s := mem.New()
	for key, content := range originaltest.Golden() {
		put(t, s, key, content)
	}
	remove(t, s, "repositories/baseless/1")
	for _, key := range keys(t, s, "images/"+originaltest.ID("RUN baseless")) {
		remove(t, s, key)
	}
	return s
}

// TestCollectOriginals: a tag keeps all entries of its image of format 1.0, and of
// those that no tag reaches any more none is left. Images of today live beside them.
func TestCollectOriginals(t *testing.T) {
	s := originals(t)
	img := image3(t, "today")
	pushTo(t, s, "today:1", img)
	before := contents(t, s, "images/")
	if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 0 || c.Roots != 6 {
		t.Errorf("it says %+v", c)
	}
	if after := contents(t, s, "images/"); len(after) != len(before) {
		t.Errorf("of %d objects %d are left", len(before), len(after))
	}
	golden := originaltest.Golden()
	chain := func(name string) []string { return golden.Chain(originaltest.ID(name)) }
	gone := func(names ...string) {
		t.Helper()
		left := entryIDs(t, s)
		for _, name := range names {
			if slices.Contains(left, originaltest.ID(name)) {
				t.Errorf("%s is left", name)
			}
		}
	}
	kept := func(ids ...string) {
		t.Helper()
		left := entryIDs(t, s)
		for _, id := range ids {
			if !slices.Contains(left, id) {
				t.Errorf("%s is gone", id)
			}
		}
	}
	// Of two that share a base one goes.
	remove(t, s, "repositories/myapp/2")
	if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 2 {
		t.Errorf("without myapp:2 it frees %+v", c)
	}
	gone("RUN two", "RUN opaque")
	kept(slices.Concat(chain("RUN one"), chain("RUN late"), chain("ENV deep=127"))...)
	// The other one is named by another tag, too.
	remove(t, s, "repositories/myapp/1")
	remove(t, s, "repositories/deep/127")
	if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 127 {
		t.Errorf("without myapp:1 and deep:127 it frees %+v", c)
	}
	kept(slices.Concat(chain("RUN one"), chain("RUN late"))...)
	checkPulls(t, s, "today:1", img)
}

// TestCollectOriginalsStops: where a chain cannot be followed to its end, nothing is
// deleted, and the tag is named.
func TestCollectOriginalsStops(t *testing.T) {
	base := originaltest.ID("ADD base")
	key := func(file string) string { return "images/" + base + "/" + file }
	for name, damage := range map[string]func(s *mem.Store){
		"no base": func(s *mem.Store) {
			remove(t, s, key("json"))
			remove(t, s, key("VERSION"))
			remove(t, s, key("layer.tar.lz4"))
		},
		"no json":         func(s *mem.Store) { remove(t, s, key("json")) },
		"another VERSION": func(s *mem.Store) { put(t, s, key("VERSION"), []byte("2.0")) },
		"a loop": func(s *mem.Store) {
			put(t, s, key("json"), []byte(`{"id":"`+base+`","parent":"`+originaltest.ID("RUN one")+`"}`))
		},
		"no JSON": func(s *mem.Store) { put(t, s, key("json"), []byte("{")) },
	} {
		s := originals(t)
		for _, tag := range []string{"myapp/2", "team/deep/nested/V2", "localhost%3A5000/team/myapp/latest", "deep/127"} {
			remove(t, s, "repositories/"+tag)
		}
		damage(s)
		before := len(keys(t, s, ""))
		_, err := open(t, s, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: soon, SingleWriter: true})
		if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), "myapp/1") || !strings.Contains(err.Error(), base) {
			t.Errorf("%s: %v", name, err)
		}
		if after := len(keys(t, s, "")); after != before {
			t.Errorf("%s: of %d objects %d are left", name, before, after)
		}
	}
	// So it is where something is out of reach.
	for _, file := range []string{"json", "VERSION"} {
		s := &unreachable{Store: originals(t), key: key(file)}
		_, err := open(t, s, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: soon})
		if !errors.Is(err, errUnreachable) {
			t.Errorf("%s out of reach: %v", file, err)
		}
	}
	// A document of today that names an entry of format 1.0 is damage, and keeps nothing.
	s := originals(t)
	id := mustID(t, originaltest.ID("RUN one"))
	doc := []byte(`{"schemaVersion":2,"config":{"digest":"` + id.String() + `","size":1},"layers":[]}`)
	if err := open(t, s, codec.LZ4).PutDocument(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	put(t, s, "repositories/lie/1", []byte(image.DigestOf(doc).Hex()))
	_, err := open(t, s, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: soon})
	if !fault.Is(err, fault.Damaged) || !errors.Is(err, remote.ErrOriginal) || !strings.Contains(err.Error(), "lie/1") {
		t.Errorf("a manifest of an entry of format 1.0: %v", err)
	}
}

var errUnreachable = errors.New("out of reach")

// unreachable is a store of which one object cannot be read.
type unreachable struct {
	*mem.Store
	key string
}

func (u *unreachable) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if key == u.key {
		return nil, errUnreachable
	}
	return u.Store.Get(ctx, key, offset, length)
}

// plainStore can do nothing but what every store can.
type plainStore struct{ storage.Store }

// TestMoveTag: a tag is moved while it names what the caller says, and else not.
func TestMoveTag(t *testing.T) {
	for name, wrap := range map[string]func(*mem.Store) storage.Store{
		"swap": func(s *mem.Store) storage.Store { return s }, "look": func(s *mem.Store) storage.Store { return plainStore{s} },
	} {
		t.Run(name, func(t *testing.T) {
			inner := mem.New()
			s := wrap(inner)
			one, two := image3(t, "one"), image3(t, "two")
			pushTo(t, s, "app:1", one)
			pushTo(t, s, "app:2", two)
			r := open(t, s, codec.LZ4)
			ref := remotetest.Ref(t, "app:1")
			put(t, inner, "repositories/app/1", []byte(one.ID.Hex()+"\n")) // written by hand
			if err := r.MoveTag(t.Context(), ref, two.ID, two.ID); !fault.Is(err, fault.Refused) {
				t.Errorf("from what it does not name: %v", err)
			}
			if got := get(t, inner, "repositories/app/1"); !bytes.HasPrefix(got, []byte(one.ID.Hex())) {
				t.Errorf("and then it names %s", got)
			}
			for range 2 { // the second time there is nothing to do
				if err := r.MoveTag(t.Context(), ref, one.ID, two.ID); err != nil {
					t.Error(err)
				}
				if got := get(t, inner, "repositories/app/1"); string(got) != two.ID.Hex() {
					t.Errorf("moved, it names %s", got)
				}
			}
			remove(t, inner, "repositories/app/1")
			if err := r.MoveTag(t.Context(), ref, two.ID, one.ID); !fault.Is(err, fault.Refused) || len(keys(t, inner, "repositories/")) != 1 {
				t.Errorf("a tag that is gone: %v", err)
			}
			var incomplete *remote.IncompleteError
			if err := r.MoveTag(t.Context(), remotetest.Ref(t, "app:2"), two.ID, image.ID{1}); !errors.As(err, &incomplete) {
				t.Errorf("to what is not there: %v", err)
			}
		})
	}
}
