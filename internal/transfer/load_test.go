package transfer

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
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
