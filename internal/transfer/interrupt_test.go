package transfer

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
)

// tripwire is a store that calls trip, once, at its operation N, or when it has passed on N bytes.
type tripwire struct {
	storage.Store
	trip  func()
	ops   atomic.Int64 // left; negative for none
	bytes atomic.Int64 // left; negative for none
	once  sync.Once
}

func (w *tripwire) op() {
	if w.ops.Add(-1) == 0 {
		w.once.Do(w.trip)
	}
}

func (w *tripwire) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	w.op()
	r, err := w.Store.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{&tripReader{r, w}, r}, nil
}

func (w *tripwire) Put(ctx context.Context, key string, body io.Reader) error {
	w.op()
	return w.Store.Put(ctx, key, &tripReader{body, w})
}

func (w *tripwire) Stat(ctx context.Context, key string) (storage.Info, error) {
	w.op()
	return w.Store.Stat(ctx, key)
}

func (w *tripwire) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	w.op()
	return w.Store.List(ctx, prefix)
}

type tripReader struct {
	r io.Reader
	w *tripwire
}

func (r *tripReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if left := r.w.bytes.Add(-int64(n)); left <= 0 && left+int64(n) > 0 {
		r.w.once.Do(r.w.trip)
	}
	return n, err
}

// wired opens a directory through a tripwire; ops and bytes are 0 for none.
func wired(t testing.TB, dir string, trip func(), ops, bytes int64) *repo.Repo {
	t.Helper()
	store, err := file.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	w := &tripwire{Store: store, trip: trip}
	r := remoteOn(t, w, codec.LZ4)
	w.ops.Store(ops)
	w.bytes.Store(bytes)
	return r
}

// heavy is an image that does not fit into the buffers on its way.
func heavy(tag string) *enginetest.Image {
	m := enginetest.BigImage(2, 10<<20)
	return m.Tag("much:" + tag)
}

// TestPushInterrupted ends the context at each operation of the store, and within the layers: a push that was interrupted
// says so, leaves no temporary file and no tag, and a rerun completes.
func TestPushInterrupted(t *testing.T) {
	small, large := layered("1", "a", "b"), heavy("1")
	smallClient, largeClient := newClassic(small).connect(t), newClassic(large).connect(t)
	try := func(m *enginetest.Image, client Exporter, ops, bytes int64) (ended bool) {
		t.Helper()
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		tripped := false
		r := wired(t, dir, func() { tripped = true; cancel() }, ops, bytes)
		leaks := goleak.IgnoreCurrent()
		start := time.Now()
		_, err := Push(ctx, client, r, pushes(t, "much:1"), Options{Parallel: 1})
		if late := time.Since(start); late > 20*time.Second {
			t.Errorf("operation %d, byte %d: took %v", ops, bytes, late)
		}
		if leak := remotetest.Leaks(leaks, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
			goleak.IgnoreAnyFunction("net/http.(*conn).serve"), goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead")); leak != nil {
			t.Errorf("operation %d, byte %d: %v", ops, bytes, leak)
		}
		noTemporary(t, dir)
		fresh := remoteIn(t, dir)
		if !tripped {
			if err != nil {
				t.Errorf("not interrupted: %v", err)
			}
			return true
		}
		if tags := tagsOf(t, fresh); len(tags) > 0 {
			checkWhole(t, fresh, "much:1", m) // cancelled at the very end
		} else if err == nil {
			t.Errorf("operation %d, byte %d: no error, and no tag", ops, bytes)
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("operation %d, byte %d: error %v", ops, bytes, err)
		}
		mustPush(t, client, fresh, "much:1")
		checkWhole(t, fresh, "much:1", m)
		return false
	}
	n := int64(1)
	for ; !try(small, smallClient, n, 0); n++ {
		if t.Failed() {
			return
		}
	}
	if n < 20 {
		t.Errorf("only %d operations were tried", n)
	}
	for _, bytes := range []int64{1, 1 << 20, 4 << 20, 8 << 20} {
		try(large, largeClient, 0, bytes)
	}
}

func TestPullInterrupted(t *testing.T) {
	small, large := layered("1", "a", "b"), heavy("1")
	smallDir, largeDir := t.TempDir(), t.TempDir()
	mustPush(t, newClassic(small).connect(t), remoteIn(t, smallDir), "much:1")
	mustPush(t, newClassic(large).connect(t), remoteIn(t, largeDir), "much:1")
	try := func(m *enginetest.Image, dir string, ops, bytes int64) (ended bool) {
		t.Helper()
		e := newClassic()
		client := e.connect(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		tripped := false
		r := wired(t, dir, func() { tripped = true; cancel() }, ops, bytes)
		_, err := Pull(ctx, r, client, pulls(t, "much:1"), Options{Parallel: 1})
		ended = !tripped
		if ended != (err == nil) && !(err == nil && slices.Equal(e.names(), []string{"much:1 " + m.ID()[7:19]})) {
			t.Errorf("operation %d, byte %d: error %v", ops, bytes, err)
		}
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("operation %d, byte %d: error %v", ops, bytes, err)
			}
			if names := e.names(); len(names) > 0 && !slices.Equal(names, []string{"<none> " + m.ID()[7:19]}) {
				t.Errorf("operation %d, byte %d: the engine has %q", ops, bytes, names)
			}
			mustPull(t, remoteIn(t, dir), client, "much:1")
		}
		return ended
	}
	n := int64(1)
	for ; !try(small, smallDir, n, 0); n++ {
		if t.Failed() {
			return
		}
	}
	if n < 5 {
		t.Errorf("only %d operations were tried", n)
	}
	for _, bytes := range []int64{1 << 10, 1 << 20, 4 << 20, 8 << 20} {
		try(large, largeDir, 0, bytes)
	}
}

// TestInterruptedAtRandomTimes is the same by the clock, several layers at once.
func TestInterruptedAtRandomTimes(t *testing.T) {
	m := heavy("1")
	e := newClassic(m)
	client := e.connect(t)
	start := time.Now()
	mustPush(t, client, remoteIn(t, t.TempDir()), "much:1")
	whole := time.Since(start)
	interrupted := 0
	for i := range 10 {
		dir := t.TempDir()
		ctx, cancel := context.WithTimeout(t.Context(), whole*time.Duration(i)/10)
		_, err := Push(ctx, client, remoteIn(t, dir), pushes(t, "much:1"), Options{})
		if err != nil {
			interrupted++
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("push: %v", err)
			}
		}
		cancel()
		noTemporary(t, dir)
		r := remoteIn(t, dir)
		mustPush(t, client, r, "much:1")

		to := newClassic()
		toClient := to.connect(t)
		ctx, cancel = context.WithTimeout(t.Context(), whole*time.Duration(i)/10)
		_, err = Pull(ctx, r, toClient, pulls(t, "much:1"), Options{})
		if err != nil {
			interrupted++
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("pull: %v", err)
			}
			for _, name := range to.names() {
				if name != "<none> "+m.ID()[7:19] {
					t.Errorf("the engine has %q", name)
				}
			}
		}
		cancel()
		mustPull(t, r, toClient, "much:1")
	}
	if interrupted < 2 {
		t.Errorf("only %d were interrupted", interrupted)
	}
}

// TestCancelledBefore: nothing is even asked.
func TestCancelledBefore(t *testing.T) {
	m := layered("1", "a")
	r := stocked(t, m)
	e := newClassic(m)
	client := e.connect(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Push(ctx, client, r, pushes(t, "much:1"), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("push: %v", err)
	}
	if _, err := Pull(ctx, r, client, pulls(t, "much:1"), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("pull: %v", err)
	}
	if _, err := client.Has(t.Context(), image.ID{}); err != nil {
		t.Errorf("the client is of no use any more: %v", err)
	}
}
