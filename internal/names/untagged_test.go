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

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/names"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// served is a remote to which manifests were pushed at times that a test says, and
// in which somebody acts before they are listed.
type served struct {
	*repo.Repo
	ages   map[image.Digest]time.Duration // those that are not here are new
	called map[image.Digest]string
	onList func(n int) // before the nth list of manifests
	listed int
}

func newServed(t *testing.T) (*served, *mem.Store) {
	s := mem.New()
	return &served{Repo: open(t, s), ages: map[image.Digest]time.Duration{}, called: map[image.Digest]string{}}, s
}

// long is when all of this is.
var long = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func (s *served) Members(ctx context.Context, repository string) iter.Seq2[remote.Membership, error] {
	if s.listed++; s.onList != nil {
		s.onList(s.listed)
	}
	return func(yield func(remote.Membership, error) bool) {
		for m, err := range s.Repo.Members(ctx, repository) {
			m.Modified = long.Add(-s.ages[m.Manifest])
			if !yield(m, err) {
				return
			}
		}
	}
}

func (s *served) References(ctx context.Context, repository string) iter.Seq2[remote.Tag, error] {
	return func(yield func(remote.Tag, error) bool) {
		for tag, err := range s.Repo.References(ctx, repository) {
			tag.Modified = long.Add(-10 * day)
			if !yield(tag, err) {
				return
			}
		}
	}
}

// attach puts a manifest into a repository, referring to subject, which may be nil.
func (s *served) attach(t *testing.T, repository, name string, subject []byte) remotetest.Artifact {
	t.Helper()
	a := remotetest.NewArtifact(t, name, subject)
	if err := a.Attach(t.Context(), s.Repo, repository); err != nil {
		t.Fatal(err)
	}
	s.called[a.ID] = name
	return a
}

// index puts an index of manifests into a repository.
func (s *served) index(t *testing.T, repository, name string, parts ...remotetest.Artifact) image.Digest {
	t.Helper()
	var all []string
	var ids []image.Digest
	for _, p := range parts {
		ids = append(ids, p.ID)
		all = append(all, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d,"platform":{"os":"linux","architecture":%q}}`, p.ID, len(p.Manifest), s.called[p.ID]))
	}
	doc := []byte(`{"schemaVersion":2,"manifests":[` + strings.Join(all, ",") + `]}`)
	id := image.DigestOf(doc)
	err := s.PutDocument(t.Context(), doc)
	if err == nil {
		err = s.Hold(t.Context(), id, ids)
	}
	if err == nil {
		err = s.Add(t.Context(), repository, id)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.called[id] = name
	return id
}

func (s *served) tag(t *testing.T, name string, id image.Digest) {
	t.Helper()
	if err := s.Tag(t.Context(), remotetest.Ref(t, name), id); err != nil {
		t.Fatal(err)
	}
}

// told returns rows as text, in the order of names.
func (s *served) told(rows []names.Member) (lines []string) {
	for _, m := range rows {
		by := strings.Join(m.KeptBy, ", ")
		for id, name := range s.called {
			by = strings.ReplaceAll(by, id.Short(), name)
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", m.Repository, s.called[m.Manifest], m.Fate, by)))
	}
	slices.Sort(lines)
	return lines
}

// TestPruneUntagged: what tags need stays, and the parts of an index that stays, and
// what refers to something.
func TestPruneUntagged(t *testing.T) {
	s, _ := newServed(t)
	config := push(t, s, "app:classic")
	follows, err := s.ManifestOf(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	s.called[image.DigestOf(follows)] = "follows"
	if err := s.Add(t.Context(), "app", image.DigestOf(follows)); err != nil {
		t.Fatal(err)
	}
	part, lone := s.attach(t, "app", "part", nil), s.attach(t, "app", "lone", nil)
	s.tag(t, "app:multi", s.index(t, "app", "tagged", part))
	oldPart := s.attach(t, "app", "oldpart", nil)
	newest := s.index(t, "app", "newest", oldPart)
	s.attach(t, "app", "signature", lone.Manifest)
	s.attach(t, "other", "elsewhere", nil)
	s.tag(t, "other:1", lone.ID)
	for id := range s.called {
		if id != newest {
			s.ages[id] = 30 * day
		}
	}
	prune := func(o names.UntaggedOptions) []string {
		t.Helper()
		o.Name = "the-remote"
		rows, err := names.PruneUntagged(t.Context(), s, o)
		if err != nil {
			t.Fatal(err)
		}
		return s.told(rows)
	}
	kept := []string{"app follows kept tag classic", "app part kept tag multi", "app tagged kept tag multi"}
	want := append([]string{"app lone goes", "app newest goes", "app oldpart goes", "other elsewhere goes"}, kept...)
	slices.Sort(want)
	if diff := cmp.Diff(want, prune(names.UntaggedOptions{DryRun: true})); diff != "" {
		t.Errorf("dry (-want +got):\n%s", diff)
	}
	want = append([]string{"app lone removed", "app newest kept keep-within 2d", "app oldpart kept index newest"}, kept...)
	slices.Sort(want)
	if diff := cmp.Diff(want, prune(names.UntaggedOptions{Within: 2 * day, Repositories: []string{"app"}})); diff != "" {
		t.Errorf("of one, within two days (-want +got):\n%s", diff)
	}
	want = append([]string{"app newest removed", "app oldpart removed", "other elsewhere removed"}, kept...)
	slices.Sort(want)
	if diff := cmp.Diff(want, prune(names.UntaggedOptions{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(kept, prune(names.UntaggedOptions{})); diff != "" {
		t.Errorf("again (-want +got):\n%s", diff)
	}
	var left []string
	for m, err := range s.Repo.Members(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, s.called[m.Manifest])
	}
	slices.Sort(left)
	if diff := cmp.Diff([]string{"follows", "part", "signature", "tagged"}, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"app:classic", "app:multi", "other:1"}, tags(t, s)); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
}

// TestPruneUntaggedBeside: what is tagged while others are judged stays, and so does all
// where nobody knows what a tag needs.
func TestPruneUntaggedBeside(t *testing.T) {
	s, store := newServed(t)
	moved := s.attach(t, "app", "moved", nil)
	s.attach(t, "app", "gone", nil)
	s.onList = func(n int) {
		if n == 2 {
			s.tag(t, "app:1", moved.ID)
		}
	}
	rows, err := names.PruneUntagged(t.Context(), s, names.UntaggedOptions{Name: "the-remote"})
	if diff := cmp.Diff([]string{"app gone removed", "app moved stays"}, s.told(rows)); diff != "" || err != nil {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	s.attach(t, "app", "gone", nil)
	put(t, store, "repositories/app/torn", strings.Repeat("1", 64))
	rows, err = names.PruneUntagged(t.Context(), s, names.UntaggedOptions{Name: "the-remote"})
	if !fault.Is(err, fault.Damaged) || !strings.Contains(fmt.Sprint(err), "app:torn") || len(rows) > 0 {
		t.Errorf("a tag that cannot be read: %v, %v", rows, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := names.PruneUntagged(ended, s, names.UntaggedOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestRemoveMembers: one by its digest, unless something needs it.
func TestRemoveMembers(t *testing.T) {
	s, _ := newServed(t)
	part, lone := s.attach(t, "app", "part", nil), s.attach(t, "app", "lone", nil)
	tagged, signature := s.attach(t, "app", "tagged", nil), s.attach(t, "app", "signature", lone.Manifest)
	s.tag(t, "app:1", tagged.ID)
	whole := s.index(t, "app", "whole", part)
	find := func(ids ...image.Digest) []names.Named {
		t.Helper()
		var refs []image.Reference
		for _, id := range ids {
			refs = append(refs, image.Reference{Repository: "app", Digest: id})
		}
		found, err := names.FindMembers(t.Context(), s, "the-remote", refs)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	errs := names.RemoveMembers(t.Context(), s, find(part.ID, tagged.ID, lone.ID, signature.ID))
	if !fault.Is(errs[0], fault.Refused) || !fault.Is(errs[1], fault.Refused) || errs[2] != nil || errs[3] != nil {
		t.Errorf("%v", errs)
	}
	if errs := names.RemoveMembers(t.Context(), s, find(part.ID, whole)); errs[0] != nil || errs[1] != nil {
		t.Errorf("a part and the whole: %v", errs)
	}
	for _, id := range []image.Digest{part.ID, lone.ID, signature.ID, whole} {
		_, err := names.FindMembers(t.Context(), s, "the-remote", []image.Reference{{Repository: "app", Digest: id}})
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("%s is there: %v", s.called[id], err)
		}
	}
}
