package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
)

// TestDelta: a release of which the engine has the one before is put together out of that; little is read, and the
// results say how much. A pull of a third one remembers the index of the second.
func TestDelta(t *testing.T) {
	w := newDeltaWorld(t)
	w.o.CacheDir = t.TempDir()
	whole := w.stored(t, layerOf(w.two))
	dry := w.o
	dry.DryRun = true
	would, err := Pull(t.Context(), w.remote, w.keeper, pulls(t, "much:2"), dry)
	if err != nil || would[0].Layers[1].Local == 0 {
		t.Fatalf("a dry run: %+v, %v", would, err)
	}
	w.o.CacheDir = t.TempDir()
	w.store.of(layerOf(w.one))
	w.store.of(layerOf(w.two))
	got := w.pull(t)
	two, one := w.store.of(layerOf(w.two)), w.store.of(layerOf(w.one))
	if got.Fetched != one+two || !got.Moved {
		t.Errorf("%+v, and %d + %d bytes were read", got, two, one)
	}
	if two > whole/8 || one > w.stored(t, layerOf(w.one))/20 {
		t.Errorf("%d bytes of %d were read, and %d of the index of the other", two, whole, one)
	}
	if all := int64(releaseSize * releaseFiles); got.Local < all*8/10 || got.Local > all {
		t.Errorf("%d bytes of %d are local", got.Local, all)
	}
	if d := would[0].Layers[1]; d.Fetched != got.Fetched || d.Local != got.Local {
		t.Errorf("a dry run said %+v, and it was %+v", d, got)
	}
	if len(w.said.notes) > 0 {
		t.Errorf("notes: %q", w.said.notes)
	}
	w.said.check(t, 1, 1)

	three := enginetest.NewImage().Tag("much:3").Add(w.two.Layers()[0]).Layer(release(firstRelease.Add(2*time.Hour), 17, 40)...)
	mustPush(t, newClassic(three).connect(t), w.remote, "much:3")
	w.keeper.tars = [][]byte{layerOf(w.two).Bytes()}
	w.store.of(layerOf(w.two))
	results, err := Pull(t.Context(), w.remote, w.keeper, pulls(t, "much:3"), w.o)
	if err != nil || results[0].ID.String() != three.ID() || results[0].Layers[1].Local == 0 {
		t.Fatalf("%+v, %v", results, err)
	}
	if n := w.store.of(layerOf(w.two)); n > 0 {
		t.Errorf("%d bytes of an index were read that was remembered", n)
	}
}

// TestDeltaIsNotWanted: where it is told not to, where there are no parts or relatives, of small layers, and where there is
// nothing in common, the layer is read whole, and once.
func TestDeltaIsNotWanted(t *testing.T) {
	for name, change := range map[string]func(w *deltaWorld){
		"never":        func(w *deltaWorld) { w.o.Delta = DeltaNever },
		"small":        func(w *deltaWorld) { w.o.leastDelta = 1 << 30 },
		"no relatives": func(w *deltaWorld) { w.keeper.tars = nil },
		"not indexed": func(w *deltaWorld) {
			w.keeper.tars = [][]byte{[]byte("a layer that the remote has not")}
		},
		"no ranges": func(w *deltaWorld) {
			w.store.get = func(key string, offset, n int64) error {
				if strings.HasSuffix(key, ".lz4") && (offset != 0 || n >= 0) {
					return fmt.Errorf("no ranges: %w", errors.ErrUnsupported)
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newDeltaWorld(t)
			change(w)
			got := w.pull(t)
			if got.Local != 0 || got.Fetched != 0 || len(w.said.notes) > 0 {
				t.Errorf("%+v, notes %q", got, w.said.notes)
			}
			if unwanted := name == "never" || name == "small"; unwanted != (w.keeper.asked == 0) {
				t.Errorf("the engine was asked %d times what it has", w.keeper.asked)
			}
			if n, want := w.store.of(layerOf(w.two)), w.stored(t, layerOf(w.two)); n < want-64<<10 || n > want+32<<10 {
				t.Errorf("%d bytes were read of %d", n, want)
			}
		})
	}
}

// TestDeltaOfNothingInCommon: the index alone is read in vain.
func TestDeltaOfNothingInCommon(t *testing.T) {
	w := newDeltaWorld(t)
	other := enginetest.NewImage().Tag("such:1").Layer(release(firstRelease, slices.Collect(func(yield func(int) bool) {
		for i := 0; i < releaseFiles && yield(i); i++ {
		}
	})...)...)
	mustPush(t, newClassic(other).connect(t), w.remote, "such:1")
	w.keeper.tars = [][]byte{layerOf(other).Bytes()}
	if got := w.pull(t); got.Local != 0 || got.Fetched != 0 {
		t.Errorf("%+v", got)
	}
	if n, want := w.store.of(layerOf(w.two)), w.stored(t, layerOf(w.two)); n > want*105/100 {
		t.Errorf("%d bytes were read of %d", n, want)
	}
}

// TestDeltaTooLittle: where most of the layer has changed, auto reads it whole.
func TestDeltaTooLittle(t *testing.T) {
	var changed []int
	for i := range releaseFiles * 7 / 10 {
		changed = append(changed, i)
	}
	w := newDeltaWorld(t)
	w.two = enginetest.NewImage().Tag("much:2").Add(w.one.Layers()[0]).Layer(release(firstRelease.Add(time.Hour), changed...)...)
	mustPush(t, newClassic(w.two).connect(t), w.remote, "much:2")
	w.o.Delta = DeltaAuto
	if got := w.pull(t); got.Local != 0 {
		t.Errorf("%+v", got)
	}
	w.engine = newClassic(w.one)
	w.keeper.Client = w.engine.connect(t)
	w.o.Delta = DeltaAlways
	if got := w.pull(t); got.Local == 0 {
		t.Errorf("%+v", got)
	}
}

// TestDeltaGoesWrong: whatever is wrong with local layers, indexes and the stored file, the image comes as it is.
func TestDeltaGoesWrong(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, w *deltaWorld)
		note   string // what people are told
		local  bool   // something is local all the same
	}{
		{name: "a local layer has changed", local: true, change: func(t *testing.T, w *deltaWorld) {
			open := false
			w.keeper.open = func(n int) {
				if !open { // its digest is that of before
					content := slices.Clone(w.keeper.tars[n])
					at := bytes.Index(content, []byte("srv/app/030"))
					content[at+1000] ^= 1
					w.keeper.tars[n] = content
					open = true
				}
			}
		}},
		{name: "a local layer is another one", note: "cannot be put together", change: func(t *testing.T, w *deltaWorld) {
			w.keeper.open = func(n int) { w.keeper.tars[n] = make([]byte, len(w.keeper.tars[n])) }
		}},
		{name: "the table is damaged", change: func(t *testing.T, w *deltaWorld) {
			w.edit(t, layerOf(w.two), func(b []byte) []byte { b[len(b)-40] ^= 1; return b })
		}},
		{name: "the other's table is damaged", change: func(t *testing.T, w *deltaWorld) {
			w.edit(t, layerOf(w.one), func(b []byte) []byte { b[len(b)-40] ^= 1; return b })
		}},
		{name: "literals are damaged", note: "cannot be put together", change: func(t *testing.T, w *deltaWorld) {
			w.edit(t, layerOf(w.two), func(b []byte) []byte { b[framesOf(t, b).Stored+codec.SkippableHeader+20] ^= 1; return b })
		}},
		{name: "the layer has been stored again, without an index", note: "cannot be put together", local: true, change: func(t *testing.T, w *deltaWorld) {
			// From its table on it is another file.
			again := codec.LZ4.Encode(bytes.NewReader(layerOf(w.two).Bytes()))
			defer again.Close()
			content, err := io.ReadAll(again)
			if err != nil {
				t.Fatal(err)
			}
			reads := 0
			var once sync.Once
			w.store.get = func(key string, offset, n int64) error {
				if key == fileOf(layerOf(w.two)) && offset > 0 {
					if reads++; reads > 1 {
						once.Do(func() { w.edit(t, layerOf(w.two), func([]byte) []byte { return content }) })
					}
				}
				return nil
			}
		}},
		{name: "parts are to be had no more", note: "cannot be put together", local: true, change: func(t *testing.T, w *deltaWorld) {
			var reads atomic.Int64
			w.store.get = func(key string, offset, n int64) error {
				if key == fileOf(layerOf(w.two)) && n >= 0 && reads.Add(1) > 1 {
					return fmt.Errorf("no ranges: %w", errors.ErrUnsupported)
				}
				return nil
			}
		}},
		{name: "a read fails", note: "cannot be put together", local: true, change: func(t *testing.T, w *deltaWorld) {
			w.store.get = func(key string, offset, n int64) error {
				if offset > 0 && offset < 1<<20 && key == fileOf(layerOf(w.two)) {
					return errors.New("such a bad wire")
				}
				return nil
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newDeltaWorld(t)
			c.change(t, w)
			got := w.pull(t)
			if notes := strings.Join(w.said.notes, "\n"); c.note == "" && notes != "" || !strings.Contains(notes, c.note) || len(w.said.notes) > 1 {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
			if c.local != (got.Local > 0) {
				t.Errorf("%+v", got)
			}
			if c.note != "" && got.Fetched < got.Stored {
				t.Errorf("%+v: it was read whole", got)
			}
		})
	}
}

// framesOf reads the index of a stored layer.
func framesOf(t testing.TB, b []byte) *chunk.Index {
	t.Helper()
	x, err := chunk.Read(t.Context(), func(_ context.Context, offset, n int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b[offset:min(offset+n, int64(len(b)))])), nil
	}, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// lie makes a second release of which the index is that of another one, with the same contents.
func (w *deltaWorld) lie(t testing.TB) {
	t.Helper()
	base := w.one.Layers()[0]
	w.two = enginetest.NewImage().Tag("much:2").Add(base).Layer(release(firstRelease.Add(time.Hour))...)
	mustPush(t, newClassic(w.two).connect(t), w.remote, "much:2")
	w.edit(t, layerOf(w.two), func(b []byte) []byte {
		entries := release(firstRelease.Add(time.Hour)) // the same contents, at times that make its frames larger
		for i := range entries {
			entries[i].Header.ModTime = firstRelease.Add(time.Duration(i*i*7919) * time.Second)
		}
		encoded := chunk.Encode(codec.LZ4, bytes.NewReader(enginetest.NewLayer(entries...).Bytes()))
		defer encoded.Close()
		other, err := io.ReadAll(encoded)
		if err != nil {
			t.Fatal(err)
		}
		frames, lies := framesOf(t, b).Stored, framesOf(t, other).Stored
		b = codec.AppendSkippable(b[:frames:frames], 0, make([]byte, lies-frames-codec.SkippableHeader))
		return append(b, other[lies:]...)
	})
}

// TestDeltaIsMisled: an index that is of another layer makes another layer. The engine gets none of it, and then the right one.
func TestDeltaIsMisled(t *testing.T) {
	w := newDeltaWorld(t)
	w.lie(t)
	got := w.pull(t)
	if notes := strings.Join(w.said.notes, "\n"); !strings.Contains(notes, "an index in the remote is wrong") {
		t.Errorf("notes %q", notes)
	}
	if got.Local != 0 || !got.Moved {
		t.Errorf("%+v", got)
	}
	has(t, w.engine, "much:1 "+w.one.ID()[7:19], "much:2 "+w.two.ID()[7:19])
}

// TestDeltaIsInterrupted: wherever an interrupt comes, the pull ends with it, nothing runs on, and a rerun completes.
func TestDeltaIsInterrupted(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		if leak := remotetest.Leaks(before); leak != nil {
			t.Error(leak)
		}
	})
	for n := 1; ; n++ {
		w := newDeltaWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		reads := 0
		w.store.get = func(string, int64, int64) error {
			mu.Lock()
			defer mu.Unlock()
			if reads++; reads == n {
				cancel()
			}
			return nil
		}
		_, err := Pull(ctx, w.remote, w.keeper, pulls(t, "much:2"), w.o)
		interrupted := ctx.Err() != nil
		cancel()
		w.store.plain()
		if !interrupted {
			if n < 5 {
				t.Errorf("%d reads", n)
			}
			return
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted in read %d: %v", n, err)
		}
		if len(w.said.notes) > 0 {
			t.Errorf("interrupted in read %d: notes %q", n, w.said.notes)
		}
		if got := w.pull(t); err != nil && got.Local == 0 {
			t.Errorf("after that: %+v", got)
		}
	}
}

// slowParts is a remote far away.
type slowParts struct {
	*repo.Repo
	latency time.Duration
	rate    float64       // bytes a second
	cold    *atomic.Int64 // nanoseconds that the next answer takes longer
}

func (s slowParts) OpenPart(ctx context.Context, l remote.Layer, offset, n int64) (io.ReadCloser, error) {
	body, err := s.Repo.OpenPart(ctx, l, offset, n)
	time.Sleep(s.latency + time.Duration(s.cold.Swap(0)))
	return &slowBody{body, s.rate}, err
}

type slowBody struct {
	io.ReadCloser
	rate float64
}

func (s *slowBody) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p[:min(len(p), 1<<10)])
	time.Sleep(time.Duration(float64(n) / s.rate * float64(time.Second)))
	return n, err
}

// TestDeltaGoesByTheLink: auto puts a layer together over a slow link, and reads it whole over one that is as fast as
// disks are.
func TestDeltaGoesByTheLink(t *testing.T) {
	for _, c := range []struct {
		latency time.Duration
		rate    float64
		cold    time.Duration
		want    bool
	}{
		{20 * time.Millisecond, 1e6, 0, true},
		{20 * time.Millisecond, 12.5e6, 0, true},
		{20 * time.Millisecond, 12.5e6, 100 * time.Millisecond, true},
		{time.Millisecond, 50e6, 0, true},
		{time.Microsecond, 2e9, 0, false},
		{100 * time.Microsecond, 1e9, 0, false},
		{100 * time.Microsecond, 1e9, 20 * time.Millisecond, false}, // the first answer has to wait for a connection
	} {
		w := newDeltaWorld(t)
		synctest.Test(t, func(t *testing.T) {
			o := w.o
			o.Delta, o.Log = DeltaAuto, slog.New(slog.DiscardHandler)
			o = o.withDefaults()
			from := slowParts{w.remote, c.latency, c.rate, &atomic.Int64{}}
			from.cold.Store(int64(c.cold))
			two := digestOf(t, layerOf(w.two))
			layers, err := remote.Layers(t.Context(), w.remote, []image.Digest{two})
			if err != nil {
				t.Fatal(err)
			}
			p := &pull{from: from, to: w.keeper, o: o, image: pulls(t, "much:2")[0], tree: &image.Tree{}, order: []image.Digest{two}, layers: map[image.Digest]remote.Layer{two: layers[0]}}
			d := p.newDeltas(p.order)
			start := time.Now()
			plan := d.plan(t.Context(), layers[0])
			if (plan != nil) != c.want {
				latency, rate := d.link.speed()
				t.Errorf("%+v: %v; the link is taken for %s, %.0f", c, plan != nil, latency, rate)
			}
			// What is read to find out is little beside the whole.
			if took, whole := time.Since(start), time.Duration(float64(layers[0].Stored)/c.rate*float64(time.Second)); took > whole/2+6*c.latency+c.cold {
				t.Errorf("%+v: found out in %s, and the whole takes %s", c, took, whole)
			}
		})
	}
}
