package transfer

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/repo"
)

// TestRelationBudget: no indexes are read for which there is no room: of large layers for the sake of a small one, of
// many that are remembered, and of more rows than are to be in memory.
func TestRelationBudget(t *testing.T) {
	stored := func(n int64) *relative { return &relative{layer: remote.Layer{Stored: n}} }
	kept := func(n int64) *relative { return &relative{kept: true, layer: remote.Layer{Stored: n}} }
	known := func(n int64) *relative { return &relative{known: n} }
	layer := remote.Layer{Stored: 2 << 20}
	for _, c := range []struct {
		name   string
		budget int64
		rows   int
		all    []*relative
		want   []int
	}{
		{"all", 1 << 20, 0, []*relative{stored(1 << 20), known(1 << 20), stored(2 << 20)}, []int{0, 1, 2}},
		{"a large one", 128 << 10, 0, []*relative{stored(1 << 30), stored(1 << 20)}, []int{1}},
		{"small ones", 1 << 20, 0, []*relative{stored(1 << 10), known(1 << 10)}, []int{1}},
		{"many", 1 << 20, 0, []*relative{stored(2 << 20), stored(2 << 20), stored(2 << 20), stored(2 << 20), stored(2 << 20)}, []int{0, 1, 2, 3}},
		{"four have no room", 128 << 10, 0, []*relative{stored(30 << 20), stored(30 << 20), stored(30 << 20), stored(30 << 20)}, []int{0, 1}},
		{"remembered ones have none", 128 << 10, 0, []*relative{known(600 << 10), known(600 << 10), known(64 << 10)}, []int{0, 2}},
		{"kept ones need none", 16 << 10, 0, []*relative{kept(2 << 30), kept(1 << 10), kept(2 << 30), stored(1 << 20)}, []int{0, 2, 3}},
		{"no room for rows", 1 << 20, mostRows, []*relative{stored(2 << 20), known(1 << 10), kept(2 << 20)}, nil},
	} {
		r := relation{budget: c.budget, rows: c.rows, all: c.all}
		next := r.next(layer)
		ok := len(next) == len(c.want)
		for i := range next {
			ok = ok && next[i] == c.all[c.want[i]]
		}
		if !ok {
			t.Errorf("%s: %d are read: %+v", c.name, len(next), next)
		}
	}
}

// deltasOf are those of a pull of the last layers of images.
func (w *deltaWorld) deltasOf(t *testing.T, from remote.Source, images ...*enginetest.Image) (*deltas, []remote.Layer) {
	t.Helper()
	var order []image.Digest
	for _, m := range images {
		order = append(order, digestOf(t, layerOf(m)))
	}
	layers, err := remote.Layers(t.Context(), w.remote, order)
	if err != nil {
		t.Fatal(err)
	}
	p := &pull{from: from, to: w.keeper, o: w.o, tree: &image.Tree{}, image: pulls(t, "much:2")[0], order: order, layers: map[image.Digest]remote.Layer{}}
	p.o.Log = slog.New(slog.DiscardHandler)
	p.o = p.o.withDefaults()
	for _, l := range layers {
		p.layers[l.Digest] = l
	}
	return p.newDeltas(order), layers
}

// TestRelationRows: an index for which there is no room in memory is not used, be it the layer's own or another's.
func TestRelationRows(t *testing.T) {
	w := newDeltaWorld(t)
	d, layers := w.deltasOf(t, w.remote, w.two)
	if d.plan(t.Context(), layers[0]) == nil {
		t.Fatal("it is not put together")
	}
	for own, room := range []int{d.relation.rows/2 - 1, d.relation.rows - 1} { // both have as many
		d, layers := w.deltasOf(t, w.remote, w.two)
		d.relation.rows = mostRows - room
		if plan := d.plan(t.Context(), layers[0]); plan != nil || d.relation.rows > mostRows || d.relation.looked != (own == 1) {
			t.Errorf("room for %d rows: %+v", room, plan)
		}
	}
	if d, layers = w.deltasOf(t, w.remote, w.two); d.plan(t.Context(), layers[0]) == nil {
		t.Error("with room it is not put together")
	}
}

// meetingParts answers once parts of so many layers were asked for.
type meetingParts struct {
	*repo.Repo
	mu   sync.Mutex
	met  map[image.Digest]bool
	want int
	all  chan struct{}
}

func (m *meetingParts) OpenPart(ctx context.Context, l remote.Layer, offset, n int64) (io.ReadCloser, error) {
	m.mu.Lock()
	if m.met[l.Digest] = true; len(m.met) == m.want {
		close(m.all)
		m.want = -1
	}
	m.mu.Unlock()
	select {
	case <-m.all:
		return m.Repo.OpenPart(ctx, l, offset, n)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestPlansMeet: no layer waits with its own index until another one is planned: the engine may need it first.
func TestPlansMeet(t *testing.T) {
	w := newDeltaWorld(t)
	three := enginetest.NewImage().Tag("much:3").Layer(release(firstRelease.Add(2*time.Hour), 40)...)
	mustPush(t, newClassic(three).connect(t), w.remote, "much:3")
	from := &meetingParts{Repo: w.remote, met: map[image.Digest]bool{}, want: 2, all: make(chan struct{})}
	d, layers := w.deltasOf(t, from, w.two, three)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // for those who would never meet
	defer cancel()
	var planning sync.WaitGroup
	for _, l := range layers {
		planning.Go(func() {
			if d.plan(ctx, l) == nil {
				t.Errorf("%s is not put together", l.Digest.Short())
			}
		})
	}
	planning.Wait()
}
