package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
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

func attach(t testing.TB, s storage.Store, repository string, a remotetest.Artifact) {
	t.Helper()
	if err := a.Attach(t.Context(), open(t, s, codec.LZ4), repository); err != nil {
		t.Fatal(err)
	}
}

// there reports whether all of an artifact is there; it fails the test where it is in part.
func there(t testing.TB, s storage.Store, a remotetest.Artifact) bool {
	t.Helper()
	missing, _, err := open(t, s, codec.LZ4).Missing(t.Context(), remote.Closure{Documents: []image.Digest{a.ID}, Layers: a.Closure().Layers})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(missing.Documents) + len(missing.Layers); n == 1 {
		t.Errorf("of %s is missing %v", a.Layer, missing)
	}
	return missing.Empty()
}

// TestMemberKeys: what is written is what docs/format.md says.
func TestMemberKeys(t *testing.T) {
	s := mem.New()
	free := remotetest.NewArtifact(t, "free", nil)
	sig := remotetest.NewArtifact(t, "sig", free.Manifest)
	attach(t, s, "localhost:5000/team/app", free)
	attach(t, s, "localhost:5000/team/app", sig)
	want := map[string]string{
		"digests/localhost%3A5000/team/app/" + free.ID.Hex():                        "",
		"referrers/localhost%3A5000/team/app/" + free.ID.Hex() + "/" + sig.ID.Hex(): "",
	}
	got := contents(t, s, "digests/")
	for key, content := range contents(t, s, "referrers/") {
		got[key] = content
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("it has %q, want %q", got, want)
	}
	if string(get(t, s, "VERSION")) != "2.0" {
		t.Error("no marker at the root")
	}
	if left := keys(t, s, "run/"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestCollectReferrers: a referrer lives while its subject does, and its subject's subject. It goes with it, and what
// said so goes before it.
func TestCollectReferrers(t *testing.T) {
	for name, store := range map[string]func() storage.Store{
		"mem": func() storage.Store { return mem.New() }, "file": func() storage.Store { return openDir(t, t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			s := store()
			kept, gone := image3(t, "kept"), image3(t, "gone")
			pushTo(t, s, "app:kept", kept)
			pushTo(t, s, "app:gone", gone)
			var ofKept, ofGone []remotetest.Artifact
			for _, c := range []struct {
				to *[]remotetest.Artifact
				of remotetest.Image
			}{{&ofKept, kept}, {&ofGone, gone}} {
				subject := c.of.Manifest()
				for i := range 4 { // a chain
					a := remotetest.NewArtifact(t, fmt.Sprint("chain", i), subject)
					attach(t, s, []string{"app", "other"}[i%2], a)
					*c.to, subject = append(*c.to, a), a.Manifest
				}
			}
			if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 0 {
				t.Fatalf("while all is tagged it frees %+v", c)
			}
			remove(t, s, "repositories/app/gone")
			if c := collect(t, s, repo.CollectOptions{Grace: time.Hour}); c.Freed.Count != 0 || c.Young.Count != 7 {
				t.Errorf("of young garbage it frees %+v", c)
			}
			if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 7 { // a layer, a config, its manifest, and four manifests; layers are shared
				t.Errorf("it frees %+v", c)
			}
			for _, a := range ofKept {
				if !there(t, s, a) {
					t.Errorf("%s is gone", a.Layer)
				}
			}
			for _, a := range ofGone {
				if slices.Contains(entryIDs(t, s), a.ID.Hex()) {
					t.Errorf("%s is there", a.Layer)
				}
			}
			if left := keys(t, s, "referrers/"); len(left) != 4 {
				t.Errorf("%q are left", left)
			}
			// What was collected may come again, and names nothing that is not there.
			pushTo(t, s, "app:gone", gone)
			if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 0 {
				t.Errorf("it frees %+v", c)
			}
		})
	}
}

// TestCollectYoungSubject: what refers to something that stays for now stays with it.
func TestCollectYoungSubject(t *testing.T) {
	s, off := mem.New(), time.Duration(0)
	s.Now = func() time.Time { return time.Now().Add(off) }
	pushTo(t, s, "app:1", image3(t, "app"))
	img := image3(t, "late")
	sig := remotetest.NewArtifact(t, "sig", img.Manifest())
	attach(t, s, "app", sig)
	off = 2 * time.Hour
	pushTo(t, s, "app:late", img)
	remove(t, s, "repositories/app/late")
	for range 2 { // the second time with the register of the first
		if c := collect(t, s, repo.CollectOptions{Grace: time.Hour}); c.Freed.Count != 0 {
			t.Errorf("it frees %+v", c)
		}
	}
	if !there(t, s, sig) || len(keys(t, s, "referrers/")) != 1 {
		t.Error("the referrer of an image that stays is gone")
	}
}

// TestCollectReferrerAgain: an old manifest that was pushed again waits for its subject as long as a new one.
func TestCollectReferrerAgain(t *testing.T) {
	s, off := mem.New(), time.Duration(0)
	s.Now = func() time.Time { return time.Now().Add(off) }
	pushTo(t, s, "app:1", image3(t, "app"))
	img := image3(t, "late")
	sig := remotetest.NewArtifact(t, "sig", img.Manifest())
	chain := remotetest.NewArtifact(t, "chain", sig.Manifest)
	attach(t, s, "app", sig)
	attach(t, s, "app", chain)
	off = 2 * time.Hour
	attach(t, s, "app", sig)
	if c := collect(t, s, repo.CollectOptions{Grace: time.Hour}); c.Freed.Count != 0 {
		t.Errorf("it frees %+v", c)
	}
	pushTo(t, s, "app:late", img)
	if !there(t, s, sig) || !there(t, s, chain) {
		t.Error("the referrer is gone, or what refers to it")
	}
	remove(t, s, "repositories/app/late")
	off = 4 * time.Hour
	if c := collect(t, s, repo.CollectOptions{Grace: time.Hour}); c.Freed.Count == 0 || len(keys(t, s, "referrers/")) > 0 {
		t.Errorf("when it is old: %+v, left are %q", c, keys(t, s, "referrers/"))
	}
}

// TestCollectSparedAlias: of what is spared, aliases are looked up again behind the list, as of what lives.
func TestCollectSparedAlias(t *testing.T) {
	s, off := mem.New(), time.Duration(0)
	s.Now = func() time.Time { return time.Now().Add(off) }
	pushTo(t, s, "app:1", image3(t, "app"))
	r := open(t, s, codec.LZ4)
	tar := remotetest.FileLayer(t, "layer", "layer")
	alias := "images/" + image.DigestOf(tar).Hex() + "/json"
	blobs := [][]byte{gzipped(t, tar), append(gzipped(t, tar[:512]), gzipped(t, tar[512:])...)}
	var aliases [][]byte
	for _, b := range blobs {
		if _, err := r.PutLayer(t.Context(), image.Descriptor{MediaType: gzipTar, Digest: image.DigestOf(b), Size: int64(len(b))}, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		aliases = append(aliases, get(t, s, alias))
	}
	put(t, s, alias, aliases[0])
	img := image3(t, "late")
	doc := manifestOf(remotetest.EmptyConfig, []image.Descriptor{{MediaType: "application/vnd.example.tar", Digest: image.DigestOf(tar), Size: int64(len(tar))}})
	doc = append(doc[:len(doc)-1], fmt.Sprintf(`,"subject":{"mediaType":"a/b","digest":%q,"size":1}}`, image.DigestOf(img.Manifest()))...)
	for _, d := range [][]byte{remotetest.EmptyConfig, doc} {
		if err := r.PutDocument(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Add(t.Context(), "app", image.DigestOf(doc)); err != nil {
		t.Fatal(err)
	}
	off = 2 * time.Hour
	pushTo(t, s, "app:late", img)
	remove(t, s, "repositories/app/late")
	moves := &onLeases{Store: s, run: func() { put(t, s, alias, aliases[1]) }}
	if _, err := open(t, moves, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if moves.run != nil {
		t.Error("nobody has asked for leases")
	}
	if _, err := remote.Layers(t.Context(), r, []image.Digest{image.DigestOf(tar)}); err != nil {
		t.Error(err)
	}
}

// onLeases runs once, before leases are listed.
type onLeases struct {
	*mem.Store
	run func()
}

func (o *onLeases) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	if run := o.run; run != nil && strings.HasPrefix(prefix, "run/leases/") {
		o.run = nil
		run()
	}
	return o.Store.List(ctx, prefix)
}

// TestCollectLeasedSubject: what refers to what a push relies on stays, for the push may tag that.
func TestCollectLeasedSubject(t *testing.T) {
	s := mem.New()
	pushTo(t, s, "app:1", image3(t, "app"))
	img := image3(t, "leased")
	pushTo(t, s, "app:2", img)
	sig := remotetest.NewArtifact(t, "sig", img.Manifest())
	attach(t, s, "app", sig)
	remove(t, s, "repositories/app/2")
	to, end := remote.Begin(open(t, s, codec.LZ4), nil)
	defer end(t.Context())
	if missing, _, err := to.Missing(t.Context(), img.Closure()); err != nil || !missing.Empty() {
		t.Fatalf("missing %v, error %v", missing, err)
	}
	if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 0 {
		t.Errorf("%+v", c)
	}
	if err := to.Tag(t.Context(), remotetest.Ref(t, "app:2"), img.ID); err != nil {
		t.Fatal(err)
	}
	if !there(t, s, sig) {
		t.Error("the referrer is gone")
	}
	if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 0 {
		t.Errorf("%+v", c)
	}
}

// TestRemoveFrees: what belonged to a repository is garbage once it was removed, and nothing before.
func TestRemoveFrees(t *testing.T) {
	for name, store := range map[string]func() storage.Store{
		"mem": func() storage.Store { return mem.New() }, "file": func() storage.Store { return openDir(t, t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			s := store()
			img, free := image3(t, "app"), remotetest.NewArtifact(t, "free", nil)
			sig := remotetest.NewArtifact(t, "sig", free.Manifest)
			pushTo(t, s, "app:1", img)
			r := open(t, s, codec.LZ4)
			if err := r.Add(t.Context(), "app", image.DigestOf(img.Manifest())); err != nil {
				t.Fatal(err)
			}
			remove(t, s, "repositories/app/1")
			attach(t, s, "app", free)
			attach(t, s, "other", sig)
			if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 0 || c.Roots != 2 {
				t.Errorf("%+v", c)
			}
			if err := r.Remove(t.Context(), "app", free.ID); err != nil {
				t.Fatal(err)
			}
			if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 5 { // two manifests, two layers, their config
				t.Errorf("%+v", c)
			}
			checkPulls(t, s, "app@"+image.DigestOf(img.Manifest()).String(), img)
			if left := keys(t, s, "referrers/"); len(left) > 0 {
				t.Errorf("%q are left", left)
			}
		})
	}
}

// TestRemoveWithoutManifest: what a manifest referred to is found, though nobody can read it any more.
func TestRemoveWithoutManifest(t *testing.T) {
	s := mem.New()
	sig := remotetest.NewArtifact(t, "sig", []byte("a subject"))
	attach(t, s, "app", sig)
	attach(t, s, "app/more", sig)
	remove(t, s, "images/"+sig.ID.Hex()+"/json")
	r := open(t, s, codec.LZ4)
	if belongs, err := r.Belongs(t.Context(), "app", sig.ID); belongs || err != nil {
		t.Errorf("it belongs: %t, %v", belongs, err)
	}
	if err := r.Remove(t.Context(), "app", sig.ID); err != nil {
		t.Fatal(err)
	}
	if left := keys(t, s, "referrers/"); len(left) != 1 || !strings.HasPrefix(left[0], "referrers/app/more/") {
		t.Errorf("%q are left", left)
	}
}

// TestReferrerNeedsItsManifest: a referrer that is not whole, of what lives, stops a collection, which names it.
func TestReferrerNeedsItsManifest(t *testing.T) {
	s := mem.New()
	img := image3(t, "app")
	pushTo(t, s, "app:1", img)
	sig := remotetest.NewArtifact(t, "sig", img.Manifest())
	attach(t, s, "app", sig)
	remove(t, s, "images/"+sig.ID.Hex()+"/json")
	time.Sleep(time.Millisecond)
	done, err := open(t, s, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: soon})
	if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), "referrers/app/"+image.DigestOf(img.Manifest()).Hex()) || done.Freed.Count > 0 {
		t.Errorf("%+v, %v", done, err)
	}
}

// TestTornMember: a collection that a member or referrer stops says how to take it out, and goes on once it is.
func TestTornMember(t *testing.T) {
	for name, tear := range map[string]func(s storage.Store, key string){
		"missing":   func(s storage.Store, key string) { remove(t, s, key) },
		"damaged":   func(s storage.Store, key string) { put(t, s, key, []byte(`{"layers":[]}`)) },
		"too large": func(s storage.Store, key string) { put(t, s, key, bytes.Repeat([]byte(" "), image.MaxDocument+1)) },
	} {
		for _, refers := range []bool{false, true} {
			for _, tornConfig := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, refers %t, its config %t", name, refers, tornConfig), func(t *testing.T) {
					s := mem.New()
					img := image3(t, "app")
					pushTo(t, s, "app:1", img)
					var subject []byte
					if refers {
						subject = img.Manifest()
					}
					a := remotetest.NewArtifact(t, "torn", subject)
					attach(t, s, "host:5000/app", a)
					id := a.ID
					if tornConfig {
						id = image.DigestOf(remotetest.EmptyConfig)
					}
					tear(s, "images/"+id.Hex()+"/json")
					time.Sleep(time.Millisecond)
					r := open(t, s, codec.LZ4)
					_, err := r.Collect(t.Context(), repo.CollectOptions{Grace: soon})
					if want := "DELETE /v2/host:5000/app/manifests/" + a.ID.String(); !fault.Is(err, fault.Damaged) || !strings.Contains(fault.AdviceOf(err), want) {
						t.Errorf("%v, advice %q", err, fault.AdviceOf(err))
					}
					if err := r.Remove(t.Context(), "host:5000/app", a.ID); err != nil {
						t.Fatal(err)
					}
					if left := append(keys(t, s, "digests/"), keys(t, s, "referrers/")...); len(left) > 0 {
						t.Errorf("left: %q", left)
					}
					if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count == 0 {
						t.Errorf("%+v", c)
					}
					checkPulls(t, s, "app:1", img)
				})
			}
		}
	}
}

// TestMemberOfNobody: what stops a collection without being a member's key is told as the object that it is.
func TestMemberOfNobody(t *testing.T) {
	s := mem.New()
	pushTo(t, s, "app:1", image3(t, "app"))
	key := "digests/UPPER/" + strings.Repeat("1", 64)
	put(t, s, key, nil)
	_, err := open(t, s, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: soon})
	if !fault.Is(err, fault.Damaged) || !strings.Contains(fault.AdviceOf(err), "remove the object "+key) {
		t.Errorf("%v, advice %q", err, fault.AdviceOf(err))
	}
}

// TestDeadLeaseAddsNothing: what lets others live is written under a living lease only.
func TestDeadLeaseAddsNothing(t *testing.T) {
	s, off := mem.New(), time.Duration(0)
	s.Now = func() time.Time { return time.Now().Add(off) }
	free := remotetest.NewArtifact(t, "free", nil)
	key := "digests/app/" + free.ID.Hex()
	asleep := &asleep{Store: s, before: key, sleep: func() { off += 40 * time.Minute }}
	to, end := remote.Begin(open(t, asleep, codec.LZ4), nil)
	defer end(t.Context())
	if err := free.Put(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	puts := 0
	asleep.sleep = func() {
		puts++
		off += 40 * time.Minute
		remove(t, s, "images/"+free.ID.Hex()+"/json") // as a collection might, to which the lease is dead
	}
	err := to.(remote.Memberships).Add(t.Context(), "app", free.ID)
	var incomplete *remote.IncompleteError
	if !errors.As(err, &incomplete) || incomplete.Tagged || puts != 1 {
		t.Errorf("it tried %d times: %v", puts, err)
	}
	if there := keys(t, s, "digests/"); len(there) > 0 {
		t.Errorf("written: %q", there)
	}
}

// TestAddLooksAgain: what vanishes while the membership is written is told.
func TestAddLooksAgain(t *testing.T) {
	s := newFlat()
	free := remotetest.NewArtifact(t, "free", nil)
	r := open(t, s, codec.LZ4)
	if err := free.Put(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	s.written = func(key string) {
		if strings.HasPrefix(key, "digests/") {
			remove(t, s, "images/"+image.DigestOf(free.Layer).Hex()+"/json")
		}
	}
	err := r.Add(t.Context(), "app", free.ID)
	var incomplete *remote.IncompleteError
	if !errors.As(err, &incomplete) || !incomplete.Tagged || len(incomplete.Missing.Layers) != 1 {
		t.Errorf("%v", err)
	}
}

// TestAddConflictsAtOnce: of two that write conflicting names at once, none takes the other's away, and who finds the
// other one takes its own back.
func TestAddConflictsAtOnce(t *testing.T) {
	s := newFlat()
	one, two := remotetest.NewArtifact(t, "one", nil), remotetest.NewArtifact(t, "two", nil)
	r := open(t, s, codec.LZ4)
	for _, a := range []remotetest.Artifact{one, two} {
		if err := a.Put(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	other := "digests/app/" + one.ID.Hex() + "/" + two.ID.Hex()
	s.written = func(key string) {
		if key == "digests/app/"+one.ID.Hex() {
			s.written = nil
			put(t, s, other, nil)
		}
	}
	if err := r.Add(t.Context(), "app", one.ID); !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), other) {
		t.Errorf("%v", err)
	}
	if left := keys(t, s, "digests/"); !slices.Equal(left, []string{other}) {
		t.Errorf("left: %q", left)
	}
}

// TestCollectReferrersKilled: whatever operation of a collection is the last, nothing that lives says of what is not
// there that it refers to it.
func TestCollectReferrersKilled(t *testing.T) {
	kept, gone := image3(t, "kept"), image3(t, "gone")
	sig := remotetest.NewArtifact(t, "sig", gone.Manifest())
	prepare := func(s storage.Store) {
		pushTo(t, s, "app:kept", kept)
		pushTo(t, s, "app:gone", gone)
		attach(t, s, "app", sig)
		remove(t, s, "repositories/app/gone")
		time.Sleep(time.Millisecond)
	}
	count := storagetest.NewFaulty(mem.New())
	prepare(count)
	first := count.Ops()
	if _, err := open(t, count, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: soon}); err != nil {
		t.Fatal(err)
	}
	step := 1
	if testing.Short() {
		step = 5
	}
	for n := first + 2; n <= count.Ops(); n += step {
		for _, mode := range storagetest.Modes {
			inner, off := mem.New(), time.Duration(0)
			inner.Now = func() time.Time { return time.Now().Add(off) }
			faulty := storagetest.NewFaulty(inner)
			prepare(faulty)
			r := open(t, faulty, codec.LZ4)
			faulty.FailAt(n, mode)
			if _, err := r.Collect(t.Context(), repo.CollectOptions{Grace: soon}); err != nil && !errors.Is(err, storagetest.ErrInjected) {
				t.Errorf("operation %d %s: %v", n, mode, err)
			}
			off = 3 * time.Hour // its sweep is over
			pushTo(t, inner, "app:gone", gone)
			if len(keys(t, inner, "referrers/")) > 0 && !there(t, inner, sig) {
				t.Errorf("operation %d %s: it refers to what lives, and is not there", n, mode)
			}
			if _, err := open(t, inner, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: soon}); err != nil {
				t.Errorf("operation %d %s: the next one: %v", n, mode, err)
			}
		}
	}
}

// TestSessionWaitsToAdd: a manifest that a sweep is about to delete is not added meanwhile.
func TestSessionWaitsToAdd(t *testing.T) {
	s := mem.New()
	pushTo(t, s, "app:1", image3(t, "app"))
	free := remotetest.NewArtifact(t, "free", nil)
	attach(t, s, "app", free)
	if err := open(t, s, codec.LZ4).Remove(t.Context(), "app", free.ID); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Millisecond)
	var added error
	gate := &onDelete{Store: s, run: func() {
		r, err := repo.Open(t.Context(), s, repo.Options{Name: "the-remote", NoWait: true})
		if err != nil {
			t.Error(err)
			return
		}
		to, end := remote.Begin(r, nil)
		defer end(t.Context())
		added = to.(remote.Memberships).Add(t.Context(), "app", free.ID)
	}}
	if _, err := open(t, gate, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: soon}); err != nil {
		t.Fatal(err)
	}
	if !fault.Is(added, fault.Locked) || !errors.Is(added, lease.ErrSwept) {
		t.Errorf("added: %v", added)
	}
	if left := keys(t, s, "digests/"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestSessionWaitsToHold: a platform of which a sweep is about to delete a layer is not marked meanwhile, though its own
// documents are in no list; a mark would let a tagged index need what goes.
func TestSessionWaitsToHold(t *testing.T) {
	s, off := mem.New(), time.Duration(0)
	s.Now = func() time.Time { return time.Now().Add(off) }
	held, child := image3(t, "held"), remotetest.NewArtifact(t, "child", nil)
	pushTo(t, s, "app:held", held)
	r := open(t, s, codec.LZ4)
	if err := child.Put(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	manifest := held.Manifest()
	doc := fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"digest":%q,"size":%d},{"digest":%q,"size":%d}]}`, image.DigestOf(manifest), len(manifest), child.ID, len(child.Manifest))
	index := image.DigestOf(doc)
	if err := r.PutDocument(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	if err := r.Hold(t.Context(), index, []image.Digest{image.DigestOf(manifest)}); err != nil {
		t.Fatal(err)
	}
	if err := r.Tag(t.Context(), remotetest.Ref(t, "app:1"), index); err != nil {
		t.Fatal(err)
	}
	off = 2 * time.Hour
	for _, b := range [][]byte{child.Manifest, remotetest.EmptyConfig} { // as if they came now
		put(t, s, "images/"+image.DigestOf(b).Hex()+"/json", b)
	}
	var marked error
	gate := &onDelete{Store: s, run: func() {
		r, err := repo.Open(t.Context(), s, repo.Options{Name: "the-remote", NoWait: true})
		if err != nil {
			t.Error(err)
			return
		}
		to, end := remote.Begin(r, nil)
		defer end(t.Context())
		if missing, _, err := to.Missing(t.Context(), remote.Closure{Documents: []image.Digest{image.DigestOf(manifest), child.ID}}); err != nil || !missing.Empty() {
			t.Errorf("missing %v, %v", missing, err)
		}
		marked = to.(remote.Holder).Hold(t.Context(), index, []image.Digest{image.DigestOf(manifest), child.ID})
	}}
	done, err := open(t, gate, codec.LZ4).Collect(t.Context(), repo.CollectOptions{Grace: time.Hour})
	if err != nil || done.Freed.Count != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	if !fault.Is(marked, fault.Locked) || !errors.Is(marked, lease.ErrSwept) {
		t.Errorf("marked: %v", marked)
	}
	if in, err := r.Held(t.Context(), index); err != nil || !slices.Equal(in, []image.Digest{image.DigestOf(manifest)}) {
		t.Errorf("it has %v, %v", in, err)
	}
}

// onDelete runs once, before the first deletion of an entry.
type onDelete struct {
	*mem.Store
	run func()
}

func (o *onDelete) Delete(ctx context.Context, key string) error {
	if strings.HasPrefix(key, "images/") && o.run != nil {
		run := o.run
		o.run = nil
		run()
	}
	return o.Store.Delete(ctx, key)
}

// TestEmptyIndex: an index that names no manifests is whole. Registries take it; there is nothing to pull.
func TestEmptyIndex(t *testing.T) {
	s := mem.New()
	r := open(t, s, codec.LZ4)
	doc := []byte(`{"schemaVersion":2,"manifests":[]}`)
	id := image.DigestOf(doc)
	if err := r.PutDocument(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	if err := r.Tag(t.Context(), remotetest.Ref(t, "app:1"), id); err != nil {
		t.Fatal(err)
	}
	if err := r.Add(t.Context(), "app", id); err != nil {
		t.Fatal(err)
	}
	if c := collect(t, s, repo.CollectOptions{}); c.Freed.Count != 0 || c.Roots != 2 {
		t.Errorf("%+v", c)
	}
	if got, err := remotetest.Pull(t.Context(), r, remotetest.Ref(t, "app:1")); err == nil {
		t.Errorf("it is pulled as %+v", got)
	}
}

// TestMembers lists what belongs to repositories, and nobody else's.
func TestMembers(t *testing.T) {
	s := newFlat()
	free := remotetest.NewArtifact(t, "free", nil)
	sig := remotetest.NewArtifact(t, "sig", free.Manifest)
	inside := "app/" + free.ID.Hex()
	attach(t, s, "localhost:5000/app", free)
	attach(t, s, "app", sig)
	attach(t, s, inside, sig)
	for _, strange := range []string{"digests/x", "digests/" + free.ID.Hex(), "digests/UPPER/" + free.ID.Hex(), "referrers/app/" + sig.ID.Hex(), "referrers/x/y/" + sig.ID.Hex(), "referrers/" + free.ID.Hex() + "/" + sig.ID.Hex()} {
		put(t, s, strange, nil)
	}
	all := []remote.Membership{{Repository: "app", Manifest: sig.ID, Subject: free.ID}, {Repository: inside, Manifest: sig.ID, Subject: free.ID}, {Repository: "localhost:5000/app", Manifest: free.ID}}
	for repository, want := range map[string][]remote.Membership{"": all, "app": all[:1], inside: all[1:2], "localhost:5000/app": all[2:], "other": nil} {
		var got []remote.Membership
		for m, err := range open(t, s, codec.LZ4).Members(t.Context(), repository) {
			if err != nil {
				t.Fatal(err)
			}
			if time.Since(m.Modified).Abs() > time.Hour {
				t.Errorf("%s belongs to %s since %s", m.Manifest.Short(), m.Repository, m.Modified)
			}
			m.Modified = time.Time{}
			got = append(got, m)
		}
		slices.SortFunc(got, func(a, b remote.Membership) int { return strings.Compare(a.Repository, b.Repository) })
		if !slices.Equal(got, want) {
			t.Errorf("of %q: %v, want %v", repository, got, want)
		}
	}
}
