package names_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/names"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/retention"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

const day = 24 * time.Hour

func TestPrune(t *testing.T) {
	s := mem.New()
	r := &staged{Repo: open(t, s), ages: map[string]time.Duration{
		"app:1": 9 * day, "app:2": 3 * day, "app:3": 2 * day, "app:v1": 8 * day, "app/sub:1": 20 * day, "other:1": 90 * day, "other:2": 80 * day,
	}}
	ids := map[string]image.ID{}
	for ref := range r.ages {
		ids[ref] = push(t, r, ref)
	}
	all := tags(t, r)
	prune := func(o names.PruneOptions) []string {
		t.Helper()
		o.Name = "the-remote"
		rows, err := names.Prune(t.Context(), r, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range rows {
			if want := p.Fate == names.Removed; want != (p.ID == ids[p.Reference.String()]) || p.Err != nil {
				t.Errorf("%s, %s: %s, %v", p.Reference, p.Fate, p.ID.Short(), p.Err)
			}
		}
		return fates(rows)
	}
	rules := retention.Rules{Last: 1, Within: 2 * day, Names: []string{"v*"}}
	want := []string{
		"app:3 kept keep-last 1, keep-within 2d", "app:2 kept keep-within 2d", "app:v1 kept keep v*", "app:1 goes",
		"app/sub:1 kept keep-last 1, keep-within 2d",
		"other:2 kept keep-last 1, keep-within 2d", "other:1 goes",
	}
	if diff := cmp.Diff(want, prune(names.PruneOptions{Rules: rules, DryRun: true})); diff != "" {
		t.Errorf("dry (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[:4], prune(names.PruneOptions{Rules: rules, DryRun: true, Repositories: []string{"app", "app"}})); diff != "" {
		t.Errorf("one repository (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(all, tags(t, r)); diff != "" {
		t.Errorf("a dry run changed it (-want +got):\n%s", diff)
	}
	_, err := names.Prune(t.Context(), r, names.PruneOptions{Name: "the-remote", Rules: rules, Repositories: []string{"app", "nothing"}})
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("no such repository: %v", err)
	}
	if diff := cmp.Diff(all, tags(t, r)); diff != "" {
		t.Errorf("a repository that is not there changed it (-want +got):\n%s", diff)
	}
	want[3], want[6] = "app:1 removed", "other:1 removed"
	if diff := cmp.Diff(want, prune(names.PruneOptions{Rules: rules})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	left := slices.DeleteFunc(all, func(ref string) bool { return ref == "app:1" || ref == "other:1" })
	if diff := cmp.Diff(left, tags(t, r)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if rows := prune(names.PruneOptions{Rules: rules}); len(rows) != 5 || !cmp.Equal(left, tags(t, r)) {
		t.Errorf("again: %q", rows)
	}

	// What is damaged goes by its age, as the others do.
	put(t, s, "repositories/app/2", "not an ID")
	ids["app:2"] = image.ID{}
	if rows := prune(names.PruneOptions{Rules: retention.Rules{Last: 1}, Repositories: []string{"app"}}); rows[1] != "app:2 removed" {
		t.Errorf("a damaged tag: %q", rows)
	}

	// A remote that does not know how old tags are.
	r.ages = nil
	blind := timeless{r}
	if _, err := names.Prune(t.Context(), blind, names.PruneOptions{Rules: rules, DryRun: true}); !fault.Is(err, fault.Refused) {
		t.Errorf("no times: %v", err)
	}
	rows, err := names.Prune(t.Context(), blind, names.PruneOptions{Rules: retention.Rules{Names: []string{"3"}}, DryRun: true, Repositories: []string{"app"}})
	if err != nil || fates(rows)[0] != "app:3 kept keep 3" {
		t.Errorf("no times, and no rule that needs them: %q, %v", fates(rows), err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := names.Prune(ended, r, names.PruneOptions{Rules: rules}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// timeless is a remote that tells no times.
type timeless struct{ remote.Source }

func (s timeless) References(ctx context.Context, repository string) iter.Seq2[remote.Tag, error] {
	return func(yield func(remote.Tag, error) bool) {
		for tag, err := range s.Source.References(ctx, repository) {
			tag.Modified = time.Time{}
			if !yield(tag, err) {
				return
			}
		}
	}
}

// TestPruneRaces has somebody at work at each moment of a prune that means to
// remove app:old: what is written meanwhile stays.
func TestPruneRaces(t *testing.T) {
	for moment, at := range map[string]func(*staged, func()){
		"before the tag is read":  func(r *staged, act func()) { r.onTag = act },
		"before the second list":  func(r *staged, act func()) { r.onList = func(n int) { whenSecond(n, act) } },
		"just before the removal": func(r *staged, act func()) { r.onGone = act },
		"at each of these moments": func(r *staged, act func()) {
			r.onTag, r.onGone, r.onList = act, act, func(n int) { whenSecond(n, act) }
		},
		"behind it, so to say never": func(*staged, func()) {},
	} {
		for by, rules := range map[string]retention.Rules{"keep-last 1": {Last: 1}, "keep new": {Names: []string{"new"}}} {
			for what, test := range disturbances() {
				disturb(t, what+", "+moment, rules, "app:new kept "+by, at, test)
			}
		}
	}
}

// disturbance is what somebody does to app:old.
type disturbance struct {
	act  func(*testing.T, *mem.Store, image.ID)
	want string // what becomes of app:old, in a run that is disturbed
	left []string
}

func disturbances() map[string]disturbance {
	return map[string]disturbance{
		"moved": {func(t *testing.T, s *mem.Store, other image.ID) { put(t, s, "repositories/app/old", other.Hex()) }, "app:old stays", []string{"app:new", "app:old"}},
		"gone": {func(t *testing.T, s *mem.Store, _ image.ID) {
			if err := s.Delete(t.Context(), "repositories/app/old"); err != nil {
				t.Error(err)
			}
		}, "", []string{"app:new"}},
	}
}

func disturb(t *testing.T, name string, rules retention.Rules, kept string, at func(*staged, func()), test disturbance) {
	t.Helper()
	s := mem.New()
	r := &staged{Repo: open(t, s)}
	push(t, r, "app:old")
	time.Sleep(2 * time.Millisecond) // mem has this machine's clock
	other := push(t, r, "app:new")
	var once sync.Once
	disturbed := false
	at(r, func() {
		once.Do(func() {
			disturbed = true
			test.act(t, s, other)
		})
	})
	rows, err := names.Prune(t.Context(), r, names.PruneOptions{Name: "the-remote", Rules: rules})
	r.onTag, r.onGone, r.onList = nil, nil, nil
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	want, left := test.want, test.left
	if !disturbed {
		want, left = "app:old removed", []string{"app:new"}
	}
	got := fates(rows)
	if len(got) != 2 || got[0] != kept || want != "" && got[1] != want {
		t.Errorf("%s: %q, want %q", name, got, want)
	}
	if diff := cmp.Diff(left, tags(t, r)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func whenSecond(n int, act func()) {
	if n == 2 {
		act()
	}
}

// TestPruneLosesTheNewest: where the tags go for which others were to go, these stay.
func TestPruneLosesTheNewest(t *testing.T) {
	s := mem.New()
	r := &staged{Repo: open(t, s)}
	for _, ref := range []string{"app:1", "app:2", "app:3"} {
		push(t, r, ref)
		time.Sleep(2 * time.Millisecond)
	}
	r.onList = func(n int) {
		whenSecond(n, func() {
			for _, tag := range []string{"2", "3"} {
				if err := s.Delete(t.Context(), "repositories/app/"+tag); err != nil {
					t.Error(err)
				}
			}
		})
	}
	rows, err := names.Prune(t.Context(), r, names.PruneOptions{Name: "the-remote", Rules: retention.Rules{Last: 2}})
	if err != nil || fates(rows)[2] != "app:1 stays" {
		t.Errorf("%q, %v", fates(rows), err)
	}
	if diff := cmp.Diff([]string{"app:1"}, tags(t, r)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

// failing is a remote in which the removal of some tags fails.
type failing struct {
	*staged
	fail map[string]error
}

func (f failing) Untag(ctx context.Context, ref image.Reference, id image.ID) error {
	if err := f.fail[ref.Tag]; err != nil {
		return err
	}
	return f.staged.Untag(ctx, ref, id)
}

func TestPruneFails(t *testing.T) {
	r := &staged{Repo: open(t, mem.New()), ages: map[string]time.Duration{"app:1": 3 * day, "app:2": 2 * day, "app:3": day, "app:4": 0}}
	for ref := range r.ages {
		push(t, r, ref)
	}
	denied, lost := fault.New(fault.Refused, "denied"), errors.New("the network is gone")
	f := failing{r, map[string]error{"1": denied, "3": lost}}
	rows, err := names.Prune(t.Context(), f, names.PruneOptions{Name: "the-remote", Rules: retention.Rules{Last: 1}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"app:4 kept keep-last 1", "app:3 failed", "app:2 removed", "app:1 failed"}
	if diff := cmp.Diff(want, fates(rows)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !errors.Is(rows[1].Err, lost) || !errors.Is(rows[3].Err, error(denied)) {
		t.Errorf("failures %v, %v", rows[1].Err, rows[3].Err)
	}
}
