package repo_test

import (
	"bytes"
	"context"
	"errors"
	"path"
	"strings"
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

// stored is a repository of one image, its layers stored with all codecs, two with the first.
type stored struct {
	store   *mem.Store
	img     remotetest.Image
	objects map[string][]byte // what is in store, undamaged
}

func newStored(t testing.TB) stored {
	t.Helper()
	text := strings.Repeat("some text that compresses. ", 40)
	layers := [][]byte{
		remotetest.FileLayer(t, "one", text), remotetest.FileLayer(t, "two", text),
		remotetest.FileLayer(t, "three", text), remotetest.FileLayer(t, "four", "short"),
		append(remotetest.Tar(t), remotetest.Noise("noise", 1200)...), // what no codec makes smaller
	}
	s := stored{store: mem.New(), img: remotetest.NewImage(t, "damage", layers...)}
	for i, c := range []codec.Codec{codec.LZ4, codec.LZ4, codec.Zstd, codec.None, codec.LZ4} {
		missing := s.img.Closure()
		missing.Documents, missing.Layers = nil, missing.Layers[i:i+1]
		if err := remotetest.Put(context.Background(), open(t, s.store, c), s.img, missing); err != nil {
			t.Fatal(err)
		}
	}
	s.push(t)
	s.objects = tree(t, s.store)
	return s
}

func (s stored) push(t testing.TB) {
	t.Helper()
	if _, err := remotetest.Push(context.Background(), open(t, s.store, codec.LZ4), remotetest.Ref(t, "app:1"), s.img); err != nil {
		t.Fatal(err)
	}
}

// restore undoes all damage.
func (s stored) restore(t testing.TB) {
	t.Helper()
	for _, key := range keys(t, s.store, "") {
		if _, ok := s.objects[key]; !ok {
			remove(t, s.store, key)
		}
	}
	for key, content := range s.objects {
		put(t, s.store, key, content)
	}
}

// pull reads ref as a pull does. It fails the test where what comes is not the
// image, and where the error is not one that a damaged object of that key may give.
func (s stored) pull(t testing.TB, ref, key, how string) error {
	t.Helper()
	r, err := repo.Open(t.Context(), s.store, repo.Options{Name: "the-remote"})
	var got remotetest.Image
	if err == nil {
		got, err = remotetest.Pull(t.Context(), r, remotetest.Ref(t, ref))
	}
	if err == nil {
		if diff := s.img.Diff(got); diff != "" {
			t.Errorf("%s, %s: wrong content was taken: %s", key, how, diff)
		}
		return nil
	}
	kind, names := fault.Damaged, key[:strings.LastIndexByte(key, '/')+1] // the folder of the object
	switch {
	case key == "VERSION":
		kind, names = fault.Refused, "the-remote"
	case strings.HasPrefix(key, "repositories/") && how == "removed":
		kind, names = fault.NotFound, "app:1"
	case strings.HasPrefix(key, "repositories/") && strings.Contains(err.Error(), "images/"):
		names = "images/" // a tag may name another id now
	}
	if fault.KindOf(err) != kind || !strings.Contains(err.Error(), names) || fault.AdviceOf(err) == "" || !strings.Contains(err.Error(), "the-remote") {
		t.Errorf("%s, %s: %v (%s, advice %q); want a %s fault with advice that names %s and the remote", key, how, err, fault.KindOf(err), fault.AdviceOf(err), kind, names)
	}
	return err
}

// vital reports whether a pull of the tag must fail when that object is not what it was.
func (s stored) vital(key string) bool {
	return key == "repositories/app/1" || strings.HasPrefix(key, "images/"+s.img.ID.Hex()+"/json") || strings.HasSuffix(key, "/layer.tar")
}

// TestFlips flips every bit of small objects, and one bit of each byte of
// layers; with -short, one bit of every eleventh byte.
func TestFlips(t *testing.T) {
	s := newStored(t)
	harmless, found := 0, 0
	for key, content := range s.objects {
		layer := strings.Contains(key, "/layer.tar")
		for i := range content {
			for bit := range 8 {
				if (layer || testing.Short()) && bit != i%8 || testing.Short() && i%11 != 0 {
					continue
				}
				damaged := bytes.Clone(content)
				damaged[i] ^= 1 << bit
				put(t, s.store, key, damaged)
				if err := s.pull(t, "app:1", key, "flipped"); err != nil {
					found++
				} else if harmless++; s.vital(key) {
					t.Errorf("%s: bit %d of byte %d is flipped, and nobody saw it", key, bit, i)
				}
			}
		}
		put(t, s.store, key, content)
	}
	t.Logf("%d flips told, %d without harm", found, harmless)
	if found < 100 {
		t.Errorf("only %d flips were told", found)
	}
}

// TestCuts cuts objects off at many places, empties them, lets them grow, and removes them.
func TestCuts(t *testing.T) {
	s := newStored(t)
	for key, content := range s.objects {
		for n := range content {
			if len(content) > 1000 && n > 50 && n < len(content)-50 && n%37 != 0 || testing.Short() && n%20 != 0 {
				continue
			}
			put(t, s.store, key, content[:n])
			err := s.pull(t, "app:1", key, "cut")
			if err == nil && (s.vital(key) || strings.Contains(key, "/layer.tar")) {
				t.Errorf("%s: cut after %d bytes, and nobody saw it", key, n)
			}
			if n%100 == 0 && key != "VERSION" {
				s.push(t) // finds it by its size, or its digest
				if err := s.pull(t, "app:1", key, "mended"); err != nil {
					t.Errorf("%s: cut after %d bytes, and a push does not mend it: %v", key, n, err)
				}
				s.restore(t)
			}
		}
		for _, more := range []string{"\n", "x", "\x00\x00\x00\x00", string(content)} {
			put(t, s.store, key, append(bytes.Clone(content), more...))
			err := s.pull(t, "app:1", key, "longer")
			if newline := key == "repositories/app/1" && more == "\n"; newline != (err == nil) && s.vital(key) {
				t.Errorf("%s with %q behind it: %v", key, more, err)
			}
		}
		remove(t, s.store, key)
		err := s.pull(t, "app:1", key, "removed")
		if needed := s.vital(key) || strings.Contains(key, "/layer.tar") || strings.HasSuffix(key, "/json") && !s.isManifest(key); needed != (err != nil) {
			t.Errorf("%s is removed: %v", key, err)
		}
		s.push(t)
		if diff := firstDifference(s.objects, tree(t, s.store)); diff != "" {
			t.Errorf("%s was removed; a push does not bring back %s", key, diff)
		}
		if err := s.pull(t, "app:1", key, "mended"); err != nil {
			t.Errorf("%s was removed; after a push: %v", key, err)
		}
		s.restore(t)
	}
}

func (s stored) isManifest(key string) bool {
	return strings.Contains(key, image.DigestOf(s.img.Manifest()).Hex())
}

// firstDifference names an object that is not the same, "" where all are. A
// layer may have changed its codec, and its metadata with it. VERSION may be absent.
func firstDifference(want, got map[string][]byte) string {
	for key, content := range want {
		about := strings.HasSuffix(key, "/VERSION") || strings.Contains(key, "/layer.tar") || bytes.Contains(content, []byte(`"layer.tar`))
		if !about && !bytes.Equal(got[key], content) {
			return key
		}
	}
	return ""
}

// TestSwaps gives each object what another of the same name has.
func TestSwaps(t *testing.T) {
	s := newStored(t)
	for a, content := range s.objects {
		for b, other := range s.objects {
			if bytes.Equal(content, other) || !strings.HasPrefix(a, "images/") || path.Base(a) != path.Base(b) {
				continue
			}
			put(t, s.store, a, other)
			if err := s.pull(t, "app:1", a, "swapped"); err == nil && !s.isManifest(a) {
				t.Errorf("%s has the content of %s, and nobody saw it", a, b)
			}
			if strings.HasSuffix(a, "/json") || len(content) != len(other) {
				s.push(t)
				if err := s.pull(t, "app:1", a, "mended"); err != nil {
					t.Errorf("%s had the content of %s; after a push: %v", a, b, err)
				}
			}
			s.restore(t)
		}
	}
}

// TestDamagedManifest pulls by the digest of the synthesised manifest.
func TestDamagedManifest(t *testing.T) {
	s := newStored(t)
	id := image.DigestOf(s.img.Manifest())
	key := "images/" + id.Hex() + "/json"
	for i := range s.objects[key] {
		damaged := bytes.Clone(s.objects[key])
		damaged[i] ^= 1
		put(t, s.store, key, damaged)
		if err := s.pull(t, "app@"+id.String(), key, "flipped"); err == nil {
			t.Errorf("byte %d is flipped, and nobody saw it", i)
		}
	}
	put(t, s.store, key, nil)
	if err := s.pull(t, "app@"+id.String(), key, "empty"); err == nil {
		t.Error("an empty manifest is taken")
	}
	remove(t, s.store, key)
	_, err := open(t, s.store, codec.LZ4).Resolve(t.Context(), remotetest.Ref(t, "app@"+id.String()))
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("without the manifest: %v", err)
	}
}

// TestVanishing removes a layer between Layers and Open, and while it is tagged.
func TestVanishing(t *testing.T) {
	s := newStored(t)
	r := open(t, s.store, codec.LZ4)
	layers, err := remote.Layers(t.Context(), r, s.img.DiffIDs())
	if err != nil {
		t.Fatal(err)
	}
	remove(t, s.store, layers[0].Object)
	if _, err := r.Open(t.Context(), layers[0]); !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), layers[0].Object) {
		t.Errorf("open: %v, want a damaged fault that names it", err)
	}

	store := newFlat()
	store.written = func(key string) {
		if key == "repositories/app/1" {
			remove(t, store, layers[0].Object)
		}
	}
	for key, content := range s.objects {
		if key != "repositories/app/1" {
			put(t, store, key, content)
		}
	}
	err = open(t, store, codec.LZ4).Tag(t.Context(), remotetest.Ref(t, "app:1"), s.img.ID)
	if incomplete := incompleteError(t, err); !incomplete.Tagged || len(incomplete.Missing.Layers) != 1 || incomplete.Missing.Layers[0] != layers[0].Digest {
		t.Errorf("a layer vanished behind the tag: %+v", incomplete)
	}
}

// TestConflictBehindTag lets another writer come between the two looks.
func TestConflictBehindTag(t *testing.T) {
	for _, names := range [][2]string{{"a:b", "a/b:c"}, {"a/b:c", "a:b"}} {
		store := newFlat()
		img := remotetest.NewImage(t, "app")
		first, second := remotetest.Ref(t, names[0]), remotetest.Ref(t, names[1])
		var inner error
		store.written = func(key string) {
			if key == tagKey(names[0]) {
				store.written = nil
				_, inner = remotetest.Push(t.Context(), store.repo(t), second, img)
				if inner != nil { // it saw the first; let it be one that looked before
					put(t, store, tagKey(names[1]), []byte(img.ID.Hex()))
				}
			}
		}
		_, err := remotetest.Push(t.Context(), store.repo(t), first, img)
		if !fault.Is(err, fault.Refused) || !fault.Is(inner, fault.Refused) {
			t.Errorf("%s beside %s: %v, %v; want refused faults", names[0], names[1], err, inner)
		}
		if got := keys(t, store, "repositories/"); len(got) != 1 || got[0] != tagKey(names[1]) {
			t.Errorf("%s beside %s: there is %v", names[0], names[1], got)
		}
	}
}

// TestLookFailsBehindTag proves that a tag is not taken back because of a
// failure to look: another writer of it may have been told that it is done.
func TestLookFailsBehindTag(t *testing.T) {
	store := newFlat()
	img := remotetest.NewImage(t, "app")
	lost := errors.New("the network is gone")
	store.written = func(key string) {
		if key == "repositories/app/1" {
			store.listing = lost
		}
	}
	if _, err := remotetest.Push(t.Context(), store.repo(t), remotetest.Ref(t, "app:1"), img); !errors.Is(err, lost) {
		t.Errorf("push: %v, want the store's error", err)
	}
	store.listing = nil
	if got := keys(t, store, "repositories/"); len(got) != 1 {
		t.Errorf("the tag is gone: %v", got)
	}
	if tags, err := (plain{store}).check(); err != nil || len(tags) != 1 {
		t.Errorf("%v, %v", tags, err)
	}
}

func (f *flat) repo(t testing.TB) *repo.Repo { return open(t, f, codec.LZ4) }

var _ storage.Store = (*flat)(nil)
