package transfer

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// mirrored is a target with all that newStock has, and tags that it has not.
func mirrored(t *testing.T, from *stock) *mem.Store {
	t.Helper()
	to := mem.New()
	r := remoteOn(t, to, codec.LZ4)
	if _, err := copyAll(t, from, r, CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"app:old", "gone:1", "team/app:old"} {
		if err := r.Tag(t.Context(), reference(t, name), from.classic["app:1"].ID); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func removedTags(done Copied) (tags []string) {
	for _, r := range done.Removed {
		tags = append(tags, r.Image.String())
	}
	slices.Sort(tags)
	return tags
}

// TestDelete removes tags that the source does not have, of the repositories that
// were copied, and nothing else.
func TestDelete(t *testing.T) {
	from := newStock(t)
	for what, test := range map[string]struct {
		o    CopyOptions
		gone []string
	}{
		"all":              {CopyOptions{Delete: true}, []string{"app:old", "gone:1", "team/app:old"}},
		"one repository":   {CopyOptions{Delete: true, Repositories: []string{"app"}}, []string{"app:old"}},
		"two, one twice":   {CopyOptions{Delete: true, Repositories: []string{"team/app", "app", "app"}}, []string{"app:old", "team/app:old"}},
		"without --delete": {CopyOptions{}, nil},
	} {
		to := mirrored(t, from)
		before := objects(t, to)
		dry := test.o
		dry.DryRun = true
		done, err := copyAll(t, from, remoteOn(t, to, codec.LZ4), dry)
		if err != nil || !slices.Equal(removedTags(done), test.gone) {
			t.Errorf("%s: a dry run would remove %q: %v", what, removedTags(done), err)
		}
		sameObjects(t, before, objects(t, to))
		done, err = copyAll(t, from, remoteOn(t, to, codec.LZ4), test.o)
		if err != nil || !slices.Equal(removedTags(done), test.gone) {
			t.Errorf("%s: removed %q: %v", what, removedTags(done), err)
		}
		for _, name := range test.gone {
			delete(before, "repositories/"+strings.ReplaceAll(name, ":", "/"))
		}
		sameObjects(t, before, objects(t, to))
	}
}

// TestDeleteNothing: what could be a mistake removes nothing.
func TestDeleteNothing(t *testing.T) {
	from := newStock(t)
	empty := remoteOn(t, mem.New(), codec.LZ4)

	to := mirrored(t, from)
	before := objects(t, to)
	_, err := copyAll(t, empty, remoteOn(t, to, codec.LZ4), CopyOptions{Delete: true})
	if !fault.Is(err, fault.Refused) || !strings.Contains(fault.AdviceOf(err), "--yes") || !strings.Contains(err.Error(), "src has no tags") {
		t.Errorf("an empty source: %v", err)
	}
	_, err = copyAll(t, from, remoteOn(t, to, codec.LZ4), CopyOptions{Delete: true, Repositories: []string{"app", "gone"}})
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "no repository gone in src") {
		t.Errorf("a repository that the source does not have: %v", err)
	}
	if _, err := copyAll(t, from, plainTarget{remoteOn(t, to, codec.LZ4), from}, CopyOptions{Delete: true}); !fault.Is(err, fault.Refused) {
		t.Errorf("a target that cannot remove tags: %v", err)
	}
	sameObjects(t, before, objects(t, to))

	// One image that cannot be copied.
	damaged := newStock(t)
	own := damaged.classic["app:1"].DiffIDs()[1]
	if err := damaged.store.Delete(t.Context(), "images/"+own.Hex()+"/json"); err != nil {
		t.Fatal(err)
	}
	if err := to.Delete(t.Context(), "images/"+own.Hex()+"/json"); err != nil {
		t.Fatal(err)
	}
	done, err := copyAll(t, damaged, remoteOn(t, to, codec.LZ4), CopyOptions{Delete: true})
	if !fault.Is(err, fault.Partial) || len(done.Failed) != 1 || len(done.Removed) != 0 || !strings.Contains(fault.AdviceOf(err), "No tag was removed") {
		t.Errorf("a damaged image: %v, %d failed, %q removed", err, len(done.Failed), removedTags(done))
	}
	if got, want := tagsOf(t, remoteOn(t, to, codec.LZ4)), 9; len(got) != want {
		t.Errorf("tags %q are left", got)
	}

	// It is meant.
	done, err = copyAll(t, empty, remoteOn(t, to, codec.LZ4), CopyOptions{Delete: true, Yes: true})
	if err != nil || len(done.Removed) != 9 || len(tagsOf(t, remoteOn(t, to, codec.LZ4))) != 0 {
		t.Errorf("with --yes: %q removed, %v", removedTags(done), err)
	}
	if len(objects(t, to)) != len(before)-10 {
		t.Errorf("%d objects are left of %d", len(objects(t, to)), len(before))
	}
}

// TestDeleteBeside: a tag that comes to the source, or moves at the target, while
// tags are removed is not removed.
func TestDeleteBeside(t *testing.T) {
	from := newStock(t)
	to := mirrored(t, from)
	r := remoteOn(t, to, codec.LZ4)
	other := from.classic["app:2"].ID
	busy := &busyTarget{Remote: r, Untagger: r, before: func(ctx context.Context, ref image.Reference) {
		if ref.String() == "app:old" {
			if err := r.Tag(ctx, ref, other); err != nil {
				t.Error(err)
			}
		}
	}}
	images, err := AllOf(t.Context(), from, CopyOptions{Delete: true})
	if err != nil {
		t.Fatal(err)
	}
	from.push(t, from, "gone:1", remotetest.NewImage(t, "new"))
	done, err := Copy(t.Context(), from, busy, images, CopyOptions{All: true, Delete: true, From: "src", To: "dst"})
	if !fault.Is(err, fault.Partial) || len(done.Failed) != 1 || done.Failed[0].Image.String() != "app:old" || !fault.Is(done.Failed[0].Err, fault.Refused) {
		t.Errorf("%v, %+v", err, done.Failed)
	}
	if !slices.Equal(removedTags(done), []string{"team/app:old"}) {
		t.Errorf("removed %q", removedTags(done))
	}
	if id, err := r.Resolve(t.Context(), reference(t, "app:old")); err != nil || id != other {
		t.Errorf("app:old names %s, %v", id, err)
	}
	if _, err := r.Resolve(t.Context(), reference(t, "gone:1")); err != nil {
		t.Error(err)
	}
}

// busyTarget lets something happen before a tag is removed.
type busyTarget struct {
	remote.Remote
	remote.Untagger
	before func(context.Context, image.Reference)
}

func (b *busyTarget) Untag(ctx context.Context, ref image.Reference, id image.ID) error {
	b.before(ctx, ref)
	return b.Untagger.Untag(ctx, ref, id)
}

// TestDeleteMembers: what belongs to a repository of the target alone goes, where the
// source knows such things.
func TestDeleteMembers(t *testing.T) {
	a := newAttached(t)
	s := mem.New()
	to := remoteOn(t, s, codec.LZ4)
	mirror := func(from remote.Source, o CopyOptions) []string {
		t.Helper()
		o.All, o.Delete, o.From, o.To = true, true, "here", "there"
		images, err := AllOf(t.Context(), from, o)
		if err != nil {
			t.Fatal(err)
		}
		done, err := Copy(t.Context(), from, to, images, o)
		if err != nil {
			t.Fatal(err)
		}
		return removedTags(done)
	}
	mirror(a.repo, CopyOptions{})
	before := objects(t, s)
	extra := remotetest.NewArtifact(t, "extra", nil)
	signature := remotetest.NewArtifact(t, "extra signature", a.img.Manifest())
	for repository, add := range map[string]remotetest.Artifact{"team/app": extra, "alone": extra, "elsewhere": signature} {
		if err := add.Attach(t.Context(), to, repository); err != nil {
			t.Fatal(err)
		}
	}
	all := objects(t, s)
	if got := mirror(knowingNone{a.repo, a.repo}, CopyOptions{}); len(got) > 0 {
		t.Errorf("of a source that knows no members it removes %q", got)
	}
	want := []string{"alone@" + extra.ID.String(), "elsewhere@" + signature.ID.String(), "team/app@" + extra.ID.String()}
	if got := mirror(a.repo, CopyOptions{Options: Options{DryRun: true}}); !slices.Equal(got, want) {
		t.Errorf("it would remove %q", got)
	}
	sameObjects(t, all, objects(t, s))
	if got := mirror(a.repo, CopyOptions{Repositories: []string{"team/app"}}); !slices.Equal(got, want[2:]) {
		t.Errorf("of one repository it removes %q", got)
	}
	if got := mirror(a.repo, CopyOptions{}); !slices.Equal(got, want[:2]) {
		t.Errorf("it removes %q", got)
	}
	left := objects(t, s)
	for key := range left {
		if _, ok := before[key]; !ok && !strings.HasPrefix(key, "images/") {
			t.Errorf("%s is left", key)
		}
	}
	for key := range before {
		if _, ok := left[key]; !ok {
			t.Errorf("%s is gone", key)
		}
	}
}

// knowingNone is a source that does not know what belongs to its repositories.
type knowingNone struct {
	remote.Source
	remote.Holder
}
