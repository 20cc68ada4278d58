package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/storagetest"
)

// TestCopyTakesOver: an image that fails while it moves a layer which another one
// waits for does not take that with it.
func TestCopyTakesOver(t *testing.T) {
	from := newStock(t)
	shared := remotetest.FileLayer(t, "shared", "shared")
	broken := remotetest.FileLayer(t, "broken", "broken")
	from.push(t, from, "a:1", remotetest.NewImage(t, "a", shared, broken))
	from.push(t, from, "b:1", remotetest.NewImage(t, "b", shared))
	key := "images/" + image.DigestOf(broken).Hex() + "/layer.tar.lz4"
	write(t, from.store, key, flipped(content(t, from.store, key), 20))
	source := &holding{
		Store: from.store, held: make(chan struct{}),
		key: "images/" + image.DigestOf(shared).Hex() + "/layer.tar.lz4", later: []string{"images/" + from.classic["b:1"].ID.Hex() + "/json", key},
	}
	to := remoteOn(t, mem.New(), codec.LZ4)
	done, err := copyAll(t, remoteOn(t, source, codec.LZ4), to, CopyOptions{Repositories: []string{"a", "b"}})
	if !fault.Is(err, fault.Partial) || len(done.Failed) != 1 || done.Failed[0].Image.String() != "a:1" {
		t.Errorf("%v, %+v", err, done.Failed)
	}
	if got, err := remotetest.Pull(t.Context(), to, reference(t, "b:1")); err != nil || from.classic["b:1"].Diff(got) != "" {
		t.Errorf("b:1: %v", err)
	}
}

// holding is a store in which the first reading of an object lasts until its
// context ends, and those of others until the first has begun.
type holding struct {
	storage.Store
	key   string
	later []string

	once sync.Once
	held chan struct{}
}

func (h *holding) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	switch {
	case slices.Contains(h.later, key):
		select {
		case <-h.held:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	case key == h.key:
		first := false
		h.once.Do(func() { close(h.held); first = true })
		if first {
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}
	return h.Store.Get(ctx, key, offset, length)
}

// TestCopyMoved: a tag that moves while it is copied gives the old image or the
// new one, also where the old one goes away.
func TestCopyMoved(t *testing.T) {
	from := newStock(t)
	to := mem.New()
	new := from.classic["app:2"]
	source := &movingSource{stock: from, after: func() {
		if err := from.Tag(t.Context(), reference(t, "app:1"), new.ID); err != nil {
			t.Error(err)
		}
		own := from.classic["app:1"].DiffIDs()[1]
		if err := from.store.Delete(t.Context(), "images/"+own.Hex()+"/json"); err != nil {
			t.Error(err)
		}
	}}
	done, err := Copy(t.Context(), source, remoteOn(t, to, codec.LZ4), copies(t, "app:1"), CopyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if done.Images[0].ID != new.ID {
		t.Errorf("copied %s, want %s", done.Images[0].ID, new.ID)
	}
	got, err := remotetest.Pull(t.Context(), remoteOn(t, to, codec.LZ4), reference(t, "app:1"))
	if err != nil || new.Diff(got) != "" {
		t.Errorf("%v, %s", err, new.Diff(got))
	}
}

// movingSource lets something happen once after documents were read.
type movingSource struct {
	*stock
	once  sync.Once
	after func()
}

func (m *movingSource) Look(ctx context.Context, c remote.Closure, known map[image.Digest]remote.Layer) (*remote.Found, error) {
	m.once.Do(m.after)
	return m.stock.Look(ctx, c, known)
}

// TestCopyReplaced: a layer that another pusher replaces while it is read is read again.
func TestCopyReplaced(t *testing.T) {
	from := newStock(t)
	source := &replacing{Store: from.store, left: 2}
	to := mem.New()
	if _, err := copyAll(t, remoteOn(t, source, codec.LZ4), remoteOn(t, to, codec.LZ4), CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	if source.left != 0 {
		t.Errorf("%d of the replacements did not happen", source.left)
	}
	sameObjects(t, objects(t, from.store), objects(t, to))
	endless := &replacing{Store: from.store, left: 1 << 20}
	if _, err := Copy(t.Context(), remoteOn(t, endless, codec.LZ4), remoteOn(t, mem.New(), codec.LZ4), copies(t, "app:1"), CopyOptions{}); !errors.Is(err, remote.ErrReplaced) {
		t.Errorf("replaced for ever: %v", err)
	}
}

// replacing is a store whose layers are replaced while they are read, some times.
type replacing struct {
	storage.Store
	mu   sync.Mutex
	left int
}

func (r *replacing) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	body, err := r.Store.Get(ctx, key, offset, length)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || len(layerKeys([]string{key})) == 0 || r.left == 0 {
		return body, err
	}
	r.left--
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(body, 10), failing{fmt.Errorf("%s: %w", key, storage.ErrChanged)}), body}, nil
}

// TestCopySignatures: the signatures of an image come before its tag, and under another name not at all.
func TestCopySignatures(t *testing.T) {
	from, to := remoteOn(t, mem.New(), codec.LZ4), storagetest.NewFaulty(mem.New())
	img := remotetest.NewImage(t, "app", remotetest.FileLayer(t, "base", "base"))
	ref := reference(t, "app:1")
	if _, err := remotetest.Push(t.Context(), from, ref, img); err != nil {
		t.Fatal(err)
	}
	const key = "0123456789abcdef"
	if err := from.PutSignature(t.Context(), ref, img.ID, key, []byte("signed")); err != nil {
		t.Fatal(err)
	}
	other := reference(t, "app:2")
	if _, err := Copy(t.Context(), from, remoteOn(t, to, codec.LZ4), []CopyImage{{Source: ref, Target: ref}, {Source: ref, Target: other}}, CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	signature, tag := -1, -1
	for i, line := range to.Log() {
		switch {
		case strings.Contains(line, "put signatures/app/1@"):
			signature = i
		case strings.Contains(line, "put signatures/"):
			t.Errorf("under another name: %s", line)
		case strings.Contains(line, "put repositories/app/1"):
			tag = i
		}
	}
	if signature < 0 || signature > tag {
		t.Errorf("the signature is written as operation %d, the tag as %d:\n%s", signature, tag, strings.Join(to.Log(), "\n"))
	}
	if got, err := remoteOn(t, to, codec.LZ4).Signature(t.Context(), ref, img.ID, key); err != nil || string(got) != "signed" {
		t.Errorf("%q, error %v", got, err)
	}
}
