package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

func TestParts(t *testing.T) {
	const all = 1 << 40
	for _, c := range []struct {
		name  string
		sizes []int64
		same  [2]int // these two are one layer, if not both 0
		held  int
		piece int64
		want  string // the layers that each part sends
	}{
		{name: "no layers", piece: 1, want: "[]"},
		{name: "one layer", sizes: []int64{9}, piece: 1, want: "[0]"},
		{name: "each its own", sizes: []int64{1, 1, 1}, piece: 1, want: "[0] [1] [2]"},
		{name: "a huge piece", sizes: []int64{9, 9, 9}, piece: all, want: "[0 1 2]"},
		{name: "gathered", sizes: []int64{2, 2, 2, 2, 2, 2}, piece: 4, want: "[0 1] [2 3] [4 5]"},
		{name: "a little top goes with what is below", sizes: []int64{4, 4, 1}, piece: 4, want: "[0] [1 2]"},
		{name: "a little bottom goes with what is above", sizes: []int64{1, 4, 4}, piece: 4, want: "[0 1] [2]"},
		{name: "large below", sizes: []int64{99, 1, 1}, piece: 4, want: "[0 1 2]"},
		{name: "large above", sizes: []int64{1, 1, 99}, piece: 4, want: "[0 1 2]"},
		{name: "just too little for two", sizes: []int64{4, 3}, piece: 4, want: "[0 1]"},
		{name: "just enough for two", sizes: []int64{4, 4}, piece: 4, want: "[0] [1]"},
		{name: "layers of no bytes", sizes: []int64{0, 5, 0, 5, 0}, piece: 5, want: "[0 1] [2 3 4]"},
		{name: "held", sizes: []int64{4, 4, 4, 4}, held: 2, piece: 4, want: "[2] [3]"},
		{name: "all but one held", sizes: []int64{4, 4}, held: 1, piece: 1, want: "[1]"},
		{name: "all held", sizes: []int64{4, 4}, held: 2, piece: 1, want: "[]"},
		{name: "a layer twice", sizes: []int64{4, 4, 4, 4}, same: [2]int{1, 3}, piece: 1, want: "[0 1 2]"},
		{name: "a layer twice, once held", sizes: []int64{4, 4, 4, 4}, same: [2]int{1, 3}, held: 2, piece: 1, want: "[2] [1]"},
		{name: "compressed", sizes: []int64{-2, -2, -2, -2}, piece: 4, want: "[0] [1] [2] [3]"},
		{name: "compressed, just too little", sizes: []int64{-2, -1, 1}, piece: 4, want: "[0 1 2]"},
		{name: "some are compressed", sizes: []int64{1, -2, 4, -1, 2}, piece: 4, want: "[0 1] [2] [3 4]"},
		{name: "as it comes", sizes: []int64{loadPiece, loadPiece, loadPiece - 1}, want: "[0] [1 2]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &pull{to: ofKind(engine.Classic), o: Options{piece: c.piece}, layers: map[image.DiffID]remote.Layer{}, packed: map[image.DiffID]image.Descriptor{}, held: c.held}
			number := map[image.DiffID]int{}
			for i, size := range c.sizes {
				d := image.DigestOf([]byte{byte(i)})
				if i == c.same[1] && i > 0 {
					d = p.order[c.same[0]]
				} else {
					number[d] = i
				}
				p.order, p.layers[d] = append(p.order, d), remote.Layer{Digest: d, Size: max(-1, size)}
				if size < 0 { // it is that long compressed, and nobody knows more
					p.packed[d] = image.Descriptor{Digest: image.DigestOf([]byte{byte(i), 0}), Size: -size}
				}
			}
			p.config = &image.Config{Platform: image.Platform{OS: "such"}}
			p.doc = image.StackConfig(p.config.Platform, p.order)
			parts := p.parts(image.Distinct(p.order[c.held:]))
			var got []string
			var sent []image.DiffID
			for i, part := range parts {
				send := []int{}
				for _, d := range part.send {
					send = append(send, number[d])
				}
				got, sent = append(got, fmt.Sprint(send)), append(sent, part.send...)
				config, err := image.ParseConfig(part.config)
				if err != nil || !slices.Equal(config.DiffIDs, p.order[:len(config.DiffIDs)]) {
					t.Errorf("part %d: its config %+v, error %v", i, config, err)
				}
				if last := i == len(parts)-1; last != (len(config.DiffIDs) == len(p.order)) || last != (image.DigestOf(part.config) == image.DigestOf(p.doc)) {
					t.Errorf("part %d has %d layers", i, len(config.DiffIDs))
				}
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("sends %s, want %s", s, c.want)
			}
			if !slices.Equal(sent, image.Distinct(p.order[c.held:])) {
				t.Errorf("sends %d layers of %d", len(sent), len(p.order)-c.held)
			}
		})
	}
}

// stacks are the images of nothing but the lowest layers of m that a pull makes; [n] of n layers.
func stacks(t testing.TB, m *enginetest.Image) (ids []image.ID, configs [][]byte) {
	t.Helper()
	config, err := image.ParseConfig(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(config.DiffIDs) + 1 {
		doc := image.StackConfig(config.Platform, config.DiffIDs[:n])
		ids, configs = append(ids, image.DigestOf(doc)), append(configs, doc)
	}
	return ids, configs
}

// leave gives the engine the stack of the lowest n layers of m, as a killed pull does.
func (c *classic) leave(t testing.TB, m *enginetest.Image, n int) {
	t.Helper()
	_, configs := stacks(t, m)
	var layers [][]byte
	for _, l := range m.Layers()[:n] {
		layers = append(layers, l.Bytes())
	}
	c.keep(configs[n], layers)
}

// inParts are options that give each layer a load of its own.
var inParts = Options{piece: 1}

func has(t testing.TB, e *classic, want ...string) {
	t.Helper()
	if got := e.names(); !slices.Equal(got, want) {
		t.Errorf("the engine has %q, want %q", got, want)
	}
}

// timeline remembers what happens to loads, and lets others wait for it.
type timeline struct {
	mu     sync.Mutex
	events []string
	more   chan struct{} // closed at the next event
}

func (l *timeline) note(n int, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, fmt.Sprint(what, " ", n))
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

func (l *timeline) has(event string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.events, event)
}

func (l *timeline) await(event string) error {
	late := time.After(time.Minute)
	for !l.has(event) {
		l.mu.Lock()
		if l.more == nil {
			l.more = make(chan struct{})
		}
		more := l.more
		l.mu.Unlock()
		if l.has(event) {
			return nil
		}
		select {
		case <-more:
		case <-late:
			return fmt.Errorf("%q did not happen", event)
		}
	}
	return nil
}

// TestPartsOverlap: while the engine unpacks a part, the layers of the next ones come, and not their ends; no more than
// loadsAtOnce are on their way.
func TestPartsOverlap(t *testing.T) {
	m := layered("1", "a", "b", "c", "d", "e", "f")
	r := stocked(t, m)
	e := newClassic()
	var l timeline
	e.happens = func(n int, what string) error {
		l.note(n, what)
		if what != "end" {
			return nil
		}
		if n > 1 && !l.has(fmt.Sprint("answers ", n-1)) {
			t.Errorf("the end of archive %d comes before load %d is answered: %q", n, n-1, l.events)
		}
		for ahead := 1; ahead < loadsAtOnce && n+ahead <= 6; ahead++ {
			if err := l.await(fmt.Sprint("layer ", n+ahead)); err != nil {
				return fmt.Errorf("while load %d is unpacked: %w", n, err)
			}
		}
		time.Sleep(50 * time.Millisecond) // what is too early would come now
		if early := fmt.Sprint("begins ", n+loadsAtOnce); l.has(early) {
			t.Errorf("%q before load %d is answered", early, n)
		}
		if early := fmt.Sprint("end ", n+1); l.has(early) {
			t.Errorf("%q before load %d is answered", early, n)
		}
		return nil
	}
	results, err := Pull(t.Context(), r, e.connect(t), pulls(t, "much:1"), inParts)
	if err != nil || len(moved(results[0])) != 6 || e.loads != 6 {
		t.Errorf("%+v, %d loads, error %v", results, e.loads, err)
	}
	has(t, e, "much:1 "+m.ID()[7:19])
}

// TestPartsOfAnyImage: whatever the pieces and whatever the engine has, the image comes whole and nothing else.
func TestPartsOfAnyImage(t *testing.T) {
	twice := enginetest.TroubleNamed("same-layer-twice").Image
	for _, m := range []*enginetest.Image{layered("1", "a"), layered("1", "a", "b"), layered("1", "a", "b", "c", "d", "e"), twice} {
		name := m.Tags()[0]
		r := stocked(t, m)
		for _, piece := range []int64{1, m.Layers()[0].Size(), m.Layers()[0].Size() + 1, 1 << 40} {
			for held := range len(m.Layers()) + 1 {
				for _, parallel := range []int{1, 3} {
					e := newClassic()
					want := []string{name + " " + m.ID()[7:19]}
					if held > 0 { // in an image of somebody else
						base := enginetest.NewImage().Tag("a-base:1").Step("ENV such=base").Add(m.Layers()[:held]...)
						e.put(base)
						want = []string{"a-base:1 " + base.ID()[7:19], want[0]}
					}
					var said recorder
					o := Options{piece: piece, Parallel: parallel, Progress: &said}
					results, err := Pull(t.Context(), r, e.connect(t), pulls(t, name), o)
					if err != nil || results[0].ID.String() != m.ID() {
						t.Fatalf("piece %d, %d held: %+v, error %v", piece, held, results, err)
					}
					has(t, e, want...)
					present := 0 // and not sent
					for _, d := range slices.Compact(slices.Sorted(slices.Values(m.DiffIDs()[:held]))) {
						if !slices.Contains(m.DiffIDs()[held:], d) {
							present++
						}
					}
					missing := len(slices.Compact(slices.Sorted(slices.Values(m.DiffIDs()[held:]))))
					said.check(t, present, missing)
				}
			}
		}
	}
}

// sourceOf is a remote of which the layers are opened by a function.
type sourceOf struct {
	remote.Source
	open func(ctx context.Context, l remote.Layer) (io.ReadCloser, error)
}

func (s *sourceOf) Open(ctx context.Context, l remote.Layer) (io.ReadCloser, error) {
	return s.open(ctx, l)
}

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
		if leak := leaked(leaks, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
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
