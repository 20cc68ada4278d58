// Package remotetest proves that a remote.Remote keeps to its contract (Run),
// and has the small images that tests of remotes need.
package remotetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Harness says how to reach a remote and what it can do. What it does not
// declare is not skipped: the suite proves how the remote behaves without it.
type Harness struct {
	// Open returns an empty target. It is called once for each test and cleans up with t.Cleanup.
	Open func(t *testing.T) Target

	// Conflicts: a tag is refused whose name, repository/tag, is the beginning
	// of a repository's that has tags, and the other way round. Without it, both live side by side.
	Conflicts bool

	// Sessions, Untags, Signs, Stored, Memberships, Uploads: both sides are
	// remote.Sessions, remote.Untagger, remote.Signatures, remote.StoredSource and
	// StoredTarget, remote.Memberships, and remote.Uploads. Without, they are not.
	Sessions, Untags, Signs, Stored, Memberships, Uploads bool

	// Exclusive: of those who append to one upload at once, one succeeds.
	Exclusive bool

	// Compresses: layers are stored compressed and named so, so that an image's manifest
	// is another than the one that the repository format synthesises.
	Compresses bool

	// Large is the size, in bytes, of the largest layer: more than the remote
	// moves at once (its buffers, parts, blocks). Zero means 3 MiB and a byte.
	Large int

	// Lasting says which goroutines may outlive a call, those of idle connections.
	Lasting []goleak.Option

	// Brief runs only some of the tests. For remotes on stores whose whole suite runs elsewhere.
	Brief bool
}

// brief are the tests of a Harness that is Brief.
var brief = []string{"round trip", "conflicts", "tag moves", "missing", "resume", "cancelled in a layer", "early close", "sessions", "untags", "uploads"}

// Target is one place opened twice, as two processes would, or two hosts.
type Target struct {
	A, B remote.Remote

	// Forge replaces what the remote holds as a layer's content, behind its
	// back, so that it decodes to tar. Nil only where nobody can do that.
	Forge func(t *testing.T, l remote.Layer, tar []byte)

	// Collect deletes at once what no tag and no session needs. Nil only where nobody
	// does that.
	Collect func(t *testing.T)
}

// Run proves what remote.Source and remote.Target promise. Tests run one after the other.
func Run(t *testing.T, h Harness) {
	if h.Large == 0 {
		h.Large = 3<<20 + 1
	}
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"round trip", (*suite).roundTrip},
		{"odd images", (*suite).oddImages},
		{"digests", (*suite).digests},
		{"names", (*suite).names},
		{"conflicts", (*suite).conflicts},
		{"references", (*suite).references},
		{"look", (*suite).look},
		{"tag versions", (*suite).tagVersions},
		{"not found", (*suite).notFound},
		{"tag moves", (*suite).tagMoves},
		{"wrong layers", (*suite).wrongLayers},
		{"wrong documents", (*suite).wrongDocuments},
		{"missing", (*suite).missing},
		{"tag before its image", (*suite).tagBeforeImage},
		{"empty index", (*suite).emptyIndex},
		{"resume", (*suite).resume},
		{"same image at once", (*suite).sameImageAtOnce},
		{"many tags at once", (*suite).manyTagsAtOnce},
		{"cancelled", (*suite).cancelled},
		{"cancelled in a layer", (*suite).cancelledInLayer},
		{"damaged layer", (*suite).damagedLayer},
		{"early close", (*suite).earlyClose},
		{"sessions", (*suite).sessions},
		{"untags", (*suite).untags},
		{"signatures", (*suite).signs},
		{"stored layers", (*suite).stored},
		{"memberships", (*suite).memberships},
		{"conflicts of members", (*suite).memberConflicts},
		{"uploads", (*suite).uploads},
		{"appends at once", (*suite).appendsAtOnce},
	} {
		if h.Brief && !slices.Contains(brief, test.name) {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			s := &suite{T: t, Harness: h, Target: h.Open(t)}
			before := goleak.IgnoreCurrent()
			test.run(s)
			if err := Leaks(append(slices.Clone(h.Lasting), before)...); err != nil {
				t.Error(err)
			}
		})
	}
}

// Leaks is what goleak finds in the end. It waits for less than half a second itself, and a busy machine may take longer.
func Leaks(but ...goleak.Option) error {
	late := time.Now().Add(20 * time.Second)
	err := goleak.Find(but...)
	for err != nil && time.Now().Before(late) {
		err = goleak.Find(but...)
	}
	return err
}

// suite is one test's view of its target.
type suite struct {
	*testing.T
	Harness
	Target
}

func (s *suite) ctx() context.Context { return s.T.Context() }

// both are the target's two sides.
func (s *suite) both() []remote.Remote { return []remote.Remote{s.A, s.B} }

// image returns an image with its own layers, none of which another name's has.
func (s *suite) image(name string, layers int) Image {
	s.Helper()
	var tars [][]byte
	for i := range layers {
		tars = append(tars, FileLayer(s.T, fmt.Sprintf("%s-%d", name, i), fmt.Sprintf("layer %d of %s", i, name)))
	}
	return NewImage(s.T, name, tars...)
}

func (s *suite) push(to remote.Target, ref string, img Image) {
	s.Helper()
	if _, err := Push(s.ctx(), to, Ref(s.T, ref), img); err != nil {
		s.Fatalf("push %s: %v", ref, err)
	}
}

// holds fails the test unless ref, seen from both sides, is exactly img.
func (s *suite) holds(ref string, img Image) {
	s.Helper()
	for i, from := range s.both() {
		got, err := Pull(s.ctx(), from, Ref(s.T, ref))
		if err != nil {
			s.Errorf("pull %s by side %d: %v", ref, i, err)
		} else if diff := img.Diff(got); diff != "" {
			s.Errorf("pull %s by side %d: %s", ref, i, diff)
		}
	}
}

// absent fails the test unless both sides say that there is no ref.
func (s *suite) absent(ref string) {
	s.Helper()
	for i, from := range s.both() {
		if id, err := from.Resolve(s.ctx(), Ref(s.T, ref)); !fault.Is(err, fault.NotFound) {
			s.Errorf("resolve %s by side %d: %s, %v, want a not-found fault", ref, i, id.Short(), err)
		}
	}
}

// lacks fails the test unless both sides say that exactly want is missing of
// img, and that the other layers are there.
func (s *suite) lacks(img Image, want remote.Closure) {
	s.Helper()
	for i, to := range s.both() {
		got, there, err := to.Missing(s.ctx(), img.Closure())
		if err != nil {
			s.Errorf("missing by side %d: %v", i, err)
			continue
		}
		if diff := cmp.Diff(sorted(want), sorted(got)); diff != "" {
			s.Errorf("missing by side %d (-want +got):\n%s", i, diff)
		}
		have := map[image.DiffID]bool{}
		for _, l := range there {
			have[l.Digest] = true
			if tar := img.Layer(l.Digest); l.Size != int64(len(tar)) || l.Stored < 0 {
				s.Errorf("layer %s is there with %d bytes, %d stored; it has %d", l.Digest.Short(), l.Size, l.Stored, len(tar))
			}
		}
		for _, id := range img.Closure().Layers {
			if have[id] == slices.Contains(want.Layers, id) {
				s.Errorf("layer %s by side %d: told as there: %t", id.Short(), i, have[id])
			}
		}
	}
}

// sorted returns c in the order of digests; nothing and nil are the same.
func sorted(c remote.Closure) remote.Closure {
	order := func(digests []image.Digest) []image.Digest {
		return slices.SortedFunc(slices.Values(append([]image.Digest{}, digests...)), func(a, b image.Digest) int {
			return slices.Compare(a[:], b[:])
		})
	}
	return remote.Closure{Documents: order(c.Documents), Layers: order(c.Layers)}
}

// tags fails the test unless both sides list exactly want in repository, "" for all.
func (s *suite) tags(repository string, want ...string) {
	s.Helper()
	for i, from := range s.both() {
		got := []string{}
		for tag, err := range from.References(s.ctx(), repository) {
			if err != nil {
				s.Fatalf("references of %q by side %d: %v", repository, i, err)
			}
			got = append(got, tag.Reference.String())
		}
		slices.Sort(got)
		if diff := cmp.Diff(slices.Sorted(slices.Values(append([]string{}, want...))), got, cmp.Transformer("nil", func(l []string) []string { return append([]string{}, l...) })); diff != "" {
			s.Errorf("references of %q by side %d (-want +got):\n%s", repository, i, diff)
		}
	}
}

// incomplete fails the test unless err is an IncompleteError with exactly this missing.
func (s *suite) incomplete(err error, id image.ID, want remote.Closure) {
	s.Helper()
	var incomplete *remote.IncompleteError
	if !errors.As(err, &incomplete) {
		s.Errorf("tag: %v, want an IncompleteError", err)
		return
	}
	if incomplete.ID != id || incomplete.Tagged {
		s.Errorf("the IncompleteError is of %s, tagged: %t", incomplete.ID.Short(), incomplete.Tagged)
	}
	if diff := cmp.Diff(sorted(want), sorted(incomplete.Missing)); diff != "" {
		s.Errorf("the IncompleteError lacks (-want +got):\n%s", diff)
	}
}
