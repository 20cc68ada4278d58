package trust

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/signature"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

// time returns the time of the signature of what a tag names.
func (b *bed) time(k signature.PrivateKey, tag string, id image.ID) time.Time {
	b.Helper()
	s, err := signature.Parse(b.get(signatureKey("app", tag, id, k)))
	if err != nil {
		b.Fatal(err)
	}
	return s.Time
}

// TestClockPutBack: the next signature of a tag is later than the last one,
// whatever the clock says, and so is that of an old image that is pushed again.
func TestClockPutBack(t *testing.T) {
	b := newBed(t)
	k := newKey(t)
	m := newMemory(t)
	last := time.Time{}
	for i, step := range []struct {
		clock int
		img   remotetest.Image
	}{{1000, b.one}, {900, b.two}, {0, b.one}, {0, b.one}, {1000, b.two}, {1001, b.one}, {1001, b.one}} {
		b.push(b.signer(k, step.clock), "app:1", step.img)
		got := b.time(k, "1", step.img.ID)
		if !got.After(last) {
			t.Errorf("step %d: signed %s, before it %s", i, got, last)
		}
		if clock := b.signer(k, step.clock).now(); clock.After(last) && !got.Equal(clock) {
			t.Errorf("step %d: signed %s, the clock says %s", i, got, clock)
		}
		last = got
		b.accepted(b.verifier(m, k), "app:1", k)
	}
}

// TestForeignTimesDoNotCount: nobody without the key decides when it signs.
func TestForeignTimesDoNotCount(t *testing.T) {
	k, wrong := newKey(t), newKey(t)
	for what, content := range map[string]func(b *bed) []byte{
		"another key's": func(b *bed) []byte { return signed(t, wrong, "app:1", b.one.ID, 1e6) },
		"a forged one": func(b *bed) []byte {
			return bytes.ReplaceAll(signed(t, wrong, "app:1", b.one.ID, 1e6), []byte(wrong.ID()), []byte(k.ID()))
		},
		"another tag's": func(b *bed) []byte { return signed(t, k, "app:2", b.one.ID, 1e6) },
		"junk":          func(*bed) []byte { return []byte("much junk") },
		"huge junk":     func(*bed) []byte { return make([]byte, 9<<20) },
	} {
		b := newBed(t)
		b.push(nil, "app:1", b.one)
		b.put(signatureKey("app", "1", b.one.ID, k), content(b))
		b.push(b.signer(k, 5), "app:1", b.two)
		if got, want := b.time(k, "1", b.two.ID), start.Add(5*time.Second); !got.Equal(want) {
			t.Errorf("%s: signed %s, want %s", what, got, want)
		}
	}
}

// TestSignFails: what cannot be read or written is told, and the tag not signed.
func TestSignFails(t *testing.T) {
	b := newBed(t)
	k := newKey(t)
	b.push(b.signer(k, 0), "app:1", b.one)
	s := b.signer(k, 5)
	s.To = repoOn(t, &denied{b.store})
	if _, err := s.Sign(t.Context(), remotetest.Ref(t, "app:1"), b.two.ID); !fault.Is(err, fault.Refused) {
		t.Errorf("no permission: %v", err)
	}
	ref := remotetest.Ref(t, "app@"+b.one.ID.String())
	if _, err := b.signer(k, 5).Sign(t.Context(), ref, b.one.ID); err == nil {
		t.Errorf("a digest: %v", err)
	}
	end := time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC)
	last, err := k.Sign(signature.Statement{Tag: remotetest.Ref(t, "app:1"), Image: b.one.ID, Time: end})
	if err != nil {
		t.Fatal(err)
	}
	b.put(signatureKey("app", "1", b.one.ID, k), last)
	if _, err := b.signer(k, 5).Sign(t.Context(), remotetest.Ref(t, "app:1"), b.two.ID); err == nil {
		t.Error("signed after the end of time")
	}
}

// TestNoWindow kills each operation of a push that signs and moves a signed tag.
// Whatever dies, what the tag names is signed, also for a reader that has seen the old one; a
// rerun completes.
func TestNoWindow(t *testing.T) {
	k := newKey(t)
	prepare := func(inner storage.Store) *bed {
		b := newBed(t)
		b.store, b.repo = inner, repoOn(t, inner)
		b.push(b.signer(k, 0), "app:1", b.one)
		b.push(nil, "other:1", b.two) // its layers are there
		return b
	}
	directory := t.TempDir()
	_ = prepare(openDir(t, directory))
	for kind, bedOf := range map[string]func() (*bed, storagetest.Inner){
		"mem": func() (*bed, storagetest.Inner) {
			inner := mem.New()
			return prepare(inner), inner
		},
		"file": func() (*bed, storagetest.Inner) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(directory)); err != nil {
				t.Fatal(err)
			}
			inner, b := openDir(t, dir), newBed(t)
			b.store, b.repo = inner, repoOn(t, inner)
			return b, inner
		},
	} {
		modes := storagetest.Modes
		if kind == "file" { // which waits for its disk
			modes = []storagetest.Mode{storagetest.Dead}
		}
		killed, moved := 0, 0
		for _, mode := range modes {
			for n, ended := 1, false; !ended; n++ {
				b, inner := bedOf()
				m := newMemory(t)
				b.accepted(b.verifier(m, k), "app:1", k)

				faulty := storagetest.NewFaulty(inner)
				dying := &bed{T: t, store: faulty, repo: repoOn(t, faulty)}
				before := faulty.Ops()
				faulty.FailAt(before+n, mode)
				ref := remotetest.Ref(t, "app:1")
				_, err := dying.signer(k, 10).Sign(t.Context(), ref, b.two.ID)
				if err == nil {
					err = dying.repo.Tag(t.Context(), ref, b.two.ID)
				}
				if err != nil && !errors.Is(err, storagetest.ErrInjected) {
					t.Fatal(err)
				}
				if ended = faulty.Ops() < before+n; !ended {
					killed++
				}
				b.accepted(b.verifier(m, k), "app:1", k)
				b.accepted(b.verifier(newMemory(t), k), "app:1", k)
				if string(b.get(tagKey("app", "1"))) == b.two.ID.Hex() {
					moved++
				}
				b.push(b.signer(k, 20), "app:1", b.two)
				b.accepted(b.verifier(m, k), "app:1", k)
			}
		}
		t.Logf("%s: %d operations killed, the tag had moved %d times", kind, killed, moved)
		if n := len(modes); killed < 10*n || moved < 2*n || moved > killed-2*n {
			t.Errorf("%s: only %d operations were killed, and the tag had moved %d times", kind, killed, moved)
		}
	}
}

func openDir(t *testing.T, dir string) *file.Store {
	t.Helper()
	s, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
