package catalog_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dogestry/dogestry/internal/catalog"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// tagsOf returns the tags of a remote, in the reverse order of their names.
func tagsOf(t *testing.T, from remote.Source) []remote.Tag {
	t.Helper()
	var tags []remote.Tag
	for tag, err := range from.References(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		tags = append(tags, tag)
	}
	slices.SortFunc(tags, func(a, b remote.Tag) int { return b.Reference.Compare(a.Reference) })
	return tags
}

// TestSome: the rows are those of a list, in the order that was asked for; no more is read.
func TestSome(t *testing.T) {
	s := &far{Store: mem.New()}
	images := fill(t, s, "app", 20)
	r := open(t, s)
	tags := tagsOf(t, r)
	all, err := catalog.New(r).List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(all)
	c := catalog.Recent(r)
	some := func(tags []remote.Tag) (rows []catalog.Image, requests int) {
		t.Helper()
		requests = s.count(func() {
			if rows, err = c.Some(t.Context(), tags); err != nil {
				t.Fatal(err)
			}
		})
		return rows, requests
	}
	rows, first := some(tags[3:6])
	if diff := cmp.Diff(asJSON(t, all[3:6]), asJSON(t, rows)); diff != "" {
		t.Errorf("rows (-list +some):\n%s", diff)
	}
	// Tag, document, two listings and two metadata each; the document's version.
	if want := 3 * (1 + 1 + 2 + 2 + 1); first != want {
		t.Errorf("%d requests, want %d", first, want)
	}
	// The document's version and two listings each are all that is asked again.
	rows, second := some(tags[3:6])
	if diff := cmp.Diff(asJSON(t, all[3:6]), asJSON(t, rows)); diff != "" || second != 3*(1+2) {
		t.Errorf("%d requests, rows (-list +some):\n%s", second, diff)
	}
	// Others are remembered besides.
	some(tags[10:12])
	if _, third := some(tags[3:6]); third != 3*(1+2) {
		t.Errorf("%d requests after others were read", third)
	}
	// What has changed is read anew, and what is gone is left out.
	put(t, s, "repositories/"+tags[4].Reference.Repository+"/"+tags[4].Reference.Tag, images[0].ID.Hex())
	if err := s.Delete(t.Context(), "repositories/"+tags[5].Reference.Repository+"/"+tags[5].Reference.Tag); err != nil {
		t.Fatal(err)
	}
	now := tagsOf(t, r)
	rows, _ = some(append(slices.Clone(now[3:5]), remote.Tag{Reference: tags[5].Reference}))
	if len(rows) != 2 || rows[0].ID != all[3].ID || rows[1].ID != images[0].ID {
		t.Errorf("after a change: %s", asJSON(t, rows))
	}
}

// TestInspectAmong looks at the given tags alone to tell what is shared.
func TestInspectAmong(t *testing.T) {
	s := &far{Store: mem.New()}
	fill(t, s, "app", 30)
	r := open(t, s)
	base, own := layer(t, "base", 10), layer(t, "own", 20)
	push(t, r, "one:1", remotetest.NewImage(t, "one", base, own))
	for _, ref := range []string{"two:1", "two:2", "two:3"} {
		push(t, r, ref, remotetest.NewImage(t, ref, base))
	}
	ref := remotetest.Ref(t, "one:1")
	whole, err := catalog.New(r).Inspect(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	tags := slices.DeleteFunc(tagsOf(t, r), func(tag remote.Tag) bool { return tag.Reference.Repository == "app" || tag.Reference.Tag == "3" })
	var among *catalog.Details
	requests := s.count(func() { among, err = catalog.New(r).InspectAmong(t.Context(), ref, tags) })
	if err != nil {
		t.Fatal(err)
	}
	if requests > 60 { // app alone has 30 tags and 120 objects
		t.Errorf("%d requests", requests)
	}
	if got, want := among.Layers[0].Shared, []image.Reference{remotetest.Ref(t, "two:2"), remotetest.Ref(t, "two:1")}; !slices.Equal(got, want) {
		t.Errorf("shared with %s, want %s", got, want)
	}
	if got := whole.Layers[0].Shared; len(got) != 3 {
		t.Errorf("a whole look tells of %s", got)
	}
	for i := range whole.Layers {
		whole.Layers[i].Shared, among.Layers[i].Shared = nil, nil
	}
	if diff := cmp.Diff(asJSON(t, whole), asJSON(t, among)); diff != "" {
		t.Errorf("other details (-inspect +among):\n%s", diff)
	}
}
