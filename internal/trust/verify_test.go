package trust

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/signature"
	"github.com/dogestry/dogestry/internal/storage"
)

// TestBounds: what a remote hands out is what can be a signature, no less and no more.
func TestBounds(t *testing.T) {
	if remote.MaxSignature != signature.MaxSize {
		t.Errorf("remotes read %d bytes, and signatures have up to %d", remote.MaxSignature, signature.MaxSize)
	}
}

func TestSignedTagIsAccepted(t *testing.T) {
	b := newBed(t)
	k, other := newKey(t), newKey(t)
	b.push(b.signer(k, 0), "app:1", b.one)
	b.push(b.signer(k, 0), "localhost:5000/team/app:1", b.two)
	m := newMemory(t)
	for range 2 {
		b.accepted(b.verifier(m, k), "app:1", k)
		b.accepted(b.verifier(m, other, k), "app:1", k)
		b.accepted(b.verifier(m, k, other), "localhost:5000/team/app:1", k)
	}
	b.push(b.signer(k, 10), "app:1", b.two)
	b.accepted(b.verifier(m, k), "app:1", k)
}

// TestAttacks are what somebody can do who can write all of the remote, and has
// no key that is accepted. Each begins with app:1 = one, signed, then two, signed;
// app:2 = one and your/app:1 = one, signed.
func TestAttacks(t *testing.T) {
	k, wrong := newKey(t), newKey(t)
	for what, c := range map[string]struct {
		attack func(b *bed)
		words  []string // of the refusal
	}{
		"the tag is moved to what is not signed": {func(b *bed) {
			b.push(nil, "app:1", remotetest.NewImage(b, "three", remotetest.FileLayer(b, "three", "three")))
		}, []string{"not signed by the key " + string(k.ID()), "moved"}},
		"the tag is put back": {func(b *bed) {
			b.put(tagKey("app", "1"), []byte(b.one.ID.Hex()))
		}, []string{"rolled back", "--allow-rollback", "12:00:00.000", "12:00:10.000"}},
		"there is no signature any more": {func(b *bed) {
			for _, id := range []image.ID{b.one.ID, b.two.ID} {
				if err := b.store.Delete(b.Context(), signatureKey("app", "1", id, k)); err != nil {
					b.Fatal(err)
				}
			}
		}, []string{"not signed by the key", "Nothing of that name is signed"}},
		"only the old one is left": {func(b *bed) {
			if err := b.store.Delete(b.Context(), signatureKey("app", "1", b.two.ID, k)); err != nil {
				b.Fatal(err)
			}
		}, []string{"not signed by the key", "moved"}},
		"signed by another key": {func(b *bed) {
			b.push(b.signer(wrong, 20), "app:1", b.one)
			if err := b.store.Delete(b.Context(), signatureKey("app", "1", b.one.ID, k)); err != nil {
				b.Fatal(err)
			}
		}, []string{"not signed by the key " + string(k.ID()), "by other keys: " + string(wrong.ID())}},
		"another key's signature by the right name": {func(b *bed) {
			b.push(b.signer(wrong, 20), "app:1", b.two)
			b.put(signatureKey("app", "1", b.two.ID, k), b.get(signatureKey("app", "1", b.two.ID, wrong)))
		}, []string{"not valid", "of the key " + string(wrong.ID())}},
		"the right key's name in it, too": {func(b *bed) {
			b.push(b.signer(wrong, 20), "app:1", b.two)
			forged := b.get(signatureKey("app", "1", b.two.ID, wrong))
			b.put(signatureKey("app", "1", b.two.ID, k), bytes.ReplaceAll(forged, []byte(wrong.ID()), []byte(k.ID())))
		}, []string{"not valid", "not made with the key " + string(k.ID())}},
		"another tag's signature": {func(b *bed) {
			b.put(tagKey("app", "1"), []byte(b.one.ID.Hex()))
			b.put(signatureKey("app", "1", b.one.ID, k), b.get(signatureKey("app", "2", b.one.ID, k)))
		}, []string{"not valid", "of app:2"}},
		"another repository's": {func(b *bed) {
			b.put(tagKey("app", "1"), []byte(b.one.ID.Hex()))
			b.put(signatureKey("app", "1", b.one.ID, k), b.get(signatureKey("your/app", "1", b.one.ID, k)))
		}, []string{"not valid", "of your/app:1"}},
		"another image's": {func(b *bed) {
			b.put(signatureKey("app", "1", b.two.ID, k), b.get(signatureKey("app", "1", b.one.ID, k)))
		}, []string{"not valid", "of the image " + b12(t, "one")}},
		"empty":         {func(b *bed) { b.put(signatureKey("app", "1", b.two.ID, k), nil) }, []string{"not valid"}},
		"cut off":       {func(b *bed) { s := signatureKey("app", "1", b.two.ID, k); b.put(s, b.get(s)[:100]) }, []string{"not valid", "cut short"}},
		"huge":          {func(b *bed) { b.put(signatureKey("app", "1", b.two.ID, k), make([]byte, 9<<20)) }, []string{"not valid", "larger"}},
		"too long":      {func(b *bed) { s := signatureKey("app", "1", b.two.ID, k); b.put(s, append(b.get(s), ' ')) }, []string{"not valid"}},
		"a new version": {func(b *bed) { b.put(signatureKey("app", "1", b.two.ID, k), []byte("dogestry signed tag 2\n")) }, []string{"not valid", "version"}},
	} {
		t.Run(what, func(t *testing.T) {
			b := newBed(t)
			b.push(b.signer(k, 0), "app:1", b.one)
			b.push(b.signer(k, 5), "app:2", b.one)
			b.push(b.signer(k, 15), "your/app:1", b.one)
			b.push(b.signer(k, 10), "app:1", b.two)
			m := newMemory(t)
			b.accepted(b.verifier(m, k), "app:1", k)
			c.attack(b)
			b.refused(b.verifier(m, k), "app:1", c.words...)
			if fresh := b.verifier(newMemory(t), k); strings.Contains(what, "put back") {
				b.accepted(fresh, "app:1", k) // who remembers nothing notices nothing: docs/format.md says so
			} else {
				b.refused(fresh, "app:1", c.words...)
			}
			b.accepted(b.verifier(m, k), "app:2", k)
			b.push(b.signer(k, 30), "app:1", b.two)
			b.accepted(b.verifier(m, k), "app:1", k)
		})
	}
}

// b12 is how messages name the image of a bed.
func b12(t *testing.T, name string) string {
	return remotetest.NewImage(t, name, remotetest.FileLayer(t, name, name)).ID.Short()
}

// TestEveryBitOfTheTag: whatever a tag is changed to, it is not accepted.
func TestEveryBitOfTheTag(t *testing.T) {
	b := newBed(t)
	k := newKey(t)
	b.push(b.signer(k, 0), "app:1", b.one)
	v := b.verifier(newMemory(t), k)
	good := b.get(tagKey("app", "1"))
	for i := range good {
		for bit := range 8 {
			changed := bytes.Clone(good)
			changed[i] ^= 1 << bit
			b.put(tagKey("app", "1"), changed)
			if by, err := b.verify(v, "app:1"); !fault.Is(err, fault.Refused) && !fault.Is(err, fault.Damaged) || by != "" {
				t.Errorf("%q: signed by %q, %v", changed, by, err)
			}
		}
	}
	b.put(tagKey("app", "1"), good)
	b.accepted(v, "app:1", k)
}

// TestSeveralKeys: any of them suffices, and what is wrong with another does no harm.
func TestSeveralKeys(t *testing.T) {
	b := newBed(t)
	old, new, third := newKey(t), newKey(t), newKey(t)
	b.push(b.signer(old, 0), "app:1", b.one)
	m := newMemory(t)
	b.accepted(b.verifier(m, old), "app:1", old)
	b.refused(b.verifier(m, new, third), "app:1", "any of the keys "+string(new.ID())+", "+string(third.ID()), "by other keys: "+string(old.ID()))
	b.push(b.signer(new, 5), "app:1", b.one)
	for _, keys := range [][]signature.PrivateKey{{old, new}, {new, old}, {new}, {third, new}} {
		b.accepted(b.verifier(newMemory(t), keys...), "app:1", new) // the newest counts
	}
	b.accepted(b.verifier(newMemory(t), old, third), "app:1", old)
	b.put(signatureKey("app", "1", b.one.ID, new), []byte("much damage"))
	b.accepted(b.verifier(newMemory(t), new, old), "app:1", old)
	b.refused(b.verifier(newMemory(t), new, third), "app:1", "not valid")
}

// TestRollbackAcrossKeys: an old signature by one key does not come back behind a
// newer one by another.
func TestRollbackAcrossKeys(t *testing.T) {
	b := newBed(t)
	old, new := newKey(t), newKey(t)
	m := newMemory(t)
	b.push(b.signer(old, 0), "app:1", b.one)
	b.accepted(b.verifier(m, old), "app:1", old)
	b.push(b.signer(new, 10), "app:1", b.two)
	b.accepted(b.verifier(m, old, new), "app:1", new)
	b.put(tagKey("app", "1"), []byte(b.one.ID.Hex()))
	b.refused(b.verifier(m, old, new), "app:1", "rolled back")
}

// TestMemoryIsOfOneTagAndRemote: what was accepted of one says nothing about another.
func TestMemoryIsOfOneTagAndRemote(t *testing.T) {
	b := newBed(t)
	k := newKey(t)
	b.push(b.signer(k, 100), "app:1", b.two)
	b.push(b.signer(k, 0), "app:2", b.one)
	m := newMemory(t)
	b.accepted(b.verifier(m, k), "app:1", k)
	b.accepted(b.verifier(m, k), "app:2", k)
	behind := newBed(t) // a mirror
	behind.push(behind.signer(k, 50), "app:1", b.one)
	other := m
	other.Remote = "the mirror"
	behind.accepted(behind.verifier(other, k), "app:1", k)
	behind.refused(behind.verifier(m, k), "app:1", "rolled back")
}

func TestAllowRollback(t *testing.T) {
	b := newBed(t)
	k := newKey(t)
	b.push(b.signer(k, 0), "app:1", b.one)
	b.push(b.signer(k, 10), "app:1", b.two)
	m := newMemory(t)
	b.accepted(b.verifier(m, k), "app:1", k)
	b.put(tagKey("app", "1"), []byte(b.one.ID.Hex()))

	v := b.verifier(m, k)
	v.DryRun, v.AllowRollback = true, true
	b.accepted(v, "app:1", k)
	b.refused(b.verifier(m, k), "app:1", "rolled back") // nothing was forgotten

	v = b.verifier(m, k)
	v.AllowRollback = true
	b.accepted(v, "app:1", k)
	b.accepted(b.verifier(m, k), "app:1", k) // from there on
	b.put(tagKey("app", "1"), []byte(b.two.ID.Hex()))
	b.accepted(b.verifier(m, k), "app:1", k)
	b.put(tagKey("app", "1"), []byte(b.one.ID.Hex()))
	b.refused(b.verifier(m, k), "app:1", "rolled back")

	b.push(nil, "app:1", remotetest.NewImage(t, "three", remotetest.FileLayer(t, "three", "three")))
	b.refused(v, "app:1", "not signed") // it allows nothing else
}

// TestDryRunRemembersNothing, and tells what a pull would.
func TestDryRunRemembersNothing(t *testing.T) {
	b := newBed(t)
	k := newKey(t)
	b.push(b.signer(k, 10), "app:1", b.two)
	m := newMemory(t)
	v := b.verifier(m, k)
	v.DryRun = true
	b.accepted(v, "app:1", k)
	if files := filesIn(t, m.Dir); len(files) > 0 {
		t.Errorf("a dry run left %q", files)
	}
	b.accepted(b.verifier(m, k), "app:1", k)
	b.push(nil, "app:1", b.one)
	b.put(signatureKey("app", "1", b.one.ID, k), signed(t, k, "app:1", b.one.ID, 0))
	b.refused(v, "app:1", "rolled back")
}

func signed(t *testing.T, k signature.PrivateKey, ref string, id image.ID, seconds int) []byte {
	t.Helper()
	content, err := k.Sign(signature.Statement{Tag: remotetest.Ref(t, ref), Image: id, Time: (&bed{T: t}).signer(k, seconds).now()})
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestMovedWhileRead: another pull has accepted the newer tag after this one had
// read the old one. That is no roll-back.
func TestMovedWhileRead(t *testing.T) {
	b := newBed(t)
	k := newKey(t)
	b.push(b.signer(k, 0), "app:1", b.one)
	ref := remotetest.Ref(t, "app:1")
	read, err := b.repo.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	b.push(b.signer(k, 10), "app:1", b.two)
	m := newMemory(t)
	b.accepted(b.verifier(m, k), "app:1", k)
	_, err = b.verifier(m, k).Verify(t.Context(), ref, read)
	if fault.KindOf(err) != fault.Other || !strings.Contains(err.Error(), "moved while") || fault.AdviceOf(err) == "" {
		t.Errorf("error %v, advice %q", err, fault.AdviceOf(err))
	}
	if by, err := b.verifier(newMemory(t), k).Verify(t.Context(), ref, read); err != nil || by == "" {
		t.Errorf("the old signature is gone when its tag has moved: %v", err)
	}
}

// TestRequestsAreBounded: however many signatures lie there, a reader asks for one
// a key, by name; only a refusal looks what there is.
func TestRequestsAreBounded(t *testing.T) {
	b := newBed(t)
	k, other := newKey(t), newKey(t)
	b.push(b.signer(k, 0), "app:1", b.one)
	b.push(b.signer(k, 0), "app:2", b.one)
	for i := range 3000 {
		b.put(fmt.Sprintf("signatures/app/1@%s.%016x", b.one.ID.Hex(), i), []byte("much junk"))
		b.put(fmt.Sprintf("signatures/app/1@%064x.%s", i, k.ID()), []byte("much junk"))
		b.put(fmt.Sprintf("signatures/app/2@%s.%016x", b.one.ID.Hex(), i), []byte("much junk"))
	}
	c := &counted{Store: b.store}
	v := &Verifier{From: repoOn(t, c), Name: "the-remote", Memory: newMemory(t), Keys: []signature.PublicKey{other.PublicKey, k.PublicKey}}
	c.gets = nil
	b.accepted(v, "app:1", k)
	if want := []string{
		tagKey("app", "1"), signatureKey("app", "1", b.one.ID, other), signatureKey("app", "1", b.one.ID, k),
	}; !slices.Equal(c.gets, want) || c.lists > 0 {
		t.Errorf("asked for %q, %d lists", c.gets, c.lists)
	}
	v.Keys = v.Keys[:1]
	_, err := b.verify(v, "app:2")
	if advice := fault.AdviceOf(err); c.lists != 1 || !strings.Contains(advice, "by other keys: ") || len(advice) > 500 {
		t.Errorf("%d lists, advice %q", c.lists, advice)
	}
}

// TestRemoteThatFails: what cannot be read is neither signed nor unsigned.
func TestRemoteThatFails(t *testing.T) {
	b := newBed(t)
	k := newKey(t)
	b.push(b.signer(k, 0), "app:1", b.one)
	v := b.verifier(newMemory(t), k)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if by, err := v.Verify(ctx, remotetest.Ref(t, "app:1"), b.one.ID); !fault.Interrupted(err) || by != "" {
		t.Errorf("cancelled: signed by %q, %v", by, err)
	}
	v.From = repoOn(t, &denied{b.store})
	if by, err := b.verify(v, "app:1"); !fault.Is(err, fault.Refused) || by != "" || strings.Contains(err.Error(), "not signed") {
		t.Errorf("no permission: signed by %q, %v", by, err)
	}
}

// denied is a store whose signatures may not be read.
type denied struct{ storage.Store }

func (d *denied) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if strings.HasPrefix(key, "signatures/") {
		return nil, fmt.Errorf("%s: %w", key, storage.ErrPermission)
	}
	return d.Store.Get(ctx, key, offset, length)
}
