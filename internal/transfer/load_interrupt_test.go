package transfer

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

// TestPartsInterrupted ends the context at everything that happens to a load: the pull ends soon and leaves at most untagged
// images, a rerun completes and removes those.
func TestPartsInterrupted(t *testing.T) {
	m := layered("1", "a", "b", "c", "d")
	r := stocked(t, m)
	ids, _ := stacks(t, m)
	may := []string{"<none> " + m.ID()[7:19]}
	for _, id := range ids {
		may = append(may, "<none> "+id.Short())
	}
	try := func(stage int) (ended bool) {
		e := newClassic()
		client, stop := e.serve(t)
		defer stop()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var mu sync.Mutex
		happened := 0
		e.happens = func(int, string) error {
			mu.Lock()
			defer mu.Unlock()
			if happened++; happened == stage {
				cancel()
			}
			return nil
		}
		leaks := goleak.IgnoreCurrent()
		start := time.Now()
		_, err := Pull(ctx, r, client, pulls(t, "much:1"), inParts)
		if late := time.Since(start); late > 30*time.Second {
			t.Errorf("stage %d: took %v", stage, late)
		}
		if leak := remotetest.Leaks(leaks, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
			goleak.IgnoreAnyFunction("net/http.(*conn).serve"), goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead")); leak != nil {
			t.Errorf("stage %d: %v", stage, leak)
		}
		mu.Lock()
		ended = happened < stage
		mu.Unlock()
		if ended {
			if err != nil {
				t.Errorf("not interrupted: %v", err)
			}
			return true
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("stage %d: error %v", stage, err)
		}
		e.idle(t)
		for _, name := range e.names() {
			if !slices.Contains(may, name) {
				t.Errorf("stage %d: the engine has %q", stage, e.names())
			}
		}
		if _, err := Pull(t.Context(), r, client, pulls(t, "much:1"), inParts); err != nil {
			t.Errorf("stage %d, again: %v", stage, err)
		}
		has(t, e, "much:1 "+m.ID()[7:19])
		return false
	}
	stage := 1
	for ; !try(stage); stage++ {
		if t.Failed() {
			return
		}
	}
	if stage != 4*4+1 {
		t.Errorf("%d stages were tried", stage)
	}
}

// TestInterruptCleansUp: what an interrupted pull had loaded is gone, though its context has ended.
func TestInterruptCleansUp(t *testing.T) {
	m := layered("1", "a", "b", "c", "d")
	r := stocked(t, m)
	ids, _ := stacks(t, m)
	e := newClassic()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := e.connect(t)
	e.happens = func(n int, what string) error {
		if n == 4 && what == "begins" { // part 1 is answered, else this one would not be on its way
			cancel()
		}
		return nil
	}
	if _, err := Pull(ctx, r, client, pulls(t, "much:1"), inParts); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	e.idle(t)
	if _, left := e.find(ids[1].String()); left != nil {
		t.Errorf("the engine has %q", e.names())
	}
}

// TestAfterAKill: what killed pulls left is used, and removed at the end.
func TestAfterAKill(t *testing.T) {
	m := layered("1", "a", "b", "c", "d")
	r := stocked(t, m)
	for what, c := range map[string]struct {
		left  []int // stacks of so many layers
		whole bool  // and the image itself
		moved int
	}{
		"in the second part":    {left: []int{1}, moved: 3},
		"in the last part":      {left: []int{1, 2, 3}, moved: 1},
		"with another cut":      {left: []int{2}, moved: 2},
		"before it was tagged":  {left: []int{1, 2, 3}, whole: true},
		"all layers, no config": {left: []int{4}},
	} {
		e := newClassic()
		for _, n := range c.left {
			e.leave(t, m, n)
		}
		if c.whole {
			var layers [][]byte
			for _, l := range m.Layers() {
				layers = append(layers, l.Bytes())
			}
			e.keep(m.Config(), layers)
		}
		results, err := Pull(t.Context(), r, e.connect(t), pulls(t, "much:1"), inParts)
		if err != nil || len(moved(results[0])) != c.moved {
			t.Errorf("%s: %+v, error %v", what, results, err)
		}
		has(t, e, "much:1 "+m.ID()[7:19])
	}
}

// TestOthersStacks: a pull that fails removes what it made, not what another pull may be using, nor what somebody has named.
// One that succeeds leaves alone what is named and what is of other layers.
func TestOthersStacks(t *testing.T) {
	m, other := layered("1", "a", "b", "c", "d"), layered("2", "z", "y")
	r := stocked(t, m)
	ids, _ := stacks(t, m)
	otherIDs, _ := stacks(t, other)
	e := newClassic()
	e.leave(t, m, 1)
	e.leave(t, m, 2)
	e.leave(t, other, 1)
	_, named := e.find(ids[1].String())
	e.tag(named, "keep:1")
	client := e.connect(t)
	before := e.names()
	e.happens = func(n int, what string) error {
		if n == 3 && what == "end" {
			return errors.New("much trouble")
		}
		return nil
	}
	if _, err := Pull(t.Context(), r, client, pulls(t, "much:1"), inParts); err == nil {
		t.Error("no error")
	}
	has(t, e, before...)
	e.now(func() { e.happens = nil })
	results, err := Pull(t.Context(), r, client, pulls(t, "much:1"), Options{piece: 1, DryRun: true})
	if err != nil || len(moved(results[0])) != 2 {
		t.Errorf("%+v, error %v", results, err)
	}
	has(t, e, before...)
	mustPull(t, r, client, "much:1")
	has(t, e, "<none> "+otherIDs[1].Short(), "keep:1 "+ids[1].Short(), "much:1 "+m.ID()[7:19])
}

// TestPartsAtOnce: several pulls of one image, and of one with the same base, on one engine.
func TestPartsAtOnce(t *testing.T) {
	one, two := layered("1", "a", "b", "c", "d"), layered("2", "a", "b", "x")
	r := stocked(t, one, two)
	for range 20 {
		e := newClassic()
		client := e.connect(t)
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				if _, err := Pull(t.Context(), r, client, pulls(t, []string{"much:1", "much:2"}[i%2]), inParts); err != nil {
					t.Errorf("pull %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		has(t, e, "much:1 "+one.ID()[7:19], "much:2 "+two.ID()[7:19])
	}
}

// checkPushedAgain pushes an image to a new remote, and pulls it from there into another engine.
func checkPushedAgain(t *testing.T, client Exporter, name string, m *enginetest.Image) {
	t.Helper()
	r := remoteIn(t, t.TempDir())
	mustPush(t, client, r, name)
	checkWhole(t, r, name, m)
}

// listedImages is every image of the engine: "tag ID", sorted.
func listedImages(t *testing.T, e *enginetest.Engine) []string {
	t.Helper()
	out, err := e.Docker(t.Context(), nil, "images", "-a", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
	if err != nil {
		t.Fatal(err)
	}
	list := strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
	slices.Sort(list)
	return list
}

// kindAlone is an engine of which nothing but its kind matters.
type kindAlone struct {
	Loader
	kind engine.Kind
}

func ofKind(k engine.Kind) Loader { return kindAlone{kind: k} }

func (k kindAlone) Kind() engine.Kind { return k.kind }

// TestFetchForNobody: a layer that cannot be opened is no news when its reader has gone, who says why.
func TestFetchForNobody(t *testing.T) {
	p := &pull{from: &sourceOf{open: func(context.Context, remote.Layer) (io.ReadCloser, error) { return nil, errors.New("much trouble") }}, o: Options{}.withDefaults()}
	s := newStream(streamChunks)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.fetchLayer(t.Context(), remote.Layer{}, s); err != nil {
		t.Errorf("it says: %v", err)
	}
	s = newStream(streamChunks)
	done := make(chan error, 1)
	go func() { done <- p.fetchLayer(t.Context(), remote.Layer{}, s) }()
	if _, err := io.ReadAll(s); err == nil || err.Error() != "much trouble" {
		t.Errorf("its reader is told %v", err)
	}
	if err := <-done; err == nil || err.Error() != "much trouble" {
		t.Errorf("with a reader it says: %v", err)
	}
}
