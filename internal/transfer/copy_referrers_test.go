package transfer

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"
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

// attached is a remote with images to which something refers.
type attached struct {
	store *mem.Store
	repo  *repo.Repo
	img   remotetest.Image
	index []byte

	sig, sbom, chain, ofIndex, free, ofFree, other remotetest.Artifact
}

func newAttached(t *testing.T) *attached {
	t.Helper()
	s := mem.New()
	a := &attached{store: s, repo: remoteOn(t, s, codec.LZ4)}
	a.img = remotetest.NewImage(t, "app", remotetest.FileLayer(t, "a", "a"), remotetest.FileLayer(t, "b", strings.Repeat("b", 5000)))
	if _, err := remotetest.Push(t.Context(), a.repo, reference(t, "team/app:1"), a.img); err != nil {
		t.Fatal(err)
	}
	manifest := a.img.Manifest()
	a.index = fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"digest":%q,"size":%d,"platform":{"os":"linux","architecture":"amd64"}},{"digest":"sha256:%s","size":1}]}`,
		image.DigestOf(manifest), len(manifest), strings.Repeat("1", 64))
	if err := a.repo.PutDocument(t.Context(), a.index); err != nil {
		t.Fatal(err)
	}
	if err := a.repo.Hold(t.Context(), image.DigestOf(a.index), []image.Digest{image.DigestOf(manifest)}); err != nil {
		t.Fatal(err)
	}
	if err := a.repo.Tag(t.Context(), reference(t, "team/app:multi"), image.DigestOf(a.index)); err != nil {
		t.Fatal(err)
	}
	add := func(repository, name string, subject []byte) remotetest.Artifact {
		t.Helper()
		artifact := remotetest.NewArtifact(t, name, subject)
		if err := artifact.Attach(t.Context(), a.repo, repository); err != nil {
			t.Fatal(err)
		}
		return artifact
	}
	a.sig, a.sbom = add("team/app", "sig", manifest), add("team/app", "sbom", manifest)
	a.chain = add("team/app", "chain", a.sbom.Manifest)
	a.ofIndex = add("team/app", "of the index", a.index)
	a.free = add("team/app", "free", nil)
	a.ofFree = add("team/app", "of the free one", a.free.Manifest)
	a.other = add("elsewhere", "other", nil)
	return a
}

// below returns the keys below a prefix.
func below(t *testing.T, s storage.Store, prefix string) (keys []string) {
	t.Helper()
	for info, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// memberKeys are the keys of these that refer to others, or to nothing.
func memberKeys(repository string, of map[*remotetest.Artifact][]byte) (keys []string) {
	for a, subject := range of {
		if subject == nil {
			keys = append(keys, "digests/"+repository+"/"+a.ID.Hex())
			continue
		}
		keys = append(keys, "referrers/"+repository+"/"+image.DigestOf(subject).Hex()+"/"+a.ID.Hex())
	}
	slices.Sort(keys)
	return keys
}

// checkMembers fails the test unless a remote has exactly these, whole.
func checkMembers(t *testing.T, s storage.Store, repository string, want map[*remotetest.Artifact][]byte) {
	t.Helper()
	got := append(below(t, s, "digests/"), below(t, s, "referrers/")...)
	slices.Sort(got)
	if keys := memberKeys(repository, want); !slices.Equal(got, keys) {
		t.Errorf("it has %q\nnot %q", got, keys)
	}
	for a := range want {
		if missing, _, err := remoteOn(t, s, codec.LZ4).Missing(t.Context(), a.Closure()); err != nil || !missing.Empty() {
			t.Errorf("of %s is missing %v, %v", a.Layer, missing, err)
		}
	}
}

// TestCopyReferrers: what refers to an image comes with it, byte for byte, and what refers to that; nothing else.
func TestCopyReferrers(t *testing.T) {
	a := newAttached(t)
	manifest := a.img.Manifest()
	ofImage := map[*remotetest.Artifact][]byte{&a.sig: manifest, &a.sbom: manifest, &a.chain: a.sbom.Manifest}
	ofIndex := map[*remotetest.Artifact][]byte{&a.sig: manifest, &a.sbom: manifest, &a.chain: a.sbom.Manifest, &a.ofIndex: a.index}
	for name, c := range map[string]struct {
		image CopyImage
		o     CopyOptions
		want  map[*remotetest.Artifact][]byte
		in    string
	}{
		"a config":                   {CopyImage{Source: reference(t, "team/app:1"), Target: reference(t, "team/app:1")}, CopyOptions{}, ofImage, "team/app"},
		"under another name":         {CopyImage{Source: reference(t, "team/app:1"), Target: reference(t, "mine:1")}, CopyOptions{}, ofImage, "mine"},
		"an index, and what it has":  {CopyImage{Source: reference(t, "team/app:multi"), Target: reference(t, "team/app:multi")}, CopyOptions{}, ofIndex, "team/app"},
		"a platform of it":           {CopyImage{Source: reference(t, "team/app:multi"), Target: reference(t, "team/app:multi")}, CopyOptions{Options: Options{Platform: image.Platform{OS: "linux", Architecture: "amd64"}}}, ofIndex, "team/app"},
		"an image of another's name": {CopyImage{Source: image.Reference{Repository: "elsewhere", Digest: a.img.ID}, Target: reference(t, "elsewhere:1")}, CopyOptions{}, nil, "elsewhere"},
	} {
		s := mem.New()
		to := remoteOn(t, s, codec.Zstd)
		o := c.o
		o.DryRun = true
		planned, err := Copy(t.Context(), a.repo, to, []CopyImage{c.image}, o)
		if err != nil || len(below(t, s, "")) > 0 || planned.Images[0].Referrers != len(c.want) {
			t.Errorf("%s: a dry run: %+v, %v, it has %q", name, planned, err, below(t, s, ""))
		}
		for range 2 { // the second time all is there
			done, err := Copy(t.Context(), a.repo, to, []CopyImage{c.image}, c.o)
			if err != nil || done.Images[0].Referrers != len(c.want) {
				t.Errorf("%s: %+v, %v", name, done, err)
			}
			checkMembers(t, s, c.in, c.want)
		}
		if left := below(t, s, "run/"); len(left) > 0 {
			t.Errorf("%s: left: %q", name, left)
		}
	}
}

// TestCopyReferrerForAll: of what refers to an image all comes that there is, whatever platform was asked for of the image.
func TestCopyReferrerForAll(t *testing.T) {
	a := newAttached(t)
	manifest := a.img.Manifest()
	index := fmt.Appendf(nil, `{"schemaVersion":2,"artifactType":"a/b","manifests":[{"digest":%q,"size":%d,"platform":{"os":"plan9","architecture":"mips"}}],"subject":{"digest":%q,"size":%d}}`,
		a.free.ID, len(a.free.Manifest), image.DigestOf(manifest), len(manifest))
	id := image.DigestOf(index)
	if err := a.repo.PutDocument(t.Context(), index); err != nil {
		t.Fatal(err)
	}
	if err := a.repo.Hold(t.Context(), id, []image.Digest{a.free.ID}); err != nil {
		t.Fatal(err)
	}
	if err := a.repo.Add(t.Context(), "team/app", id); err != nil {
		t.Fatal(err)
	}
	s := mem.New()
	to := remoteOn(t, s, codec.LZ4)
	amd64 := CopyOptions{Options: Options{Platform: image.Platform{OS: "linux", Architecture: "amd64"}}}
	if _, err := Copy(t.Context(), a.repo, to, []CopyImage{{Source: reference(t, "team/app:multi"), Target: reference(t, "team/app:multi")}}, amd64); err != nil {
		t.Fatal(err)
	}
	if belongs, err := to.Belongs(t.Context(), "team/app", id); !belongs || err != nil {
		t.Errorf("it belongs: %t, %v", belongs, err)
	}
	if held, err := to.Held(t.Context(), id); err != nil || !slices.Equal(held, []image.Digest{a.free.ID}) {
		t.Errorf("of it is held %v, %v", held, err)
	}
}

// TestCopyMembers: a copy of all has what belongs to repositories, too.
func TestCopyMembers(t *testing.T) {
	a := newAttached(t)
	all := func(to remote.Target, o CopyOptions) (Copied, error) {
		o.All, o.From, o.To = true, "here", "there"
		images, err := AllOf(t.Context(), a.repo, o)
		if err != nil {
			t.Fatal(err)
		}
		return Copy(t.Context(), a.repo, to, images, o)
	}
	manifest := a.img.Manifest()
	want := map[*remotetest.Artifact][]byte{
		&a.sig: manifest, &a.sbom: manifest, &a.chain: a.sbom.Manifest, &a.ofIndex: a.index, &a.free: nil, &a.ofFree: a.free.Manifest,
	}
	s := mem.New()
	done, err := all(remoteOn(t, s, codec.LZ4), CopyOptions{Repositories: []string{"team/app"}})
	if err != nil || done.Members != 1 || len(done.Images) != 2 {
		t.Errorf("%+v, %v", done, err)
	}
	checkMembers(t, s, "team/app", want)

	s = mem.New()
	if done, err = all(remoteOn(t, s, codec.LZ4), CopyOptions{}); err != nil || done.Members != 2 {
		t.Errorf("%+v, %v", done, err)
	}
	if keys := below(t, s, "digests/elsewhere/"); len(keys) != 1 {
		t.Errorf("of another repository are %q", keys)
	}

	// What is damaged is told, and the others come.
	layer := "images/" + image.DigestOf(a.free.Layer).Hex() + "/blob"
	if err := a.store.Put(t.Context(), layer, strings.NewReader(strings.Repeat("x", len(a.free.Layer)))); err != nil {
		t.Fatal(err)
	}
	s = mem.New()
	done, err = all(remoteOn(t, s, codec.LZ4), CopyOptions{})
	if !fault.Is(err, fault.Partial) || len(done.Failed) != 1 || done.Failed[0].Image.Digest != a.free.ID || done.Members != 1 {
		t.Errorf("%+v, %v", done, err)
	}
}

// TestCopyReferrerLeftOut: what refers to an image and cannot be copied does not keep the image from it. It is told, unless
// it was taken back.
func TestCopyReferrerLeftOut(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, a *attached) image.Digest{
		"missing": func(t *testing.T, a *attached) image.Digest {
			if err := a.store.Delete(t.Context(), "images/"+a.sig.ID.Hex()+"/json"); err != nil {
				t.Fatal(err)
			}
			return a.sig.ID
		},
		"damaged": func(t *testing.T, a *attached) image.Digest {
			putTo(t, a.store, "images/"+image.DigestOf(a.sig.Layer).Hex()+"/blob", bytes.Repeat([]byte("x"), len(a.sig.Layer)))
			return a.sig.ID
		},
		"points outside": func(t *testing.T, a *attached) image.Digest {
			return a.plant(t, bytes.Replace(a.sig.Manifest, []byte(`"layers":[{`), []byte(`"layers":[{"urls":["https://example.com/"],`), 1))
		},
		"no image": func(t *testing.T, a *attached) image.Digest {
			return a.plant(t, bytes.Replace(a.sig.Manifest, []byte(`"layers":[{`), []byte(`"layers":[7,{`), 1))
		},
		"read in two ways": func(t *testing.T, a *attached) image.Digest {
			return a.plant(t, bytes.Replace(a.sig.Manifest, []byte(`"layers":`), []byte(`"Subject":{},"layers":`), 1))
		},
		"its config, too": func(t *testing.T, a *attached) image.Digest {
			config := []byte(`{"Layers":[]}`)
			putTo(t, a.store, "images/"+image.DigestOf(config).Hex()+"/json", config)
			doc := strings.Replace(string(a.sig.Manifest), image.DigestOf(remotetest.EmptyConfig).String(), image.DigestOf(config).String(), 1)
			return a.plant(t, []byte(strings.Replace(doc, `"size":2}`, fmt.Sprintf(`"size":%d}`, len(config)), 1)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAttached(t)
			id := spoil(t, a)
			images := []CopyImage{{Source: reference(t, "team/app:1"), Target: reference(t, "team/app:1")}}
			want := map[*remotetest.Artifact][]byte{&a.sig: a.img.Manifest(), &a.sbom: a.img.Manifest(), &a.chain: a.sbom.Manifest}
			if id == a.sig.ID {
				delete(want, &a.sig)
			}
			s, told := mem.New(), &noted{}
			done, err := Copy(t.Context(), a.repo, remoteOn(t, s, codec.LZ4), images, CopyOptions{Options: Options{Progress: told}})
			if err != nil || len(below(t, s, "repositories/")) != 1 || done.Images[0].Referrers != len(want) {
				t.Errorf("%+v, %v", done, err)
			}
			checkMembers(t, s, "team/app", want)
			if len(told.notes) != 2 || !strings.Contains(told.notes[0], id.Short()) || !strings.HasSuffix(told.notes[1], ": 1") {
				t.Errorf("told: %q", told.notes)
			}
			key := "referrers/team/app/" + image.DigestOf(a.img.Manifest()).Hex() + "/" + id.Hex()
			from := &removing{Repo: a.repo, remove: func() {
				if err := a.store.Delete(t.Context(), key); err != nil {
					t.Error(err)
				}
			}}
			s, told = mem.New(), &noted{}
			done, err = Copy(t.Context(), from, remoteOn(t, s, codec.LZ4), images, CopyOptions{Options: Options{Progress: told}})
			if err != nil || len(below(t, s, "repositories/")) != 1 {
				t.Errorf("%+v, %v", done, err)
			}
			if id == a.sig.ID && len(told.notes) > 0 {
				t.Errorf("it was taken back, and told: %q", told.notes)
			}
		})
	}
}

func putTo(t *testing.T, s storage.Store, key string, content []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

// plant lets something refer to the image that no dogestry would have stored.
func (a *attached) plant(t *testing.T, doc []byte) image.Digest {
	t.Helper()
	id := image.DigestOf(doc)
	putTo(t, a.store, "images/"+id.Hex()+"/json", doc)
	putTo(t, a.store, "referrers/team/app/"+image.DigestOf(a.img.Manifest()).Hex()+"/"+id.Hex(), nil)
	return id
}

// TestCopyReferrerLies: what a source lists and does not say itself that it refers to the image is not let belong to the
// target's repository, where nothing would ever take it away.
func TestCopyReferrerLies(t *testing.T) {
	a := newAttached(t)
	manifest := a.img.Manifest()
	// What refers to the SBOM is listed for the image, too: it comes as what it is.
	from := &lying{a.repo, image.DigestOf(manifest), []image.Digest{a.free.ID, a.ofFree.ID, a.chain.ID, image.DigestOf(manifest), a.img.ID}}
	s, told := mem.New(), &noted{}
	done, err := Copy(t.Context(), from, remoteOn(t, s, codec.LZ4), []CopyImage{{Source: reference(t, "team/app:1"), Target: reference(t, "team/app:1")}},
		CopyOptions{Options: Options{Progress: told}})
	if err != nil || done.Images[0].Referrers != 3 {
		t.Errorf("%+v, %v", done, err)
	}
	checkMembers(t, s, "team/app", map[*remotetest.Artifact][]byte{&a.sig: manifest, &a.sbom: manifest, &a.chain: a.sbom.Manifest})
	if n := len(told.notes); n != 6 || !strings.HasSuffix(told.notes[n-1], ": 4") {
		t.Errorf("told: %q", told.notes)
	}
	if tags := below(t, s, "repositories/"); len(tags) != 1 {
		t.Errorf("tags: %q", tags)
	}
}

// lying lists more than refers to a subject.
type lying struct {
	*repo.Repo
	subject image.Digest
	more    []image.Digest
}

func (l *lying) Referrers(ctx context.Context, repository string, subject image.Digest) iter.Seq2[image.Digest, error] {
	return func(yield func(image.Digest, error) bool) {
		if subject == l.subject {
			for _, id := range l.more {
				if !yield(id, nil) {
					return
				}
			}
		}
		for id, err := range l.Repo.Referrers(ctx, repository, subject) {
			if !yield(id, err) {
				return
			}
		}
	}
}

// removing lets something happen behind the first list of referrers.
type removing struct {
	*repo.Repo
	remove func()
}

func (r *removing) Referrers(ctx context.Context, repository string, subject image.Digest) iter.Seq2[image.Digest, error] {
	var ids []image.Digest
	for id, err := range r.Repo.Referrers(ctx, repository, subject) {
		if err != nil {
			return r.Repo.Referrers(ctx, repository, subject)
		}
		ids = append(ids, id)
	}
	if r.remove != nil {
		r.remove()
		r.remove = nil
	}
	return func(yield func(image.Digest, error) bool) {
		for _, id := range ids {
			if !yield(id, nil) {
				return
			}
		}
	}
}

// TestCopyTooManyReferrers: of a chain without end the beginning comes, and the image.
func TestCopyTooManyReferrers(t *testing.T) {
	a := newAttached(t)
	subject := a.img.Manifest()
	for i := range longestChain + 2 {
		next := remotetest.NewArtifact(t, fmt.Sprint("link ", i), subject)
		if err := next.Attach(t.Context(), a.repo, "team/app"); err != nil {
			t.Fatal(err)
		}
		subject = next.Manifest
	}
	s, told := mem.New(), &noted{}
	done, err := Copy(t.Context(), a.repo, remoteOn(t, s, codec.LZ4), []CopyImage{{Source: reference(t, "team/app:1"), Target: reference(t, "team/app:1")}},
		CopyOptions{Options: Options{Progress: told}})
	if err != nil || len(below(t, s, "repositories/")) != 1 || done.Images[0].Referrers != longestChain+3 {
		t.Errorf("%+v, %v, tags %q", done, err, below(t, s, "repositories/"))
	}
	if len(told.notes) != 1 || !strings.Contains(told.notes[0], ": 1 or more") {
		t.Errorf("told: %q", told.notes)
	}
}

// TestCopyMostReferrers: what is listed for one image is bounded, and told.
func TestCopyMostReferrers(t *testing.T) {
	a := newAttached(t)
	var more []image.Digest
	for i := range mostReferrers {
		more = append(more, image.DigestOf(fmt.Append(nil, i)))
	}
	from := &lying{a.repo, image.DigestOf(a.img.Manifest()), more}
	s, told := mem.New(), &noted{}
	done, err := Copy(t.Context(), from, remoteOn(t, s, codec.LZ4), []CopyImage{{Source: reference(t, "team/app:1"), Target: reference(t, "team/app:1")}},
		CopyOptions{Options: Options{Progress: told, DryRun: true}})
	if err != nil || done.Images[0].Referrers != mostReferrers {
		t.Errorf("%+v, %v", done, err)
	}
	if len(told.notes) != 1 || !strings.Contains(told.notes[0], ": 1 or more") {
		t.Errorf("told: %q", told.notes)
	}
}
