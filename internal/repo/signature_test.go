package repo_test

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

const (
	keyOne = "0123456789abcdef"
	keyTwo = "fedcba9876543210"
)

// signatureStores are stores that differ in what keys they let live side by side.
func signatureStores(t *testing.T) map[string]storage.Store {
	return map[string]storage.Store{"mem": mem.New(), "flat": newFlat(), "file": openDir(t, t.TempDir())}
}

// signedBy lists the signatures of a tag, of one image or of all, as "image key".
func signedBy(t *testing.T, r remote.Signatures, ref string, id image.ID) (list []string) {
	t.Helper()
	for s, err := range r.Signed(t.Context(), remotetest.Ref(t, ref), id) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s.Image.Short()+" "+s.Key)
	}
	slices.Sort(list)
	return list
}

// TestSignatures: each has a place of its own, and is read where it was written.
func TestSignatures(t *testing.T) {
	one, two := image.DigestOf([]byte("one")), image.DigestOf([]byte("two"))
	// Names that are the beginning of one another, and that hide in one another's keys.
	refs := []string{
		"a:b", "a/b:c", "a/b:" + one.Hex(), "a/b/" + one.Hex() + ":" + keyOne, "a/b:b." + keyOne, "localhost:5000/a:b", "localhost:5000/a:B",
		"a:" + strings.Repeat("t", 128),
	}
	for kind, s := range signatureStores(t) {
		t.Run(kind, func(t *testing.T) {
			a, b := open(t, s, codec.LZ4), open(t, s, codec.LZ4)
			content := func(ref string, id image.ID, key string) []byte { return []byte(ref + id.Hex() + key) }
			for _, ref := range refs {
				if got := signedBy(t, b, ref, image.ID{}); len(got) > 0 {
					t.Errorf("%s is signed: %q", ref, got)
				}
				for _, id := range []image.ID{one, two} {
					for _, key := range []string{keyOne, keyTwo} {
						if _, err := b.Signature(t.Context(), remotetest.Ref(t, ref), id, key); !fault.Is(err, fault.NotFound) {
							t.Errorf("%s: %v, want a not-found fault", ref, err)
						}
						for range 2 {
							if err := a.PutSignature(t.Context(), remotetest.Ref(t, ref), id, key, content(ref, id, key)); err != nil {
								t.Fatal(err)
							}
						}
					}
				}
			}
			for _, ref := range refs {
				for _, id := range []image.ID{one, two} {
					for _, key := range []string{keyOne, keyTwo} {
						got, err := b.Signature(t.Context(), remotetest.Ref(t, ref), id, key)
						if err != nil || !bytes.Equal(got, content(ref, id, key)) {
							t.Errorf("%s: %q, %v", ref, got, err)
						}
					}
				}
				var want []string
				for _, id := range []image.ID{one, two} {
					want = append(want, id.Short()+" "+keyOne, id.Short()+" "+keyTwo)
				}
				slices.Sort(want)
				if got := signedBy(t, b, ref, image.ID{}); !slices.Equal(got, want) {
					t.Errorf("%s is signed: %q, want %q", ref, got, want)
				}
				if got, want := signedBy(t, b, ref, two), []string{two.Short() + " " + keyOne, two.Short() + " " + keyTwo}; !slices.Equal(got, want) {
					t.Errorf("%s has of one image the signatures %q, want %q", ref, got, want)
				}
			}
			for tag, err := range a.References(t.Context(), "") {
				t.Errorf("a signature is taken for the tag %s, %v", tag.Reference, err)
			}
			want := "signatures/localhost%3A5000/a/b@" + one.Hex() + "." + keyOne
			if keys := keys(t, s, "signatures/"); !slices.Contains(keys, want) || len(keys) != 4*len(refs) {
				t.Errorf("%q lacks %s", keys, want)
			}
		})
	}
}

func TestCurrentSignature(t *testing.T) {
	s := mem.New()
	r := open(t, s, codec.None)
	ref := remotetest.Ref(t, "app:1")
	one := remotetest.NewImage(t, "one", remotetest.FileLayer(t, "one", "one"))
	two := remotetest.NewImage(t, "two", remotetest.FileLayer(t, "two", "two"))
	current := func() (string, error) {
		got, err := r.CurrentSignature(t.Context(), ref, keyOne)
		return string(got), err
	}
	for _, img := range []remotetest.Image{one, two} {
		if err := r.PutSignature(t.Context(), ref, img.ID, keyOne, []byte(img.ID.Hex())); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := current(); !fault.Is(err, fault.NotFound) {
		t.Errorf("without a tag: %q, %v", got, err)
	}
	for _, img := range []remotetest.Image{one, two, one} {
		if _, err := remotetest.Push(t.Context(), r, ref, img); err != nil {
			t.Fatal(err)
		}
		if got, err := current(); err != nil || got != img.ID.Hex() {
			t.Errorf("%q, %v, want that of %s", got, err, img.ID)
		}
	}
	put(t, s, tagKey("app:1"), []byte("much damage"))
	if got, err := current(); !fault.Is(err, fault.Damaged) {
		t.Errorf("of a damaged tag: %q, %v", got, err)
	}
}

// TestSignaturesAreBounded, in size and in number: whoever can write the remote chooses both.
func TestSignaturesAreBounded(t *testing.T) {
	s := mem.New()
	r := open(t, s, codec.None)
	ref, id := remotetest.Ref(t, "app:1"), image.DigestOf([]byte("one"))
	key := "signatures/app/1@" + id.Hex() + "." + keyOne
	for size, want := range map[int]bool{remote.MaxSignature: true, remote.MaxSignature + 1: false, 9 << 20: false} {
		put(t, s, key, make([]byte, size))
		got, err := r.Signature(t.Context(), ref, id, keyOne)
		if want != (err == nil) || err == nil && len(got) != size || err != nil && !fault.Is(err, fault.Damaged) {
			t.Errorf("%d bytes: %d, %v", size, len(got), err)
		}
	}
	if err := r.PutSignature(t.Context(), ref, id, keyOne, make([]byte, remote.MaxSignature+1)); err == nil {
		t.Error("a signature was written that no reader takes")
	}
	for _, junk := range []string{
		"signatures/app/1@" + id.Hex(), "signatures/app/1@" + id.Hex() + ".", "signatures/app/1@" + id.Hex() + ".0123456789ABCDEF",
		"signatures/app/1@" + id.Hex() + "." + keyOne + "0", "signatures/app/1@" + id.Hex()[1:] + "." + keyOne, "signatures/app/1@", "signatures/app/1",
		"signatures/app/1@" + id.Hex() + "." + keyTwo + "/x",
	} {
		if storage.ValidKey(junk) == nil {
			put(t, s, junk, nil)
		}
	}
	if got := signedBy(t, r, "app:1", image.ID{}); !slices.Equal(got, []string{id.Short() + " " + keyOne}) {
		t.Errorf("signatures %q", got)
	}
	for i := range 5000 {
		put(t, s, fmt.Sprintf("signatures/app/1@%064x.%016x", i, i), nil)
		put(t, s, fmt.Sprintf("signatures/app/2@junk%04d", i), nil)
	}
	counting := &countedList{Store: s}
	r = open(t, counting, codec.None)
	if got := signedBy(t, r, "app:1", image.ID{}); len(got) < 990 || counting.n.Load() > 1000 {
		t.Errorf("%d signatures of %d keys", len(got), counting.n.Load())
	}
	counting.n.Store(0)
	if got := signedBy(t, r, "app:2", image.ID{}); len(got) > 0 || counting.n.Load() != 1000 {
		t.Errorf("%d signatures of %d keys", len(got), counting.n.Load())
	}
}

// countedList counts the keys that are listed.
type countedList struct {
	storage.Store
	n atomic.Int64
}

func (c *countedList) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		for info, err := range c.Store.List(ctx, prefix) {
			if c.n.Add(1); !yield(info, err) {
				return
			}
		}
	}
}

// TestUnsignedTagIsTold: only where a tag moves from an image that is signed to
// one that is not.
func TestUnsignedTagIsTold(t *testing.T) {
	one := remotetest.NewImage(t, "one", remotetest.FileLayer(t, "one", "one"))
	two := remotetest.NewImage(t, "two", remotetest.FileLayer(t, "two", "two"))
	ref := remotetest.Ref(t, "app:1")
	for what, c := range map[string]struct {
		before []remotetest.Image
		signed []remotetest.Image
		tag    string // of the signatures
		told   bool
	}{
		"a new tag":                {nil, nil, "app:1", false},
		"a new tag with leftovers": {nil, []remotetest.Image{one}, "app:1", false},
		"nothing is signed":        {[]remotetest.Image{one}, nil, "app:1", false},
		"signed, and moved":        {[]remotetest.Image{one}, []remotetest.Image{one}, "app:1", true},
		"both are signed":          {[]remotetest.Image{one}, []remotetest.Image{one, two}, "app:1", false},
		"the new one is signed":    {[]remotetest.Image{one}, []remotetest.Image{two}, "app:1", false},
		"it does not move":         {[]remotetest.Image{two}, []remotetest.Image{two}, "app:1", false},
		"another tag's":            {[]remotetest.Image{one}, []remotetest.Image{one}, "app:11", false},
	} {
		var notes []string
		r, err := repo.Open(t.Context(), mem.New(), repo.Options{Name: "the-remote", Codec: codec.None, Notify: func(line string) { notes = append(notes, line) }})
		if err != nil {
			t.Fatal(err)
		}
		for _, img := range c.before {
			if _, err := remotetest.Push(t.Context(), r, ref, img); err != nil {
				t.Fatal(err)
			}
		}
		for _, img := range c.signed {
			if err := r.PutSignature(t.Context(), remotetest.Ref(t, c.tag), img.ID, keyOne, []byte("signature")); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // the second push moves nothing
			if _, err := remotetest.Push(t.Context(), r, ref, two); err != nil {
				t.Fatal(err)
			}
		}
		if told := len(notes) == 1 && strings.HasPrefix(notes[0], "app:1 was signed and is not any more"); told != c.told || len(notes) > 1 {
			t.Errorf("%s: told %q", what, notes)
		}
	}
}
