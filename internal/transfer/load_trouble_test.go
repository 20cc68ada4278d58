package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// TestPartsFail: whatever fails in whichever part, the error says it, and the engine has what it had.
func TestPartsFail(t *testing.T) {
	m := layered("1", "a", "b", "c", "d")
	trouble := errors.New("much trouble")
	for k := 1; k <= len(m.Layers()); k++ {
		bad := m.Layers()[k-1]
		for what, c := range map[string]struct {
			happens func(n int, what string) error
			open    func(r remote.Source) func(context.Context, remote.Layer) (io.ReadCloser, error)
			damage  bool
			want    string
		}{
			"a damaged layer": {damage: true, want: image.DigestOf(bad.Bytes()).Short()},
			"the engine says no": {happens: func(n int, what string) error {
				if n == k && what == "end" {
					return trouble
				}
				return nil
			}, want: "much trouble"},
			"the engine is cut off": {happens: func(n int, what string) error {
				if n == k && what == "layer" {
					return errCut
				}
				return nil
			}, want: "unix://"},
			"the engine is cut off at the end": {happens: func(n int, what string) error {
				if n == k && what == "end" {
					return errCut
				}
				return nil
			}, want: "unix://"},
			"the remote breaks": {open: func(r remote.Source) func(context.Context, remote.Layer) (io.ReadCloser, error) {
				return func(ctx context.Context, l remote.Layer) (io.ReadCloser, error) {
					tar, err := r.Open(ctx, l)
					if err == nil && l.Digest.String() == bad.DiffID() {
						return struct {
							io.Reader
							io.Closer
						}{io.MultiReader(io.LimitReader(tar, 1000), failing{trouble}), tar}, nil
					}
					return tar, err
				}
			}, want: "much trouble"},
			"the remote does not open": {open: func(r remote.Source) func(context.Context, remote.Layer) (io.ReadCloser, error) {
				return func(ctx context.Context, l remote.Layer) (io.ReadCloser, error) {
					if l.Digest.String() == bad.DiffID() {
						return nil, trouble
					}
					return r.Open(ctx, l)
				}
			}, want: "much trouble"},
		} {
			t.Run(fmt.Sprintf("%s in part %d", what, k), func(t *testing.T) {
				dir := t.TempDir()
				r := remoteIn(t, dir)
				mustPush(t, newClassic(m).connect(t), r, "much:1")
				var from remote.Source = r
				if c.open != nil {
					from = &sourceOf{r, c.open(r)}
				}
				kind := fault.Other
				if c.damage {
					kind = fault.Damaged
					if err := flipByte(filepath.Join(dir, "images", image.DigestOf(bad.Bytes()).Hex(), "layer.tar.lz4")); err != nil {
						t.Fatal(err)
					}
				}
				e := newClassic(layered("before", "z"))
				before := e.names()
				client := e.connect(t)
				e.happens = c.happens
				var said recorder
				o := Options{piece: 1, Progress: &said}
				results, err := Pull(t.Context(), from, client, pulls(t, "much:1"), o)
				if fault.KindOf(err) != kind || !strings.Contains(err.Error(), c.want) || len(results) > 0 {
					t.Errorf("error %v", err)
				}
				if errors.Is(err, errReaderGone) || fault.Interrupted(err) {
					t.Errorf("error hides its cause: %v", err)
				}
				has(t, e, before...)
				said.checkRepeated(t)
			})
		}
	}
}

// loading is a Loader with a Load of its own.
type loading struct {
	*engine.Client
	mu   sync.Mutex
	n    int
	load func(ctx context.Context, n int, archive io.Reader) ([]image.ID, error)
}

func (l *loading) Load(ctx context.Context, archive io.Reader) ([]image.ID, error) {
	l.mu.Lock()
	l.n++
	n := l.n
	l.mu.Unlock()
	return l.load(ctx, n, archive)
}

// TestEngineStopsListening: its words are told, and not that a stream was closed behind it.
func TestEngineStopsListening(t *testing.T) {
	m := heavy("1")
	r := stocked(t, m)
	for k := 1; k <= 2; k++ {
		for range 20 {
			to := &loading{Client: newClassic().connect(t)}
			to.load = func(ctx context.Context, n int, archive io.Reader) ([]image.ID, error) {
				if n == k {
					return nil, errors.New("much trouble")
				}
				return to.Client.Load(ctx, archive)
			}
			if _, err := Pull(t.Context(), r, to, pulls(t, "much:1"), inParts); err == nil || err.Error() != "much trouble" {
				t.Fatalf("part %d: error %v", k, err)
			}
		}
	}
}

// TestRemoteFailsWhileTheEngineHangs: nobody waits for an engine that has not even got its archive.
func TestRemoteFailsWhileTheEngineHangs(t *testing.T) {
	m := layered("1", "a", "b", "c")
	r := stocked(t, m)
	for k := 1; k <= 2; k++ {
		trouble := errors.New("much trouble")
		stuck := make(chan struct{})
		from := &sourceOf{r, func(ctx context.Context, l remote.Layer) (io.ReadCloser, error) {
			if l.Digest.String() == m.DiffIDs()[2] {
				<-stuck
				return nil, trouble
			}
			return r.Open(ctx, l)
		}}
		e := newClassic()
		to := &loading{Client: e.connect(t)}
		to.load = func(ctx context.Context, n int, archive io.Reader) ([]image.ID, error) {
			if n != k {
				return to.Client.Load(ctx, archive)
			}
			close(stuck)
			<-ctx.Done() // and reads nothing
			return nil, ctx.Err()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := Pull(ctx, from, to, pulls(t, "much:1"), inParts)
		if !errors.Is(err, trouble) || ctx.Err() != nil {
			t.Errorf("part %d: error %v", k, err)
		}
		cancel()
		has(t, e)
	}
}

// TestWholePartIsAwaited: a load that the engine has whole goes on to its answer though a later part fails, so that what it
// brings can be removed.
func TestWholePartIsAwaited(t *testing.T) {
	m := layered("1", "a", "b", "c")
	r := stocked(t, m)
	trouble := errors.New("much trouble")
	unpacking := make(chan struct{})
	from := &sourceOf{r, func(ctx context.Context, l remote.Layer) (io.ReadCloser, error) {
		if l.Digest.String() == m.DiffIDs()[1] {
			<-unpacking
			return nil, trouble
		}
		return r.Open(ctx, l)
	}}
	e := newClassic()
	client := e.connect(t)
	e.happens = func(n int, what string) error {
		if n == 1 && what == "end" {
			close(unpacking)
			time.Sleep(300 * time.Millisecond)
		}
		return nil
	}
	if _, err := Pull(t.Context(), from, client, pulls(t, "much:1"), inParts); !errors.Is(err, trouble) {
		t.Errorf("error %v", err)
	}
	has(t, e)
	e.idle(t)
	has(t, e) // and later
}

// TestPartIsRemovedByOthers: whoever prunes images between two parts costs a load of everything, once.
func TestPartIsRemovedByOthers(t *testing.T) {
	m := layered("1", "a", "b", "c", "d")
	r := stocked(t, m)
	for k := 2; k <= 4; k++ {
		e := newClassic()
		client := e.connect(t)
		e.happens = func(n int, what string) error {
			if n == k && what == "end" {
				e.mu.Lock()
				clear(e.images)
				e.mu.Unlock()
			}
			return nil
		}
		var said recorder
		results, err := Pull(t.Context(), r, client, pulls(t, "much:1"), Options{piece: 1, Progress: &said})
		if err != nil || len(moved(results[0])) != 4 || len(said.notes) != 1 {
			t.Errorf("part %d: %+v, told %q, error %v", k, results, said.notes, err)
		}
		said.checkRepeated(t)
		has(t, e, "much:1 "+m.ID()[7:19])
	}
}

// TestLayersLackForEver: two tries, and no more.
func TestLayersLackForEver(t *testing.T) {
	r := stocked(t, layered("1", "a", "b", "c", "d"))
	e := newClassic()
	to := &loading{Client: e.connect(t)}
	whole := 0
	to.load = func(ctx context.Context, n int, archive io.Reader) ([]image.ID, error) {
		if n == 1 {
			return to.Client.Load(ctx, archive)
		}
		counter := &counting{r: archive}
		_, err := io.Copy(io.Discard, counter)
		if err == nil && counter.n > 20<<10 { // all four layers
			whole++
		}
		return nil, errors.Join(err, engine.ErrLacksLayer)
	}
	_, err := Pull(t.Context(), r, to, pulls(t, "much:1"), inParts)
	if !errors.Is(err, engine.ErrLacksLayer) || whole != 1 || to.n > 1+loadsAtOnce+1 {
		t.Errorf("error %v after %d loads, %d of all layers", err, to.n, whole)
	}
	has(t, e)
}
