package verify_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/verify"
)

// TestInterrupt stops it at every step that reads something.
func TestInterrupt(t *testing.T) {
	w := newWorld(t)
	plain := fileOf(w.two.DiffIDs()[1], "layer.tar")
	put(t, w.store, plain, []byte("damaged"))
	stopped := 0
	for n := 1; ; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		counting := &gets{Store: w.store, at: n, do: func() error { cancel(); return nil }}
		_, err := verify.Run(ctx, open(t, counting, 0), verify.Options{Parallel: 2})
		ended := ctx.Err() != nil
		cancel()
		if !ended {
			break
		}
		if stopped++; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at Get %d: %v", n, err)
		}
	}
	if stopped < 30 {
		t.Errorf("only %d steps", stopped)
	}
}

// gets is a store that does something at one of its Gets, or at all of a key.
type gets struct {
	storage.Store
	n   atomic.Int64
	at  int // 0: all
	key string
	do  func() error
}

func (g *gets) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if n := g.n.Add(1); (g.at == 0 || n == int64(g.at)) && strings.Contains(key, g.key) {
		if err := g.do(); err != nil {
			return nil, err
		}
	}
	return g.Store.Get(ctx, key, offset, length)
}

// TestUnreadable is about errors that are no damage: one is told, and hides
// nothing; where nothing can be read that is the end.
func TestUnreadable(t *testing.T) {
	w := newWorld(t)
	put(t, w.store, fileOf(w.blobs[0].Digest, "blob"), []byte("damaged"))
	broken := errors.New("input/output error")
	shared := w.one.DiffIDs()[0]
	for key, want := range map[string]string{
		fileOf(shared, "layer.tar.lz4"): "unreadable " + fileOf(shared, "layer.tar.lz4") + " [app:1 app:2 blobs:1]",
		fileOf(shared, "json"):          "unreadable " + fileOf(shared, "json") + " [app:1 app:2 blobs:1]",
		fileOf(w.two.ID, "json"):        "unreadable " + fileOf(w.two.ID, "json") + " [app:2]",
		"repositories/app/2":            "unreadable app:2 [app:2]",
	} {
		store := &gets{Store: w.store, key: key, do: func() error { return broken }}
		report, err := verify.Run(t.Context(), open(t, store, 0), verify.Options{})
		if err != nil {
			t.Errorf("%s cannot be read: %v", key, err)
			continue
		}
		expect(t, key, report, want, "truncated "+fileOf(w.blobs[0].Digest, "blob")+" [blobs:1]")
	}
	for i := range 40 {
		w.tag(t, fmt.Sprintf("many:%d", i), w.one.ID)
	}
	report, err := verify.Run(t.Context(), open(t, &gets{Store: w.store, key: "many", do: func() error { return broken }}, 0), verify.Options{})
	if !errors.Is(err, broken) || report == nil {
		t.Errorf("a remote that is gone: %v", err)
	}
}

// TestTagGone is about an image that is removed while it is verified.
func TestTagGone(t *testing.T) {
	w := newWorld(t)
	store := &gets{Store: w.store, key: fileOf(w.two.ID, "json"), do: func() error {
		remove(t, w.store, "repositories/app/2")
		remove(t, w.store, fileOf(w.two.ID, "json"))
		return nil
	}}
	report, err := verify.Run(t.Context(), open(t, store, 0), verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "an image that was removed meanwhile", report)
}
