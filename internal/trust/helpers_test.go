package trust

import (
	"bytes"
	"context"
	"io"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/signature"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

var start = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// bed is a remote, and what its attackers have: the store.
type bed struct {
	*testing.T
	store storage.Store
	repo  *repo.Repo
	one   remotetest.Image
	two   remotetest.Image
}

func newBed(t *testing.T) *bed {
	s := mem.New()
	return &bed{
		T: t, store: s, repo: repoOn(t, s),
		one: remotetest.NewImage(t, "one", remotetest.FileLayer(t, "one", "one")),
		two: remotetest.NewImage(t, "two", remotetest.FileLayer(t, "two", "two")),
	}
}

func repoOn(t testing.TB, s storage.Store) *repo.Repo {
	t.Helper()
	r, err := repo.Open(context.Background(), s, repo.Options{Name: "the-remote", Codec: codec.None})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newKey(t testing.TB) signature.PrivateKey {
	t.Helper()
	k, err := signature.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newMemory(t testing.TB) Memory { return Memory{Dir: t.TempDir() + "/tags", Remote: "the remote"} }

// signer has a clock that shows so many seconds.
func (b *bed) signer(k signature.PrivateKey, seconds int) *Signer {
	return &Signer{Key: k, To: b.repo, now: func() time.Time { return start.Add(time.Duration(seconds) * time.Second) }}
}

// push is a push that signs, where s is not nil: the signature first.
func (b *bed) push(s *Signer, ref string, img remotetest.Image) {
	b.Helper()
	if s != nil {
		if _, err := s.Sign(b.Context(), remotetest.Ref(b, ref), img.ID); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := remotetest.Push(b.Context(), b.repo, remotetest.Ref(b, ref), img); err != nil {
		b.Fatal(err)
	}
}

func (b *bed) verifier(m Memory, keys ...signature.PrivateKey) *Verifier {
	v := &Verifier{From: b.repo, Name: "the-remote", Memory: m}
	for _, k := range keys {
		v.Keys = append(v.Keys, k.PublicKey)
	}
	return v
}

// verify is what a pull does: the tag, then what it names.
func (b *bed) verify(v *Verifier, ref string) (string, error) {
	b.Helper()
	r := remotetest.Ref(b, ref)
	id, err := v.From.Resolve(b.Context(), r)
	if err != nil {
		return "", err
	}
	return v.Verify(b.Context(), r, id)
}

// accepted fails the test unless ref verifies by that key.
func (b *bed) accepted(v *Verifier, ref string, by signature.PrivateKey) {
	b.Helper()
	if got, err := b.verify(v, ref); err != nil || got != string(by.ID()) {
		b.Errorf("%s: signed by %q, %v, want %s", ref, got, err, by.ID())
	}
}

// refused fails the test unless ref is refused with all of these words, and advice.
func (b *bed) refused(v *Verifier, ref string, words ...string) {
	b.Helper()
	got, err := b.verify(v, ref)
	if fault.KindOf(err) != fault.Refused || got != "" || fault.AdviceOf(err) == "" || strings.Contains(err.Error(), "\n") {
		b.Errorf("%s: signed by %q, error %v, advice %q", ref, got, err, fault.AdviceOf(err))
		return
	}
	for _, w := range append(words, ref, "the-remote") {
		if !strings.Contains(err.Error()+"\n"+fault.AdviceOf(err), w) {
			b.Errorf("%s: %v\n%s\nhas no %q", ref, err, fault.AdviceOf(err), w)
		}
	}
}

func (b *bed) get(key string) []byte {
	b.Helper()
	r, err := b.store.Get(b.Context(), key, 0, -1)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		b.Fatal(err)
	}
	return content
}

func (b *bed) put(key string, content []byte) {
	b.Helper()
	if err := b.store.Put(b.Context(), key, bytes.NewReader(content)); err != nil {
		b.Fatal(err)
	}
}

// tagKey and signatureKey are where docs/format.md says that they lie.
func tagKey(repository, tag string) string { return "repositories/" + repository + "/" + tag }

func signatureKey(repository, tag string, id image.ID, k signature.PrivateKey) string {
	return "signatures/" + repository + "/" + tag + "@" + id.Hex() + "." + string(k.ID())
}

// counted is a store that counts what readers ask of it.
type counted struct {
	storage.Store
	mu    sync.Mutex
	gets  []string
	lists int
}

func (c *counted) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	c.mu.Lock()
	c.gets = append(c.gets, key)
	c.mu.Unlock()
	return c.Store.Get(ctx, key, offset, length)
}

func (c *counted) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	c.mu.Lock()
	c.lists++
	c.mu.Unlock()
	return c.Store.List(ctx, prefix)
}
