package repo_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/lease"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

// soon is a grace that everything is older than.
const soon = time.Nanosecond

// collect runs a garbage collection that has to succeed.
func collect(t testing.TB, s storage.Store, o repo.CollectOptions) *repo.Collection {
	t.Helper()
	if o.Grace == 0 {
		o.Grace = soon
	}
	time.Sleep(time.Millisecond) // for entries of this instant to be older
	c, err := open(t, s, codec.LZ4).Collect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// entryIDs returns the ids under images/.
func entryIDs(t testing.TB, s storage.Store) (ids []string) {
	t.Helper()
	for _, key := range keys(t, s, "images/") {
		ids = append(ids, strings.Split(key, "/")[1])
	}
	return slices.Compact(ids)
}

func pushTo(t testing.TB, s storage.Store, ref string, img remotetest.Image) {
	t.Helper()
	if _, err := remotetest.Push(t.Context(), open(t, s, codec.LZ4), remotetest.Ref(t, ref), img); err != nil {
		t.Fatal(err)
	}
}

func checkPulls(t testing.TB, s storage.Store, ref string, img remotetest.Image) {
	t.Helper()
	got, err := remotetest.Pull(t.Context(), open(t, s, codec.LZ4), remotetest.Ref(t, ref))
	if err != nil {
		t.Errorf("%s: %v", ref, err)
	} else if diff := img.Diff(got); diff != "" {
		t.Errorf("%s: %s", ref, diff)
	}
}

func image3(t testing.TB, name string) remotetest.Image {
	return remotetest.NewImage(t, name, remotetest.FileLayer(t, "base", "base"), remotetest.FileLayer(t, name, name))
}

// TestCollect: what no tag reaches goes, whole entries at once; what one reaches stays, byte for byte.
func TestCollect(t *testing.T) {
	for name, store := range map[string]func() storage.Store{
		"mem": func() storage.Store { return mem.New() }, "file": func() storage.Store { return openDir(t, t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			s := store()
			kept, gone := image3(t, "kept"), image3(t, "gone")
			pushTo(t, s, "app:kept", kept)
			before := slices.Collect(maps.Keys(contents(t, s, "images/")))
			pushTo(t, s, "app:gone", gone)
			all := len(entryIDs(t, s))
			remove(t, s, "repositories/app/gone")

			if c := collect(t, s, repo.CollectOptions{Grace: time.Hour}); c.Freed.Count != 0 || c.Young.Count != 3 {
				t.Errorf("of young garbage it frees %+v", c)
			}
			if c := collect(t, s, repo.CollectOptions{DryRun: true}); c.Freed.Count != 3 || len(entryIDs(t, s)) != all {
				t.Errorf("a dry run: %+v", c)
			}
			c := collect(t, s, repo.CollectOptions{})
			if c.Freed.Count != 3 || c.Freed.Stored == 0 || c.Entries.Count != all || c.Roots != 1 {
				t.Errorf("it says %+v", c) // a layer, a config, its manifest
			}
			after := slices.Collect(maps.Keys(contents(t, s, "images/")))
			slices.Sort(before)
			slices.Sort(after)
			if !slices.Equal(before, after) {
				t.Errorf("left are %q, want %q", after, before)
			}
			checkPulls(t, s, "app:kept", kept)
			if left := keys(t, s, "run/"); !slices.Equal(left, []string{"run/sweep"}) {
				t.Errorf("left: %q", left)
			}
			if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 0 {
				t.Errorf("a second time it frees %+v", c)
			}
		})
	}
}

// contents are the objects under a prefix.
func contents(t testing.TB, s storage.Store, prefix string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, key := range keys(t, s, prefix) {
		all[key] = string(get(t, s, key))
	}
	return all
}

// TestCollectFollows: each way in which a root needs an entry.
func TestCollectFollows(t *testing.T) {
	s := mem.New()
	r := open(t, s, codec.LZ4)
	raw := image3(t, "blobs")
	var layers []image.Descriptor
	for _, l := range raw.Layers {
		packed := gzipped(t, l)
		d := image.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Digest: image.DigestOf(packed), Size: int64(len(packed))}
		if _, err := r.PutLayer(t.Context(), d, bytes.NewReader(packed)); err != nil {
			t.Fatal(err)
		}
		layers = append(layers, d)
	}
	manifest := manifestOf(raw.Config, layers)
	other := image3(t, "other")
	otherManifest := other.Manifest()
	for _, l := range other.Layers {
		if _, err := r.PutLayer(t.Context(), image.Descriptor{Digest: image.DigestOf(l), Size: int64(len(l))}, bytes.NewReader(l)); err != nil {
			t.Fatal(err)
		}
	}
	index := []byte(fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"digest":%q,"size":%d},{"digest":%q,"size":%d}]}`,
		image.DigestOf(manifest), len(manifest), image.DigestOf(otherManifest), len(otherManifest)))
	for _, doc := range [][]byte{raw.Config, manifest, other.Config, otherManifest, index} {
		if err := r.PutDocument(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Hold(t.Context(), image.DigestOf(index), []image.Digest{image.DigestOf(manifest)}); err != nil {
		t.Fatal(err)
	}
	hex := func(b []byte) string { return image.DigestOf(b).Hex() }
	blobs := []string{layers[0].Digest.Hex(), layers[1].Digest.Hex()}
	aliases := []string{hex(raw.Layers[0]), hex(raw.Layers[1])}
	ofManifest := slices.Concat(blobs, aliases, []string{hex(raw.Config), hex(manifest)})
	whole := slices.Concat(ofManifest, []string{hex(index), hex(other.Config), hex(otherManifest), hex(other.Layers[1])}) // the base is in both

	base := snapshot(t, s)
	for name, c := range map[string]struct {
		roots map[string]string
		keep  []string
	}{
		"a manifest":                     {map[string]string{"repositories/app/1": hex(manifest)}, ofManifest},
		"an index, and what it holds":    {map[string]string{"repositories/app/1": hex(index)}, append([]string{hex(index)}, ofManifest...)},
		"a config, by aliases":           {map[string]string{"repositories/app/1": hex(raw.Config)}, slices.Concat(blobs[1:], aliases, []string{hex(raw.Config)})},
		"a member of a repository":       {map[string]string{"digests/app/" + hex(otherManifest): ""}, []string{hex(other.Config), hex(otherManifest), hex(other.Layers[0]), hex(other.Layers[1])}},
		"a referrer of what lives":       {map[string]string{"repositories/app/1": hex(manifest), "referrers/app/" + hex(manifest) + "/" + hex(otherManifest): ""}, slices.Concat(ofManifest, []string{hex(other.Config), hex(otherManifest), hex(other.Layers[1])})},
		"no referrer of what is no more": {map[string]string{"repositories/app/1": hex(manifest), "referrers/app/" + hex(index) + "/" + hex(otherManifest): ""}, ofManifest},
		"a name that no tag has":         {map[string]string{"repositories/app/1": hex(manifest), "repositories/UPPER": hex(otherManifest)}, slices.Concat(ofManifest, []string{hex(other.Config), hex(otherManifest), hex(other.Layers[1])})},
	} {
		t.Run(name, func(t *testing.T) {
			restore(t, s, base)
			for key, content := range c.roots {
				put(t, s, key, []byte(content))
			}
			collect(t, s, repo.CollectOptions{})
			want := append(slices.Clone(c.keep), aliases[0]) // the base, which is stored by itself, and so no alias any more
			slices.Sort(want)
			want = slices.Compact(want)
			if got := entryIDs(t, s); !slices.Equal(got, want) {
				t.Errorf("of %d entries %d are left, want %d\n%q\nnot\n%q", len(whole), len(got), len(want), got, want)
			}
		})
	}
}

// TestCollectLayerByAlias: what names a layer directly, and found it by an alias, keeps the blob that has it, whatever
// its config says.
func TestCollectLayerByAlias(t *testing.T) {
	lie := image3(t, "another")
	for name, config := range map[string][]byte{"an artifact": remotetest.EmptyConfig, "a config that lies": lie.Config} {
		for how, root := range map[string]func(to remote.Target, id image.Digest) error{
			"a tag": func(to remote.Target, id image.Digest) error {
				return to.Tag(t.Context(), remotetest.Ref(t, "app:2"), id)
			},
			"a member": func(to remote.Target, id image.Digest) error {
				return to.(remote.Memberships).Add(t.Context(), "app", id)
			},
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				s := mem.New()
				pushTo(t, s, "app:other", image3(t, "other"))
				img := remotetest.NewImage(t, "app", remotetest.FileLayer(t, "one", "one"), remotetest.FileLayer(t, "two", "two"))
				r := open(t, s, codec.LZ4)
				var packed, plain []image.Descriptor
				for _, l := range img.Layers {
					b := gzipped(t, l)
					d := image.Descriptor{MediaType: gzipTar, Digest: image.DigestOf(b), Size: int64(len(b))}
					if _, err := r.PutLayer(t.Context(), d, bytes.NewReader(b)); err != nil {
						t.Fatal(err)
					}
					packed = append(packed, d)
					plain = append(plain, image.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: image.DigestOf(l), Size: int64(len(l))})
				}
				ofBlobs, byAlias := manifestOf(remotetest.EmptyConfig, packed), manifestOf(config, plain)
				for _, doc := range [][]byte{remotetest.EmptyConfig, ofBlobs} {
					if err := r.PutDocument(t.Context(), doc); err != nil {
						t.Fatal(err)
					}
				}
				if err := r.Tag(t.Context(), remotetest.Ref(t, "app:1"), image.DigestOf(ofBlobs)); err != nil {
					t.Fatal(err)
				}
				to, end := remote.Begin(open(t, s, codec.LZ4), nil)
				defer end(t.Context())
				missing, _, err := to.Missing(t.Context(), remote.Closure{Layers: []image.Digest{plain[0].Digest, plain[1].Digest}})
				if err != nil || !missing.Empty() {
					t.Fatalf("missing %v, %v", missing, err)
				}
				remove(t, s, tagKey("app:1"))
				entries := len(entryIDs(t, s))
				if collect(t, s, repo.CollectOptions{}); len(entryIDs(t, s)) < entries-2 { // the manifest and its config
					t.Errorf("beside a push that relies on the layers %d of %d entries are left", len(entryIDs(t, s)), entries)
				}
				for _, doc := range [][]byte{config, byAlias} {
					if err := to.PutDocument(t.Context(), doc); err != nil {
						t.Fatal(err)
					}
				}
				if err := root(to, image.DigestOf(byAlias)); err != nil {
					t.Fatal(err)
				}
				end(t.Context())
				for range 2 {
					collect(t, s, repo.CollectOptions{})
				}
				layers, err := remote.Layers(t.Context(), r, []image.Digest{plain[0].Digest, plain[1].Digest})
				if err != nil {
					t.Fatal(err)
				}
				for i, l := range layers {
					b, err := r.Open(t.Context(), l)
					if err != nil {
						t.Fatal(err)
					}
					if got, err := io.ReadAll(b); err != nil || image.DigestOf(got) != plain[i].Digest {
						t.Errorf("layer %d: %v", i, err)
					}
					b.Close()
				}
			})
		}
	}
}

func manifestOf(config []byte, layers []image.Descriptor) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[`, image.DigestOf(config), len(config))
	for i, l := range layers {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"mediaType":%q,"digest":%q,"size":%d}`, l.MediaType, l.Digest, l.Size)
	}
	b.WriteString(`]}`)
	return []byte(b.String())
}

func snapshot(t testing.TB, s storage.Store) map[string]string { return contents(t, s, "") }

func restore(t testing.TB, s storage.Store, to map[string]string) {
	t.Helper()
	for _, key := range keys(t, s, "") {
		remove(t, s, key)
	}
	for key, content := range to {
		put(t, s, key, []byte(content))
	}
}

// TestCollectRefuses: what it cannot read, it does not judge. Nothing is deleted, and the error names the tag.
func TestCollectRefuses(t *testing.T) {
	img, gone := image3(t, "app"), image3(t, "gone")
	for name, c := range map[string]struct {
		damage func(s storage.Store)
		kind   fault.Kind
		named  string
	}{
		"a config is missing":       {func(s storage.Store) { remove(t, s, "images/"+img.ID.Hex()+"/json") }, fault.Damaged, "app/1"},
		"a config is cut":           {func(s storage.Store) { put(t, s, "images/"+img.ID.Hex()+"/json", img.Config[:20]) }, fault.Damaged, "app/1"},
		"a tag is damaged":          {func(s storage.Store) { put(t, s, "repositories/app/1", []byte("x")) }, fault.Damaged, "app:1"},
		"there is no tag":           {func(s storage.Store) { remove(t, s, "repositories/app/1") }, fault.Refused, "the-remote"},
		"a member cannot be read":   {func(s storage.Store) { put(t, s, "digests/app/"+strings.Repeat("0", 64), nil) }, fault.Damaged, "digests/app/"},
		"a tag of the old format":   {func(s storage.Store) { put(t, s, "repositories/app/2", []byte(strings.Repeat("1", 64))) }, fault.Damaged, "app/2"},
		"a lease cannot be read":    {func(s storage.Store) { put(t, s, "run/leases/x", []byte("x")) }, fault.Other, "run/leases/x"},
		"the register is not known": {func(s storage.Store) { put(t, s, "run/sweep", []byte("x")) }, fault.Other, "run/sweep"},
	} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			pushTo(t, s, "app:1", img)
			pushTo(t, s, "app:gone", gone)
			remove(t, s, "repositories/app/gone")
			c.damage(s)
			before := contents(t, s, "images/")
			time.Sleep(time.Millisecond)
			done, err := open(t, s, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: soon})
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.named) || done.Freed.Count > 0 {
				t.Errorf("%+v, error %v", done, err)
			}
			if !maps.Equal(contents(t, s, "images/"), before) {
				t.Error("something was deleted")
			}
			if c.kind != fault.Other {
				remove(t, s, "run/sweep")
				if again, err := open(t, s, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: soon, SingleWriter: true}); err == nil || again.Freed.Count > 0 {
					t.Errorf("as the single writer: %+v, error %v", again, err)
				}
			}
		})
	}
}

// TestCollectSpares what a running push relies on, tagged or not, and lets it wait otherwise.
func TestCollectSpares(t *testing.T) {
	s := mem.New()
	pushTo(t, s, "app:1", image3(t, "app"))
	img := image3(t, "leased")
	pushTo(t, s, "app:2", img)
	remove(t, s, "repositories/app/2")
	to, end := remote.Begin(open(t, s, codec.LZ4), nil)
	if missing, _, err := to.Missing(t.Context(), img.Closure()); err != nil || !missing.Empty() {
		t.Fatalf("missing %v, error %v", missing, err)
	}
	c := collect(t, s, repo.CollectOptions{})
	if c.Leased.Count != 3 || c.Freed.Count != 0 { // the manifest too, which the push has not asked for yet
		t.Errorf("%+v", c)
	}
	if err := to.Tag(t.Context(), remotetest.Ref(t, "app:2"), img.ID); err != nil {
		t.Fatal(err)
	}
	end(t.Context())
	checkPulls(t, s, "app:2", img)
	if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 0 {
		t.Errorf("%+v", c)
	}
}

// TestLostLeaseBeginsAgain: a push whose machine has slept looks again for what it relied on before it writes the tag.
func TestLostLeaseBeginsAgain(t *testing.T) {
	s, off := mem.New(), time.Duration(0)
	s.Now = func() time.Time { return time.Now().Add(off) }
	pushTo(t, s, "app:1", image3(t, "app"))
	img := image3(t, "slept")
	to, end := remote.Begin(open(t, s, codec.LZ4), nil)
	defer end(t.Context())
	if _, _, err := to.Missing(t.Context(), img.Closure()); err != nil {
		t.Fatal(err)
	}
	if err := remotetest.Put(t.Context(), to, img, img.Closure()); err != nil {
		t.Fatal(err)
	}
	off = 40 * time.Minute // it sleeps, and its lease is dead to others
	if c := collect(t, s, repo.CollectOptions{Grace: time.Minute}); c.Freed.Count != 2 {
		t.Fatalf("%+v", c)
	}
	err := to.Tag(t.Context(), remotetest.Ref(t, "app:2"), img.ID)
	var incomplete *remote.IncompleteError
	if !errors.As(err, &incomplete) || incomplete.Tagged {
		t.Fatalf("error %v", err)
	}
	if slices.Contains(keys(t, s, "repositories/"), "repositories/app/2") {
		t.Error("the tag is there")
	}
	// A lease that is lost between the look and the tag.
	if err := remotetest.Put(t.Context(), to, img, img.Closure()); err != nil {
		t.Fatal(err)
	}
	off += 10 * time.Minute
	if err := to.Tag(t.Context(), remotetest.Ref(t, "app:2"), img.ID); err != nil {
		t.Fatal(err)
	}
	checkPulls(t, s, "app:2", img)
}

// indexOf stores an index of these images, of which none is held, and returns its ID.
func indexOf(t *testing.T, r *repo.Repo, images ...remotetest.Image) image.ID {
	t.Helper()
	var children []string
	for _, img := range images {
		children = append(children, fmt.Sprintf(`{"digest":%q,"size":%d}`, image.DigestOf(img.Manifest()), len(img.Manifest())))
	}
	doc := []byte(`{"schemaVersion":2,"manifests":[` + strings.Join(children, ",") + `]}`)
	if err := r.PutDocument(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	return image.DigestOf(doc)
}

// TestMarksOfOthers: what others have marked in an index of ours is ours to rely on. A lease of the index alone spares
// it, and a push that tags the index takes it into its lease.
func TestMarksOfOthers(t *testing.T) {
	s := mem.New()
	pushTo(t, s, "app:1", image3(t, "app"))
	a, b := image3(t, "a"), image3(t, "b")
	for name, img := range map[string]remotetest.Image{"app:a": a, "app:b": b} {
		pushTo(t, s, name, img)
		remove(t, s, tagKey(name))
	}
	r := open(t, s, codec.LZ4)
	index := indexOf(t, r, a, b)
	ours, end := remote.Begin(r, nil)
	defer end(t.Context())
	if missing, _, err := ours.Missing(t.Context(), remote.Closure{Documents: []image.Digest{index}}); err != nil || !missing.Empty() {
		t.Fatalf("missing %v, error %v", missing, err)
	}
	theirs, theirEnd := remote.Begin(r, nil)
	if err := theirs.(remote.Holder).Hold(t.Context(), index, []image.Digest{image.DigestOf(a.Manifest())}); err != nil {
		t.Fatal(err)
	}
	theirEnd(t.Context())

	if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 3 || c.Leased.Count != 4 { // b goes
		t.Errorf("%+v", c)
	}
	ref := remotetest.Ref(t, "app:index")
	if err := ours.Tag(t.Context(), ref, index); err != nil {
		t.Fatal(err)
	}
	leases := contents(t, s, "run/leases/")
	for _, need := range []image.Digest{image.DigestOf(a.Manifest()), a.ID, image.DigestOf(a.Layers[1])} {
		for _, l := range leases {
			if !strings.Contains(l, need.Hex()) {
				t.Errorf("%s is not in the lease %s", need.Short(), l)
			}
		}
	}
	if len(leases) != 1 {
		t.Errorf("%d leases", len(leases))
	}
	if _, err := open(t, s, codec.LZ4).Resolve(t.Context(), remotetest.Ref(t, "app:index")); err != nil {
		t.Error(err)
	}
	checkPulls(t, s, "app@"+image.DigestOf(a.Manifest()).String(), a)
}

// TestDeadLeaseMarksNothing: a push whose lease is dead lets nothing be named: no mark, no tag, no entry.
func TestDeadLeaseMarksNothing(t *testing.T) {
	s, off := mem.New(), time.Duration(0)
	s.Now = func() time.Time { return time.Now().Add(off) }
	a := image3(t, "a")
	pushTo(t, s, "app:a", a)
	r := open(t, s, codec.LZ4)
	index := indexOf(t, r, a)
	layer := remotetest.FileLayer(t, "late", "late")
	to, end := remote.Begin(r, nil)
	defer end(t.Context())
	// The lease is lost at the last moment: when what it allows is about to be written.
	asleep := &asleep{Store: s, sleep: func() { off += 40 * time.Minute }}
	lateRepo := open(t, asleep, codec.LZ4)
	late, lateEnd := remote.Begin(lateRepo, nil)
	defer lateEnd(t.Context())
	if _, _, err := late.Missing(t.Context(), remote.Closure{Layers: []image.Digest{image.DigestOf(layer)}}); err != nil {
		t.Fatal(err)
	}
	asleep.before = "images/" + digest(layer) + "/layer.tar.lz4"
	_, err := late.PutLayer(t.Context(), image.Descriptor{Digest: image.DigestOf(layer), Size: int64(len(layer))}, bytes.NewReader(layer))
	if !errors.Is(err, lease.ErrLost) || fault.AdviceOf(err) == "" {
		t.Errorf("a layer: %v", err)
	}
	if slices.Contains(keys(t, s, "images/"), "images/"+digest(layer)+"/json") {
		t.Error("the entry exists")
	}
	// What can begin again does.
	if err := to.(remote.Holder).Hold(t.Context(), index, []image.Digest{image.DigestOf(a.Manifest())}); err != nil {
		t.Fatal(err)
	}
	off += 40 * time.Minute
	if err := to.Tag(t.Context(), remotetest.Ref(t, "app:index"), index); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, s, codec.LZ4).Resolve(t.Context(), remotetest.Ref(t, "app:index")); err != nil {
		t.Error(err)
	}
	checkPulls(t, s, "app@"+image.DigestOf(a.Manifest()).String(), a)
}

// asleep lets time pass when a key is about to be written.
type asleep struct {
	*mem.Store
	before string
	sleep  func()
}

func (a *asleep) Put(ctx context.Context, key string, body io.Reader) error {
	if key == a.before {
		a.before = ""
		a.sleep()
		time.Sleep(5100 * time.Millisecond) // what was found out is good for five seconds
	}
	return a.Store.Put(ctx, key, body)
}

// TestCollectKilled: whatever operation of a collection is the last, every tag stays whole, and when its time is over
// another one frees the rest.
func TestCollectKilled(t *testing.T) {
	prepare := func(s storage.Store) remotetest.Image {
		kept := image3(t, "kept")
		pushTo(t, s, "app:kept", kept)
		pushTo(t, s, "app:gone", image3(t, "gone"))
		remove(t, s, "repositories/app/gone")
		time.Sleep(time.Millisecond)
		return kept
	}
	count := storagetest.NewFaulty(mem.New())
	prepare(count)
	first := count.Ops()
	if _, err := open(t, count, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: soon}); err != nil {
		t.Fatal(err)
	}
	killed := 0
	for n := first + 2; n <= count.Ops(); n++ { // behind the one that opens it
		for _, mode := range storagetest.Modes {
			inner, off := mem.New(), time.Duration(0)
			inner.Now = func() time.Time { return time.Now().Add(off) }
			faulty := storagetest.NewFaulty(inner)
			kept := prepare(faulty)
			r := open(t, faulty, codec.LZ4)
			faulty.FailAt(n, mode)
			_, err := r.Collect(t.Context(), repo.CollectOptions{Grace: soon})
			if err != nil && !errors.Is(err, storagetest.ErrInjected) {
				t.Errorf("operation %d %s: %v", n, mode, err)
			}
			killed++
			if tags, err := (plain{inner}).check(); err != nil || len(tags) != 1 {
				t.Errorf("operation %d %s: tags %v, %v", n, mode, tags, err)
			}
			off = 3 * time.Hour
			collect(t, inner, repo.CollectOptions{})
			checkPulls(t, inner, "app:kept", kept)
			if left := len(entryIDs(t, inner)); left != 4 {
				t.Errorf("operation %d %s: %d entries are left", n, mode, left)
			}
		}
	}
	t.Logf("%d operations killed", killed)
	if killed < 50 {
		t.Errorf("only %d", killed)
	}
}

// TestCollectSignatures: those of images that are gone go with them, and no other.
func TestCollectSignatures(t *testing.T) {
	s := mem.New()
	kept, gone := image3(t, "kept"), image3(t, "gone")
	r := open(t, s, codec.LZ4)
	for name, img := range map[string]remotetest.Image{"app:kept": kept, "app:gone": gone} {
		pushTo(t, s, name, img)
		for _, key := range []string{"0123456789abcdef", "fedcba9876543210"} {
			if err := r.PutSignature(t.Context(), remotetest.Ref(t, name), img.ID, key, []byte("signed")); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(t, s, "signatures/app/stranger", nil)
	remove(t, s, "repositories/app/gone")
	if collect(t, s, repo.CollectOptions{Grace: time.Hour}); len(keys(t, s, "signatures/")) != 5 {
		t.Errorf("young: %q", keys(t, s, "signatures/"))
	}
	collect(t, s, repo.CollectOptions{})
	left := keys(t, s, "signatures/")
	if len(left) != 3 || !strings.Contains(left[0], kept.ID.Hex()) || !strings.Contains(left[1], kept.ID.Hex()) {
		t.Errorf("left: %q", left)
	}
	// What a killed run has left goes with the next one.
	put(t, s, "signatures/app/gone@"+gone.ID.Hex()+".0123456789abcdef", nil)
	if collect(t, s, repo.CollectOptions{}); len(keys(t, s, "signatures/")) != 3 {
		t.Errorf("left: %q", keys(t, s, "signatures/"))
	}
}

// TestCollectMayNotDeleteSignatures: a refusal is an answer. It is told, and holds no push up.
func TestCollectMayNotDeleteSignatures(t *testing.T) {
	s := &undeletable{Store: mem.New(), prefix: "signatures/"}
	pushTo(t, s, "app:1", image3(t, "app"))
	put(t, s, "signatures/app/gone@"+strings.Repeat("0", 64)+".0123456789abcdef", nil)
	time.Sleep(time.Millisecond)
	for range 2 { // the second is told the same, and not that the first still runs
		_, err := open(t, s, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: soon})
		if !fault.Is(err, fault.Refused) || fault.Is(err, fault.Locked) {
			t.Errorf("error %v", err)
		}
	}
}

// undeletable is a store in which some objects may not be deleted.
type undeletable struct {
	*mem.Store
	prefix string
}

func (r *undeletable) Delete(ctx context.Context, key string) error {
	if strings.HasPrefix(key, r.prefix) {
		return fmt.Errorf("%s: %w", key, storage.ErrPermission)
	}
	return r.Store.Delete(ctx, key)
}

// TestCollectInterrupted: what has begun ends, the sweep is over at once, and another one frees the rest.
func TestCollectInterrupted(t *testing.T) {
	s := &deleting{Store: mem.New()}
	for i := range 40 {
		pushTo(t, s, fmt.Sprintf("app:%d", i), image3(t, fmt.Sprint(i)))
		if i > 0 {
			remove(t, s, fmt.Sprintf("repositories/app/%d", i))
		}
	}
	time.Sleep(time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.deleted = func(n int64) {
		if n == 20 {
			cancel()
		}
	}
	c, err := open(t, s, codec.LZ4).Collect(ctx, repo.CollectOptions{Grace: soon})
	if !errors.Is(err, context.Canceled) || c.Freed.Count == 0 || c.Left.Count == 0 || c.Freed.Count+c.Left.Count != 39*3 {
		t.Errorf("%+v, error %v", c, err)
	}
	s.deleted = nil
	if again := collect(t, s, repo.CollectOptions{}); again.Freed.Count != c.Left.Count {
		t.Errorf("then %+v", again)
	}
}

// deleting tells of deletions under images/, which come several at once.
type deleting struct {
	*mem.Store
	n       atomic.Int64
	deleted func(n int64)
}

func (c *deleting) Delete(ctx context.Context, key string) error {
	if c.deleted != nil && strings.HasPrefix(key, "images/") {
		c.deleted(c.n.Add(1))
	}
	return c.Store.Delete(ctx, key)
}

// TestCollectOrder: what names another goes before it, and an entry's json before its files.
func TestCollectOrder(t *testing.T) {
	s := storagetest.NewFaulty(mem.New())
	pushTo(t, s, "app:kept", image3(t, "kept"))
	img := image3(t, "gone")
	pushTo(t, s, "app:gone", img)
	remove(t, s, "repositories/app/gone")
	from := s.Ops()
	collect(t, s, repo.CollectOptions{})
	place := map[string]int{}
	for i, line := range s.Log()[from:] {
		if fields := strings.Fields(line); strings.EqualFold(fields[1], "delete") {
			place[fields[2]] = i
		}
	}
	layer := "images/" + digest(img.Layers[1]) + "/"
	for _, o := range [][2]string{
		{"images/" + digest(img.Manifest()) + "/json", "images/" + img.ID.Hex() + "/json"},
		{"images/" + img.ID.Hex() + "/json", layer + "json"},
		{layer + "json", layer + "layer.tar.lz4"},
		{layer + "layer.tar.lz4", layer + "VERSION"},
	} {
		if place[o[0]] == 0 || place[o[1]] == 0 || place[o[0]] > place[o[1]] {
			t.Errorf("%s goes as %d., %s as %d.", o[0], place[o[0]], o[1], place[o[1]])
		}
	}
}

// TestTwoCollections: of two at once one is told to wait; a store that cannot compare and swap takes the single writer's word only.
func TestTwoCollections(t *testing.T) {
	s := mem.New()
	pushTo(t, s, "app:1", image3(t, "app"))
	sweep, err := lease.Begin(t.Context(), s, lease.Times{})
	if err != nil {
		t.Fatal(err)
	}
	defer sweep.Close(t.Context())
	_, err = open(t, s, codec.LZ4).Collect(t.Context(), repo.CollectOptions{})
	if !fault.Is(err, fault.Locked) {
		t.Errorf("beside another: %v", err)
	}
	f := newFlat() // has neither
	pushTo(t, f, "app:1", image3(t, "app"))
	pushTo(t, f, "app:2", image3(t, "gone"))
	remove(t, f, "repositories/app/2")
	if _, err := f.repo(t).Collect(t.Context(), repo.CollectOptions{Grace: soon}); !fault.Is(err, fault.Refused) || !strings.Contains(fault.AdviceOf(err), "--single-writer") {
		t.Errorf("without compare-and-swap: %v", err)
	}
	if c := collect(t, f, repo.CollectOptions{SingleWriter: true}); c.Freed.Count != 3 {
		t.Errorf("as the single writer: %+v", c)
	}
}

// TestClockAnHourOff: ages are told by the store's clock, whatever this machine's says.
func TestClockAnHourOff(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, time.Hour} {
		s := mem.New()
		s.Now = func() time.Time { return time.Now().Add(off) }
		pushTo(t, s, "app:1", image3(t, "app"))
		pushTo(t, s, "app:2", image3(t, "gone"))
		remove(t, s, "repositories/app/2")
		if c := collect(t, s, repo.CollectOptions{Grace: 30 * time.Minute}); c.Freed.Count != 0 || c.Young.Count != 3 {
			t.Errorf("%s off: %+v", off, c)
		}
		held := lease.New(s, lease.Options{})
		var ids []image.Digest
		for _, l := range image3(t, "gone").Layers {
			ids = append(ids, image.DigestOf(l))
		}
		if _, err := held.Rely(t.Context(), append(ids, image3(t, "gone").ID)...); err != nil {
			t.Fatal(err)
		}
		if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 0 || c.Leased.Count != 3 {
			t.Errorf("%s off, beside a push: %+v", off, c)
		}
		if err := held.Check(t.Context()); err != nil {
			t.Errorf("%s off: %v", off, err)
		}
		held.Release(t.Context())
		if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 3 {
			t.Errorf("%s off, afterwards: %+v", off, c)
		}
	}
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
