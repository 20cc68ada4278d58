package names_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/names"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, s storage.Store) *repo.Repo {
	t.Helper()
	r, err := repo.Open(t.Context(), s, repo.Options{Name: "the-remote", Codec: codec.None})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func push(t *testing.T, r remote.Target, ref string) image.ID {
	t.Helper()
	img := remotetest.NewImage(t, ref)
	if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, ref), img); err != nil {
		t.Fatal(err)
	}
	return img.ID
}

func put(t *testing.T, s storage.Store, key, content string) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

// tags are those that a remote has, in order.
func tags(t *testing.T, from remote.Source) []string {
	t.Helper()
	all := []string{}
	for tag, err := range from.References(context.Background(), "") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tag.Reference.String())
	}
	slices.Sort(all)
	return all
}

func patterns(t *testing.T, list ...string) []names.Pattern {
	t.Helper()
	var all []names.Pattern
	for _, s := range list {
		p, err := names.ParsePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestPatterns(t *testing.T) {
	for text, test := range map[string]struct {
		plain    bool
		yes, not []string
	}{
		"myapp":                   {true, []string{"myapp:latest"}, []string{"myapp:1", "team/myapp:latest"}},
		"myapp:1":                 {true, []string{"myapp:1"}, []string{"myapp:10", "myapp:latest"}},
		"docker.io/library/myapp": {true, []string{"myapp:latest"}, nil},
		"[::1]:5000/app:1":        {true, []string{"[::1]:5000/app:1"}, nil},
		"myapp:2013*":             {false, []string{"myapp:2013", "myapp:20131211"}, []string{"myapp:2014", "myapp2:2013", "team/myapp:2013"}},
		"myapp:*":                 {false, []string{"myapp:1", "myapp:latest"}, []string{"myapp/sub:1", "team/myapp:1"}},
		"team/*:old-*":            {false, []string{"team/a:old-1", "team/b:old-"}, []string{"team/a:new", "team/a/b:old-1", "team:old-1", "a:old-1"}},
		"*:1":                     {false, []string{"a:1", "b:1"}, []string{"a/b:1", "a:2", "localhost:5000/a:1"}},
		"*/*:1":                   {false, []string{"a/b:1", "localhost:5000/a:1"}, []string{"a:1", "a/b/c:1"}},
		"localhost:5000/*:*":      {false, []string{"localhost:5000/a:1"}, []string{"localhost:5001/a:1", "localhost/a:1"}},
		"app:v1.?":                {false, []string{"app:v1.2"}, []string{"app:v1.", "app:v1.10", "app:v1-2x"}},
		"app:[^a-c]":              {false, []string{"app:d"}, []string{"app:a"}},
		"app[12]:x":               {false, []string{"app1:x", "app2:x"}, []string{"app3:x", "app12:x"}},
		`app:\*`:                  {false, nil, []string{"app:1", "app:*"}},
	} {
		p, err := names.ParsePattern(text)
		if err != nil || p.Plain() != test.plain {
			t.Errorf("%s: %v, plain: %t", text, err, p.Plain())
			continue
		}
		for _, names := range [][]string{test.yes, test.not} {
			for _, name := range names {
				ref, err := image.ParseReference(name)
				if err != nil {
					continue
				}
				if want := slices.Contains(test.yes, name); p.Match(ref) != want {
					t.Errorf("%s matches %s: %t", text, name, !want)
				}
			}
		}
	}
	digest := "@sha256:" + strings.Repeat("1", 64)
	for _, text := range []string{
		"", "Not:a:name", "app" + digest, "app:1" + digest, strings.Repeat("1", 64), "team/*", "localhost:5000/*", "*", "*:", ":*", "app*", "app:[", `app:\`, "a[:1", "a[b:1*",
	} {
		if p, err := names.ParsePattern(text); err == nil {
			t.Errorf("%q is taken for %v", text, p)
		}
	}
}

func TestFindAndRemove(t *testing.T) {
	s := mem.New()
	r := open(t, s)
	ids := map[string]image.ID{}
	for _, ref := range []string{"app:1", "app:2", "app:10", "app/sub:1", "team/a:old-1", "team/b:old-2", "team/b:new"} {
		ids[ref] = push(t, r, ref)
	}
	put(t, s, "repositories/app/broken", "not an ID")
	all := tags(t, r)

	find := func(list ...string) []names.Named {
		t.Helper()
		found, err := names.Find(t.Context(), r, "the-remote", patterns(t, list...))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for _, test := range []struct{ patterns, want []string }{
		{[]string{"app:2", "app:1"}, []string{"app:1", "app:2"}},
		{[]string{"app:1*", "app:1", "*:1"}, []string{"app:1", "app:10"}},
		{[]string{"team/*:old-*"}, []string{"team/a:old-1", "team/b:old-2"}},
		{[]string{"app:[^0-9]*"}, []string{"app:broken"}},
	} {
		var got []string
		for _, n := range find(test.patterns...) {
			got = append(got, n.Reference.String())
			if n.ID != ids[n.Reference.String()] || n.ID.IsZero() != (n.Damage != "") {
				t.Errorf("%s names %v, damage %q", n.Reference, n.ID, n.Damage)
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.patterns, diff)
		}
	}
	for _, missing := range [][]string{{"app:3"}, {"app:1", "nothing:1"}, {"app:x*"}, {"app:*", "nothing:*"}} {
		if _, err := names.Find(t.Context(), r, "the-remote", patterns(t, missing...)); !fault.Is(err, fault.NotFound) || fault.AdviceOf(err) == "" {
			t.Errorf("%q: %v, want a not-found fault with advice", missing, err)
		}
	}
	if diff := cmp.Diff(all, tags(t, r)); diff != "" {
		t.Errorf("finding changed it (-want +got):\n%s", diff)
	}

	// One of these moves after it was found.
	found := find("app:*")
	put(t, s, "repositories/app/2", ids["app:1"].Hex())
	for i, err := range names.Remove(t.Context(), r, found) {
		if moved := found[i].Reference.Tag == "2"; moved != fault.Is(err, fault.Refused) || !moved && err != nil {
			t.Errorf("%s: %v", found[i].Reference, err)
		}
	}
	if diff := cmp.Diff([]string{"app/sub:1", "app:2", "team/a:old-1", "team/b:new", "team/b:old-2"}, tags(t, r)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range names.Remove(ended, r, find("team/*:*")) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
	if _, err := names.Find(ended, r, "the-remote", patterns(t, "team/*:*")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// A remote from which nothing can be removed.
	for _, err := range names.Remove(t.Context(), struct{ remote.Source }{r}, find("team/*:*")) {
		if !fault.Is(err, fault.Refused) {
			t.Errorf("a remote that cannot: %v", err)
		}
	}
	if got := len(tags(t, r)); got != 5 {
		t.Errorf("%d tags are left, want 5", got)
	}
}

func TestTag(t *testing.T) {
	s := mem.New()
	r := open(t, s)
	one, two := push(t, r, "app:1"), push(t, r, "app:2")
	put(t, s, "repositories/app/broken", "not an ID")
	tag := func(source, target string, o names.TagOptions) (*names.Tagged, error) {
		return names.Tag(t.Context(), r, remotetest.Ref(t, source), remotetest.Ref(t, target), o)
	}
	resolve := func(ref string) image.ID {
		id, err := r.Resolve(t.Context(), remotetest.Ref(t, ref))
		if err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Damaged) {
			t.Fatal(err)
		}
		return id
	}
	for _, test := range []struct {
		source, target string
		id, before     image.ID
		damaged        bool
	}{
		{"app:1", "app:live", one, image.ID{}, false},
		{"app:2", "app:live", two, one, false},
		{"app:2", "app:live", two, two, false},
		{"other@" + one.String(), "team/app", one, image.ID{}, false},
		{"app:live", "app:broken", two, image.ID{}, true},
		{"app:1", "app:1", one, one, false},
	} {
		before := resolve(test.target)
		for _, dry := range []bool{true, false} {
			got, err := tag(test.source, test.target, names.TagOptions{DryRun: dry})
			if err != nil {
				t.Errorf("%s as %s: %v", test.source, test.target, err)
				continue
			}
			if got.ID != test.id || got.Before != test.before || got.DryRun != dry || (got.Damage != "") != test.damaged {
				t.Errorf("%s as %s, dry %t: %+v", test.source, test.target, dry, got)
			}
			want := test.id
			if dry {
				want = before
			}
			if named := resolve(test.target); named != want {
				t.Errorf("%s as %s, dry %t: it names %s", test.source, test.target, dry, named.Short())
			}
		}
	}
	for _, dry := range []bool{true, false} {
		if _, err := tag("app:2", "app:1", names.TagOptions{IfAbsent: true, DryRun: dry}); !fault.Is(err, fault.Refused) || resolve("app:1") != one {
			t.Errorf("--if-absent, dry %t: %v", dry, err)
		}
		if _, err := tag("app:2", "app:live", names.TagOptions{IfAbsent: true, DryRun: dry}); err != nil {
			t.Errorf("--if-absent of the same, dry %t: %v", dry, err)
		}
		if _, err := tag("app:2", "app:fresh", names.TagOptions{IfAbsent: true, DryRun: dry}); err != nil || (resolve("app:fresh") == two) == dry {
			t.Errorf("--if-absent of a new one, dry %t: %v", dry, err)
		}
		if _, err := tag("app:3", "app:4", names.TagOptions{DryRun: dry}); !fault.Is(err, fault.NotFound) {
			t.Errorf("of nothing, dry %t: %v", dry, err)
		}
	}
	// An image of which a part is missing gets no name.
	torn := remotetest.NewImage(t, "torn", []byte("a layer"))
	if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, "app:torn"), torn); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "images/"+torn.DiffIDs()[0].Hex()+"/layer.tar"); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		_, err := tag("app:torn", "app:1", names.TagOptions{DryRun: dry})
		if !fault.Is(err, fault.Damaged) || fault.AdviceOf(err) == "" || resolve("app:1") != one {
			t.Errorf("an incomplete image, dry %t: %v", dry, err)
		}
	}
}

// staged is a remote in which something happens at a call of References or Untag.
type staged struct {
	*repo.Repo
	lists  int
	onList func(n int) // before the nth list
	onTag  func()      // before each Resolve
	onGone func()      // before each Untag
	ages   map[string]time.Duration
}

func (s *staged) References(ctx context.Context, repository string) iter.Seq2[remote.Tag, error] {
	if s.lists++; s.onList != nil {
		s.onList(s.lists)
	}
	return func(yield func(remote.Tag, error) bool) {
		for tag, err := range s.Repo.References(ctx, repository) {
			if age, ok := s.ages[tag.Reference.String()]; ok {
				tag.Modified = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC).Add(-age)
			}
			if !yield(tag, err) {
				return
			}
		}
	}
}

func (s *staged) Resolve(ctx context.Context, ref image.Reference) (image.ID, error) {
	if s.onTag != nil {
		s.onTag()
	}
	return s.Repo.Resolve(ctx, ref)
}

func (s *staged) Untag(ctx context.Context, ref image.Reference, id image.ID) error {
	if s.onGone != nil {
		s.onGone()
	}
	return s.Repo.Untag(ctx, ref, id)
}

func fates(rows []names.Pruned) []string {
	all := []string{}
	for _, p := range rows {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s", p.Reference, p.Fate, strings.Join(p.KeptBy, ", "))))
	}
	return all
}

// TestTagTakesALease: an image that only just had a name is spared by a garbage collection while it gets another.
func TestTagTakesALease(t *testing.T) {
	began, ended := 0, 0
	in := &leased{Remote: open(t, mem.New()), began: func() { began++ }, ended: func() { ended++ }}
	img := remotetest.NewImage(t, "app", remotetest.FileLayer(t, "base", "base"))
	if _, err := remotetest.Push(t.Context(), in.Remote, remotetest.Ref(t, "app:1"), img); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		if _, err := names.Tag(t.Context(), in, remotetest.Ref(t, "app:1"), remotetest.Ref(t, "app:2"), names.TagOptions{DryRun: dry}); err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{true: 0, false: 1}[dry]; began != want || ended != want {
			t.Errorf("dry %v: %d sessions begun, %d ended", dry, began, ended)
		}
	}
}

// leased is a remote with sessions.
type leased struct {
	remote.Remote
	began, ended func()
}

func (l *leased) Begin(func(string)) (remote.Target, func(context.Context)) {
	l.began()
	return l.Remote, func(context.Context) { l.ended() }
}

// TestTagFollows: where the image goes because its tag is removed while another name is written for it, that is told as
// removed, and not as damage; where the tag moves, the other name is of what it names then.
func TestTagFollows(t *testing.T) {
	for _, moves := range []bool{false, true} {
		for _, dry := range []bool{false, true} {
			s := mem.New()
			r := open(t, s)
			one, two := push(t, r, "app:1"), push(t, r, "app:2")
			asked := 0
			in := &staged{Repo: r, onTag: func() {
				if asked++; asked != 2 { // of the target, behind the source
					return
				}
				err := r.Untag(t.Context(), remotetest.Ref(t, "app:1"), one)
				if moves {
					err = r.Tag(t.Context(), remotetest.Ref(t, "app:1"), two)
				}
				if err := errors.Join(err, s.Delete(t.Context(), "images/"+one.Hex()+"/json")); err != nil {
					t.Error(err)
				}
			}}
			done, err := names.Tag(t.Context(), in, remotetest.Ref(t, "app:1"), remotetest.Ref(t, "app:new"), names.TagOptions{DryRun: dry})
			switch {
			case moves && (err != nil || done.ID != two):
				t.Errorf("moved, dry %t: %+v, error %v", dry, done, err)
			case !moves && (fault.KindOf(err) != fault.NotFound || !errors.Is(err, remote.ErrRemoved) || slices.Contains(tags(t, r), "app:new")):
				t.Errorf("removed, dry %t: error %v, tags %q", dry, err, tags(t, r))
			}
		}
	}
}
