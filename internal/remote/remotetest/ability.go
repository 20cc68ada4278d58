package remotetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing/iotest"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// can returns both sides as a T, and false where they are not to be, as the harness
// has declared. The test fails where they are something else than declared.
func can[T any](s *suite, declared bool) (both []T, ok bool) {
	s.Helper()
	for i, side := range s.both() {
		t, is := side.(T)
		if is != declared {
			s.Fatalf("side %d: it is a %T: %t, declared: %t", i, &t, is, declared)
		}
		both = append(both, t)
	}
	return both, declared
}

// sessions: what one has asked for or written stays until it ends, and it is a target
// like any other. Where there are none, Begin gives the remote itself.
func (s *suite) sessions() {
	_, has := can[remote.Sessions](s, s.Sessions)
	img, idle := s.image("app", 2), s.image("idle", 2)
	s.push(s.A, "app:kept", s.image("kept", 1)) // a remote without tags is not collected
	to, end := remote.Begin(s.A, func(string) {})
	if !has {
		if to != remote.Target(s.A) {
			s.Errorf("without sessions it begins with %T", to)
		}
		end(s.ctx())
		return
	}
	// Asked for, and there already: it may be relied on.
	if err := Put(s.ctx(), s.B, img, remote.Closure{Layers: img.DiffIDs()[:1]}); err != nil {
		s.Fatal(err)
	}
	if missing, _, err := to.Missing(s.ctx(), img.Closure()); err != nil || len(missing.Layers) != 1 {
		s.Fatalf("missing is %v, error %v", missing, err)
	}
	s.collect()
	if err := Put(s.ctx(), to, img, remote.Closure{Layers: img.DiffIDs()[1:], Documents: []image.Digest{img.ID}}); err != nil {
		s.Fatal(err)
	}
	s.collect()
	s.lacks(img, img.none())
	if err := to.Tag(s.ctx(), Ref(s.T, "app:1"), img.ID); err != nil {
		s.Fatal(err)
	}
	ended, cancel := context.WithCancel(s.ctx())
	cancel()
	end(ended)
	s.collect()
	s.holds("app:1", img)

	// What no tag names in the end is anybody's again.
	to, end = remote.Begin(s.B, nil)
	if err := Put(s.ctx(), to, idle, idle.Closure()); err != nil {
		s.Fatal(err)
	}
	s.collect()
	s.lacks(idle, idle.none())
	end(s.ctx())
	if s.Collect != nil {
		s.collect()
		s.lacks(idle, idle.Closure())
	}

	// One that was not used.
	_, end = remote.Begin(s.A, nil)
	end(s.ctx())
	s.holds("app:1", img)
}

func (s *suite) collect() {
	s.Helper()
	if s.Collect != nil {
		s.Collect(s.T)
	}
}

// untags: a tag goes while it names what the caller says, and its image stays.
func (s *suite) untags() {
	both, ok := can[remote.Untagger](s, s.Untags)
	if !ok {
		return
	}
	one, two := s.image("one", 1), s.image("two", 1)
	s.push(s.A, "app:1", one)
	s.push(s.A, "app:2", two)
	for _, wrong := range []image.ID{two.ID, {}, image.DigestOf([]byte("nobody's"))} {
		if err := both[1].Untag(s.ctx(), Ref(s.T, "app:1"), wrong); !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "app:1") {
			s.Errorf("it names another image: %v, want a refused fault", err)
		}
	}
	ended, cancel := context.WithCancel(s.ctx())
	cancel()
	if err := both[0].Untag(ended, Ref(s.T, "app:1"), one.ID); !errors.Is(err, context.Canceled) {
		s.Errorf("with a cancelled context: %v", err)
	}
	s.holds("app:1", one)
	for range 2 { // the second time it is gone
		if err := both[1].Untag(s.ctx(), Ref(s.T, "app:1"), one.ID); err != nil {
			s.Error(err)
		}
		s.absent("app:1")
	}
	if err := both[0].Untag(s.ctx(), Ref(s.T, "never:1"), one.ID); err != nil {
		s.Errorf("a tag that never was: %v", err)
	}
	s.lacks(one, one.none())
	s.tags("", "app:2")
	s.holds("app:2", two)
	s.push(s.B, "app:1", two)
	s.holds("app:1", two)
}

// signs: signatures are kept for each key, tag and image, as they came.
func (s *suite) signs() {
	both, ok := can[remote.Signatures](s, s.Signs)
	if !ok {
		return
	}
	const key, other = "0123456789abcdef", "fedcba9876543210"
	one, two := s.image("one", 1), s.image("two", 1)
	ref := Ref(s.T, "team/app:1")
	read := func(what string, want string, get func(from remote.Signatures) ([]byte, error)) {
		s.Helper()
		for i, from := range both {
			got, err := get(from)
			if want == "" && !fault.Is(err, fault.NotFound) || want != "" && (err != nil || string(got) != want) {
				s.Errorf("%s by side %d: %q, %v, want %q", what, i, got, err, want)
			}
		}
	}
	of := func(id image.ID, key string) func(remote.Signatures) ([]byte, error) {
		return func(from remote.Signatures) ([]byte, error) { return from.Signature(s.ctx(), ref, id, key) }
	}
	current := func(key string) func(remote.Signatures) ([]byte, error) {
		return func(from remote.Signatures) ([]byte, error) { return from.CurrentSignature(s.ctx(), ref, key) }
	}
	put := func(id image.ID, key, content string) {
		s.Helper()
		if err := both[0].PutSignature(s.ctx(), ref, id, key, []byte(content)); err != nil {
			s.Fatal(err)
		}
	}
	read("none", "", of(one.ID, key))
	read("what nothing is named by", "", current(key))
	put(one.ID, key, "first") // before its tag, as a push does
	read("that of a tag that is not there yet", "first", of(one.ID, key))
	read("what nothing is named by", "", current(key))
	s.push(s.A, ref.String(), one)
	read("the tag's", "first", current(key))
	read("another key's", "", current(other))
	put(two.ID, key, "second")
	put(one.ID, other, strings.Repeat("x", remote.MaxSignature))
	read("the tag's, as another image is signed", "first", current(key))
	read("another key's", strings.Repeat("x", remote.MaxSignature), current(other))
	put(one.ID, key, "anew")
	read("what was signed anew", "anew", of(one.ID, key))
	s.push(s.B, ref.String(), two)
	read("the moved tag's", "second", current(key))
	read("of what it named", "anew", of(one.ID, key))
	for id, want := range map[image.ID][]remote.Signature{
		{}:     {{Image: one.ID, Key: key}, {Image: one.ID, Key: other}, {Image: two.ID, Key: key}},
		two.ID: {{Image: two.ID, Key: key}},
	} {
		for i, from := range both {
			var got []remote.Signature
			for sig, err := range from.Signed(s.ctx(), ref, id) {
				if err != nil {
					s.Fatal(err)
				}
				got = append(got, sig)
			}
			order := func(a, b remote.Signature) int {
				return cmp.Or(bytes.Compare(a.Image[:], b.Image[:]), strings.Compare(a.Key, b.Key))
			}
			slices.SortFunc(got, order)
			slices.SortFunc(want, order)
			if diff := gocmp.Diff(want, got); diff != "" {
				s.Errorf("signed of %s by side %d (-want +got):\n%s", id.Short(), i, diff)
			}
		}
	}
	s.tags("", ref.String()) // they are none
}

// stored: a layer travels in the bytes in which it is kept, and is proved by who takes it.
func (s *suite) stored() {
	from, gives := can[remote.StoredSource](s, s.Stored)
	_, takes := can[remote.StoredTarget](s, s.Stored)
	if !gives || !takes {
		return
	}
	img := NewImage(s.T, "app", FileLayer(s.T, "text", strings.Repeat("text that compresses ", 1000)), Noise("noise", s.Large))
	s.push(s.A, "app:1", img)
	there := s.Open(s.T)
	target := there.A.(remote.StoredTarget)
	other := &suite{T: s.T, Harness: s.Harness, Target: there}
	layers, err := remote.Layers(s.ctx(), s.B, img.DiffIDs())
	if err != nil {
		s.Fatal(err)
	}
	open := func(l remote.Layer) remote.Stored {
		s.Helper()
		stored, err := from[1].OpenStored(s.ctx(), l)
		if err != nil {
			s.Fatal(err)
		}
		return stored
	}
	for _, l := range layers {
		stored := open(l)
		content, err := io.ReadAll(stored.Body)
		if err := errors.Join(err, stored.Body.Close()); err != nil {
			s.Fatal(err)
		}
		if int64(len(content)) != stored.Size || stored.Size != l.Stored || stored.File == "" {
			s.Errorf("layer %s is stored as %q of %d bytes, and %d come; Look says %d", l.Digest.Short(), stored.File, stored.Size, len(content), l.Stored)
		}
		put := func(layer image.Descriptor, file string, size int64, body io.Reader) error {
			_, err := target.PutStored(s.ctx(), layer, remote.Stored{File: file, Blob: stored.Blob, Size: size, Body: io.NopCloser(body)})
			return err
		}
		right := image.Descriptor{Digest: l.Digest, Size: l.Size}
		flipped := bytes.Clone(content)
		flipped[len(flipped)/2] ^= 1
		for what, err := range map[string]error{
			"a flipped bit":   put(right, stored.File, stored.Size, bytes.NewReader(flipped)),
			"cut":             put(right, stored.File, stored.Size, bytes.NewReader(content[:len(content)-1])),
			"nothing":         put(right, stored.File, stored.Size, bytes.NewReader(nil)),
			"twice":           put(right, stored.File, 2*stored.Size, bytes.NewReader(append(bytes.Clone(content), content...))),
			"of another size": put(image.Descriptor{Digest: l.Digest, Size: l.Size + 1}, stored.File, stored.Size, bytes.NewReader(content)),
		} {
			var wrong *remote.StoredError
			if !errors.As(err, &wrong) {
				s.Errorf("%s: %v, want a StoredError", what, err)
			}
		}
		if err := put(right, stored.File, stored.Size, broken(content[:len(content)/2], errBody)); !errors.Is(err, errBody) {
			s.Errorf("a body that breaks: %v", err)
		}
		if err := put(right, "layer.tar.unheard-of", stored.Size, iotest.ErrReader(errBody)); !errors.Is(err, errors.ErrUnsupported) {
			s.Errorf("a file that it does not know: %v", err)
		}
		other.lacks(img, img.Closure())
		if err := from[0].Damage(l, errBody); !fault.Is(err, fault.Damaged) || !errors.Is(err, errBody) || fault.AdviceOf(err) == "" {
			s.Errorf("damage: %v", err)
		}
	}
	for _, l := range layers {
		stored := open(l)
		done, err := target.PutStored(s.ctx(), image.Descriptor{Digest: l.Digest, Size: l.Size}, stored)
		if err := errors.Join(err, stored.Body.Close()); err != nil || done.Digest != l.Digest || done.Size != l.Size || done.Stored != stored.Size {
			s.Errorf("layer %s: %+v, %v", l.Digest.Short(), done, err)
		}
		early := open(l) // which nobody reads to its end
		if err := early.Body.Close(); err != nil {
			s.Error(err)
		}
	}
	other.push(there.B, "app:1", img)
	other.holds("app:1", img)
}
