package readthrough_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/readthrough"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

// TestAway: a remote that cannot be asked is no matter for what is named by its
// digest and is in the cache whole; a tag is.
func TestAway(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	one := pushed(t, p, "app:1", remotetest.FileLayer(t, "a", "a"))
	other := pushed(t, p, "app:2", remotetest.FileLayer(t, "b", "b"))
	index := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + image.DigestOf(one.Manifest()).String() + `","size":1,"platform":{"architecture":"amd64","os":"linux"}},` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + image.DigestOf(other.Manifest()).String() + `","size":1,"platform":{"architecture":"arm64","os":"linux"}}]}`)
	must(t, p.PutDocument(t.Context(), index))
	id := image.DigestOf(index)
	must(t, p.Hold(t.Context(), id, []image.Digest{image.DigestOf(one.Manifest()), image.DigestOf(other.Manifest())}))
	c := cacheIn(t, dir, 1<<30, nil)
	from := c.New(p)
	if _, err := remotetest.Pull(t.Context(), from, remotetest.Ref(t, "app:1")); err != nil {
		t.Fatal(err)
	}
	for _, doc := range []image.Digest{id, image.DigestOf(one.Manifest())} {
		if _, err := from.Document(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
	}
	if held, err := from.Held(t.Context(), id); err != nil || len(held) != 2 {
		t.Errorf("the remote has %d manifests, %v", len(held), err)
	}
	for _, reason := range []error{errors.New("no route to host"), fault.New(fault.NotFound, "no remote at x")} {
		away := c.New(readthrough.Away{Reason: reason})
		got, err := remotetest.Pull(t.Context(), away, remotetest.Ref(t, "app@"+one.ID.String()))
		if err != nil || one.Diff(got) != "" {
			t.Errorf("%v: %s", err, one.Diff(got))
		}
		_, err = away.Resolve(t.Context(), remotetest.Ref(t, "app:1"))
		if !errors.Is(err, reason) || fault.KindOf(err) != fault.KindOf(reason) || !strings.Contains(fault.AdviceOf(err), "app@sha256:") {
			t.Errorf("a tag: %v, advice %q", err, fault.AdviceOf(err))
		}
		_, err = remotetest.Pull(t.Context(), away, remotetest.Ref(t, "app@"+other.ID.String()))
		if !errors.Is(err, reason) {
			t.Errorf("an image that it lacks: %v", err)
		}
		if held, err := away.Held(t.Context(), id); err != nil || !slices.Equal(held, []image.Digest{image.DigestOf(one.Manifest())}) {
			t.Errorf("it has %v of the index, %v", held, err)
		}
		for _, err := range away.References(t.Context(), "") {
			if !errors.Is(err, reason) {
				t.Errorf("a list: %v", err)
			}
		}
	}
}

// TestSomebodysRemote: what has tags is no cache.
func TestSomebodysRemote(t *testing.T) {
	dir := t.TempDir()
	if _, err := remotetest.Push(t.Context(), open(t, directory(t, dir)), remotetest.Ref(t, "app:1"), remotetest.NewImage(t, "app")); err != nil {
		t.Fatal(err)
	}
	_, err := readthrough.Open(t.Context(), directory(t, dir), readthrough.Options{Name: "the-cache", Limit: 1})
	if !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "app:1") || fault.AdviceOf(err) == "" {
		t.Errorf("%v, want a refused fault", err)
	}
}
