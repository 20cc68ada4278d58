package readthrough_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
)

const layerSize = 100_000

// manyLayers are layers of layerSize that p has.
func manyLayers(t *testing.T, p *probe, n int) [][]byte {
	t.Helper()
	tars := make([][]byte, n)
	for i := range tars {
		tars[i] = remotetest.Noise(fmt.Sprint("layer ", i), layerSize)
		if _, err := p.PutLayer(t.Context(), image.Descriptor{Digest: image.DigestOf(tars[i]), Size: layerSize}, bytes.NewReader(tars[i])); err != nil {
			t.Fatal(err)
		}
	}
	return tars
}

// readsLater is reads, such that the entry is younger than all others.
func readsLater(t *testing.T, dir string, from remote.Source, tar []byte) {
	t.Helper()
	reads(t, from, tar)
	s := directory(t, dir)
	key := "images/" + image.DigestOf(tar).Hex() + "/json"
	youngest := func() (all time.Time, own time.Time) {
		for info, err := range s.List(t.Context(), "images/") {
			switch {
			case err != nil:
				t.Fatal(err)
			case info.Key == key:
				own = info.Modified
			case info.Modified.After(all) && !strings.HasPrefix(info.Key, strings.TrimSuffix(key, "json")):
				all = info.Modified
			}
		}
		return all, own
	}
	for { // the clocks of file systems tick in milliseconds
		if all, own := youngest(); own.After(all) {
			return
		}
		reads(t, from, tar)
	}
}

func isThere(t *testing.T, dir string, tar []byte) bool {
	t.Helper()
	return layerFile(t, dir, image.DigestOf(tar)) != ""
}

// TestBound: the cache is never larger than its limit, what was of use last stays,
// and what is being read stays as well.
func TestBound(t *testing.T) {
	const limit = 10 * layerSize
	p, dir := newProbe(t), t.TempDir()
	tars := manyLayers(t, p, 20)
	from := cacheIn(t, dir, limit, nil).New(p)
	for _, tar := range tars[:9] {
		readsLater(t, dir, from, tar)
	}
	for i, tar := range tars[:9] {
		if !isThere(t, dir, tar) {
			t.Fatalf("layer %d is not there, although all have room", i)
		}
	}
	readsLater(t, dir, from, tars[0])
	held, err := from.Open(t.Context(), layerOf(t, from, tars[1]))
	if err != nil {
		t.Fatal(err)
	}
	for _, tar := range tars[2:9] {
		readsLater(t, dir, from, tar)
	}
	again := cacheIn(t, dir, limit, nil).New(p) // another process, which has to find all out
	for _, through := range []remote.Source{from, again} {
		readsLater(t, dir, through, tars[0])
		for _, tar := range tars[9:15] {
			readsLater(t, dir, through, tar)
			if _, size := files(t, dir); size > limit {
				t.Errorf("the cache has %d bytes", size)
			}
			if !isThere(t, dir, tar) {
				t.Error("what was just read is not kept")
			}
		}
		if !isThere(t, dir, tars[0]) {
			t.Error("what was of use is gone")
		}
		if isThere(t, dir, tars[2]) || isThere(t, dir, tars[3]) {
			t.Error("what was not of use is there")
		}
		if through == remote.Source(from) && !isThere(t, dir, tars[1]) {
			t.Error("what is being read is gone")
		}
	}
	got, err := io.ReadAll(held)
	if err = errors.Join(err, held.Close()); err != nil || !bytes.Equal(got, tars[1]) {
		t.Errorf("what was being read has %d bytes, %v", len(got), err)
	}
	// A smaller limit.
	smaller := cacheIn(t, dir, 3*layerSize, nil).New(p)
	reads(t, smaller, tars[19])
	if _, size := files(t, dir); size > 3*layerSize {
		t.Errorf("with a smaller limit the cache has %d bytes", size)
	}
}

// TestBoundOfTwo: what another process writes counts, too.
func TestBoundOfTwo(t *testing.T) {
	const limit = 10 * layerSize
	p, dir := newProbe(t), t.TempDir()
	tars := manyLayers(t, p, 14)
	one, two := cacheIn(t, dir, limit, nil).New(p), cacheIn(t, dir, limit, nil).New(p)
	for i, tar := range tars {
		from := one
		if i >= 3 && i < 9 {
			from = two
		}
		reads(t, from, tar)
		if _, size := files(t, dir); size > limit {
			t.Errorf("after %d layers the cache has %d bytes", i+1, size)
		}
	}
}

// TestTooLarge: what the cache can never hold passes it by, also where the remote has
// told it smaller, and leaves alone what is there.
func TestTooLarge(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tar, other := remotetest.Noise("noise", large), manyLayers(t, p, 1)[0]
	pushed(t, p, "app:1", tar)
	var told notes
	from := cacheIn(t, dir, 3*layerSize, told.add).New(p)
	readsLater(t, dir, from, other)
	reads(t, from, tar)
	if !isThere(t, dir, other) {
		t.Error("something small has gone for something too large")
	}
	lie := layerOf(t, from, tar)
	lie.Stored = 10
	got, err := remotetest.Read(t.Context(), from, lie)
	if err != nil || !bytes.Equal(got, tar) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	stored, err := from.OpenStored(t.Context(), lie)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, stored.Body)
	if err = errors.Join(err, stored.Body.Close()); err != nil || n != layerOf(t, p, tar).Stored {
		t.Errorf("as it is stored: %d bytes, %v", n, err)
	}
	if names, size := files(t, dir); size > 3*layerSize || isThere(t, dir, tar) {
		t.Errorf("the cache has %d bytes: %q", size, names)
	}
	if line := told.since(); line != "" {
		t.Errorf("it tells %q", line)
	}
}

// sick is a directory that cannot be written, after some bytes of each layer.
type sick struct {
	*file.Store
	after  int64
	broken atomic.Bool
	puts   atomic.Int32
}

var errFull = fmt.Errorf("the-cache: %w: %w", storage.ErrNoSpace, syscall.ENOSPC)

func (s *sick) PutFollowed(ctx context.Context, key string, body io.Reader, begun func(storage.Growing)) error {
	s.puts.Add(1)
	if s.broken.Load() {
		body = io.MultiReader(io.LimitReader(body, s.after), iotest.ErrReader(errFull))
	}
	return s.Store.PutFollowed(ctx, key, body, begun)
}

func (s *sick) Delete(ctx context.Context, key string) error {
	if s.broken.Load() {
		return fmt.Errorf("the-cache: %w", storage.ErrPermission)
	}
	return s.Store.Delete(ctx, key)
}

func (s *sick) Put(ctx context.Context, key string, body io.Reader) error {
	s.puts.Add(1)
	if s.broken.Load() {
		return errFull
	}
	return s.Store.Put(ctx, key, body)
}

// TestFull: a disk that is full is told once, and breaks no reading. After a while it
// is tried again.
func TestFull(t *testing.T) {
	for _, after := range []int64{0, 3 << 20} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			p, dir := newProbe(t), t.TempDir()
			tar := remotetest.Noise("noise", large)
			img := pushed(t, p, "app:1", tar, remotetest.FileLayer(t, "a", "a"))
			s := &sick{Store: directory(t, dir), after: after}
			s.broken.Store(true)
			var told notes
			c := cacheOn(t, s, 1<<30, told.add)
			now := time.Now()
			c.SetClock(func() time.Time { return now })
			from := c.New(p)
			layer := layerOf(t, from, tar)
			var g errgroup.Group
			for range 3 {
				g.Go(func() error {
					got, err := remotetest.Read(t.Context(), from, layer)
					if err == nil && !bytes.Equal(got, tar) {
						err = errors.New("other bytes came")
					}
					return err
				})
			}
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
			if got, err := remotetest.Pull(t.Context(), from, remotetest.Ref(t, "app:1")); err != nil || img.Diff(got) != "" {
				t.Errorf("%v: %s", err, img.Diff(got))
			}
			if line := told.since(); strings.Count(line, "\n") != 0 || !strings.Contains(line, "the-cache") || !strings.Contains(line, "no space left") {
				t.Errorf("it tells %q", line)
			}
			if n := s.puts.Load(); n > 1 {
				t.Errorf("it is tried %d times", n)
			}
			if names, _ := files(t, dir); len(names) > 0 {
				t.Errorf("%q are left", names)
			}
			s.broken.Store(false)
			reads(t, from, tar)
			if isThere(t, dir, tar) {
				t.Error("it is tried again at once")
			}
			now = now.Add(2 * time.Minute)
			reads(t, from, tar)
			if !isThere(t, dir, tar) {
				t.Error("it is not tried again")
			}
		})
	}
}

// TestStuck: what is damaged and cannot be removed is not used any more.
func TestStuck(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tar := remotetest.Noise("noise", large)
	pushed(t, p, "app:1", tar)
	s := &sick{Store: directory(t, dir)}
	from := cacheOn(t, s, 1<<30, nil).New(p)
	reads(t, from, tar)
	layer := layerOf(t, from, tar)
	flip(t, layerFile(t, dir, layer.Digest))
	s.broken.Store(true)
	if _, err := remotetest.Read(t.Context(), from, layer); !errors.Is(err, remote.ErrReplaced) {
		t.Errorf("%v", err)
	}
	reads(t, from, tar)
}

// TestFullForCopies: so it is where bytes are taken as they are stored.
func TestFullForCopies(t *testing.T) {
	p := newProbe(t)
	tar := remotetest.Noise("noise", large)
	pushed(t, p, "app:1", tar)
	s := &sick{Store: directory(t, t.TempDir()), after: 3 << 20}
	s.broken.Store(true)
	from := cacheOn(t, s, 1<<30, nil).New(p)
	layer := layerOf(t, from, tar)
	stored, err := from.OpenStored(t.Context(), layer)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(stored.Body)
	want, failed := storage.Read(t.Context(), p.store, layer.Object, 1<<30)
	if err = errors.Join(err, failed, stored.Body.Close()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
}

// TestLeftovers: what a killed process has left goes, and hinders nobody.
func TestLeftovers(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tars := manyLayers(t, p, 3)
	entry := func(i int) string { return filepath.Join(dir, "images", image.DigestOf(tars[i]).Hex()) }
	for i := range 2 {
		must(t, os.MkdirAll(entry(i), 0o755))
	}
	temporary := filepath.Join(entry(0), ".layer.tar.lz4.0123456789abcdef.tmp")
	must(t, os.WriteFile(temporary, make([]byte, layerSize), 0o644))
	must(t, os.WriteFile(filepath.Join(entry(1), "layer.tar.lz4"), make([]byte, layerSize), 0o644)) // without its json
	from := cacheIn(t, dir, 1<<30, nil).New(p)
	reads(t, from, tars[2])
	if _, err := os.Stat(temporary); err == nil {
		t.Error("a temporary file is left")
	}
	for range 2 {
		reads(t, from, tars[0])
		reads(t, from, tars[1])
	}
	if n := p.since("stored"); n != 3 {
		t.Errorf("three layers came %d times", n)
	}
	// Without its json an entry counts, and can go.
	must(t, os.Remove(filepath.Join(entry(1), "json")))
	full := cacheIn(t, dir, 2*layerSize+layerSize/2, nil).New(p)
	readsLater(t, dir, full, tars[0])
	must(t, p.PutDocument(t.Context(), remotetest.NewImage(t, "x").Config))
	more := remotetest.Noise("more", layerSize)
	pushed(t, p, "app:1", more)
	reads(t, full, more)
	if _, size := files(t, dir); size > 2*layerSize+layerSize/2 {
		t.Errorf("the cache has %d bytes", size)
	}
}

// TestManyAtOnce lets many readers of two caches, as of two processes, share one
// directory that is much too small: all get what they ask for, and in the end it is
// within its limit.
func TestManyAtOnce(t *testing.T) {
	const limit = 6 * layerSize
	p, dir := newProbe(t), t.TempDir()
	tars := manyLayers(t, p, 12)
	var told notes
	sources := []remote.Source{cacheIn(t, dir, limit, told.add).New(p), cacheIn(t, dir, limit, told.add).New(p)}
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(1, 2))
	next := func() int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(len(tars))
	}
	var g errgroup.Group
	for worker := range 6 {
		g.Go(func() error {
			for range 25 {
				tar := tars[next()]
				layers, err := remote.Layers(t.Context(), sources[worker%2], []image.Digest{image.DigestOf(tar)})
				if err != nil {
					return err
				}
				got, err := remotetest.Read(t.Context(), sources[worker%2], layers[0])
				if err != nil || !bytes.Equal(got, tar) {
					return fmt.Errorf("%d bytes: %w", len(got), err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if line := told.since(); line != "" {
		t.Errorf("it tells %q", line)
	}
	reads(t, cacheIn(t, dir, limit, nil).New(p), remoteOnly(t, p))
	if _, size := files(t, dir); size > limit {
		t.Errorf("in the end the cache has %d bytes", size)
	}
}

// remoteOnly is a layer that nobody has read yet.
func remoteOnly(t *testing.T, p *probe) []byte {
	t.Helper()
	tar := remotetest.Noise("one more", layerSize)
	pushed(t, p, "one:more", tar)
	return tar
}
