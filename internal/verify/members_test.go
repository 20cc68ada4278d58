package verify_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/verify"
)

// attach adds artifacts to a world's repositories: a signature of an image, a
// signature of that, and one that refers to nothing.
func (w *world) attach(t testing.TB) (sig, chain, free remotetest.Artifact) {
	t.Helper()
	sig = remotetest.NewArtifact(t, "sig", w.one.Manifest())
	chain = remotetest.NewArtifact(t, "chain", sig.Manifest)
	free = remotetest.NewArtifact(t, "free", nil)
	for repository, a := range map[string]remotetest.Artifact{"app": sig, "team/app": chain, "other": free} {
		if err := a.Attach(context.Background(), w.repo(t), repository); err != nil {
			t.Fatal(err)
		}
	}
	w.objects = tree(t, w.store)
	return sig, chain, free
}

func by(repository string, a remotetest.Artifact) string {
	return fmt.Sprintf("[%s]", image.Reference{Repository: repository, Digest: a.ID})
}

// TestMembers: what belongs to repositories without a tag, and what refers to others, is proved as images are.
func TestMembers(t *testing.T) {
	w := newWorld(t)
	sig, chain, free := w.attach(t)
	if err := w.repo(t).Add(t.Context(), "app", w.manifest); err != nil { // which has a tag, too
		t.Fatal(err)
	}
	w.objects = tree(t, w.store)
	report := w.verify(t, verify.Options{})
	expect(t, "a whole remote", report)
	if report.Images != 4 || report.Members != 3 || report.Documents != 12 || report.Layers != 10 { // their config is one of the index, too
		t.Errorf("%d images, %d members, %d documents, %d layers", report.Images, report.Members, report.Documents, report.Layers)
	}
	if report.Unreferenced == nil || report.Unreferenced.Entries != 0 {
		t.Errorf("nothing reaches %+v", report.Unreferenced)
	}
	if report := w.verify(t, verify.Options{Images: []image.Reference{remotetest.Ref(t, "app:1")}}); report.Members != 0 {
		t.Errorf("of one image: %+v", report)
	}
	for what, c := range map[string]struct {
		damage func()
		want   []string
	}{
		"a layer is damaged": {
			func() {
				put(t, w.store, fileOf(image.DigestOf(sig.Layer), "blob"), []byte(strings.Repeat("x", len(sig.Layer))))
			},
			[]string{"damaged " + fileOf(image.DigestOf(sig.Layer), "blob") + " " + by("app", sig)},
		},
		"a layer is missing": {
			func() { remove(t, w.store, fileOf(image.DigestOf(chain.Layer), "json")) },
			[]string{"missing " + fileOf(image.DigestOf(chain.Layer), "json") + " " + by("team/app", chain)},
		},
		"a manifest is missing": {
			func() { remove(t, w.store, fileOf(free.ID, "json")) },
			[]string{"missing " + fileOf(free.ID, "json") + " " + by("other", free)},
		},
		"a referrer is missing": {
			func() { remove(t, w.store, fileOf(sig.ID, "json")) },
			[]string{"missing " + fileOf(sig.ID, "json") + " " + by("app", sig)},
		},
		"a manifest is damaged": {
			func() { put(t, w.store, fileOf(free.ID, "json"), []byte("{}")) },
			[]string{"damaged " + fileOf(free.ID, "json") + " " + by("other", free)},
		},
	} {
		c.damage()
		expect(t, what, w.verify(t, verify.Options{}), c.want...)
		w.restore(t)
	}
}

// TestMembersRepaired from another remote.
func TestMembersRepaired(t *testing.T) {
	w, from := newWorld(t), newWorld(t)
	sig, _, free := w.attach(t)
	from.attach(t)
	put(t, w.store, fileOf(image.DigestOf(sig.Layer), "blob"), []byte("x"))
	remove(t, w.store, fileOf(free.ID, "json"))
	report := w.verify(t, verify.Options{Mender: &verify.Copier{From: from.repo(t), To: w.repo(t)}})
	if report.Left() != 0 || len(report.Findings) != 2 {
		t.Errorf("left %d of\n%s", report.Left(), findings(report))
	}
	expect(t, "afterwards", w.verify(t, verify.Options{}))
}

// TestMemberRemovedMeanwhile: what is taken out of a repository, and collected, while it is verified, is not missing.
func TestMemberRemovedMeanwhile(t *testing.T) {
	w := newWorld(t)
	_, _, free := w.attach(t)
	s := &removingStore{Store: w.store, at: fileOf(free.ID, "json"), run: func() {
		remove(t, w.store, "digests/other/"+free.ID.Hex())
		remove(t, w.store, fileOf(free.ID, "json"))
	}}
	report, err := verify.Run(t.Context(), open(t, s, codec.LZ4), verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "removed meanwhile", report)
}

// removingStore lets something happen before an object is read.
type removingStore struct {
	*mem.Store
	at  string
	run func()
}

func (r *removingStore) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if key == r.at && r.run != nil {
		run := r.run
		r.run = nil
		run()
	}
	return r.Store.Get(ctx, key, offset, length)
}
