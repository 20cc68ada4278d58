package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/delta"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Delta says when a pull puts a layer together: out of what the engine or the cache has, and those parts of the stored
// layer that they have not.
type Delta string

// The values of Delta. The zero value is DeltaAuto.
const (
	DeltaAuto   Delta = "auto"   // where that is quicker than the whole layer, by what the pull measures
	DeltaAlways Delta = "always" // where anything of it is there
	DeltaNever  Delta = "never"
)

// ParseDelta reads a Delta. Its error is a Usage fault.
func ParseDelta(s string) (Delta, error) {
	switch d := Delta(s); d {
	case DeltaAuto, DeltaAlways, DeltaNever:
		return d, nil
	}
	return "", fault.New(fault.Usage, "%q is none of auto, always and never", s)
}

// Relatives is a Loader that has layers which can be read at any offset; *engine.Client is one.
type Relatives interface {
	// Relatives returns such layers, the likeliest first to have what new images of these names have, and those
	// without last. See engine.Client.
	Relatives(ctx context.Context, names []image.Reference, without []image.Digest) ([]engine.Relative, error)
}

const (
	// leastDelta is from how many stored bytes on a layer is worth asking what the engine has of it.
	leastDelta = 1 << 20
	// mostDeltaChunks bounds the chunks of a layer that is put together, and so the memory of its plan: some 64 GB.
	mostDeltaChunks = 1 << 20
	// enough is the share of a layer's content that other layers have, in percent, for which no more are looked at.
	enough = 90
	// localRate is how many bytes a second are read of what the engine has, and hashed: what disks of rented machines
	// give. It is not measured, since what is read to do so comes from memory afterwards. It decides between links of
	// a gigabit and more alone: over slower ones parts win at any rate. It holds for a cache as well: less is read
	// there, and frames decode several times as fast.
	localRate = 150e6
)

// deltas puts the layers of one image together, where that is worth it. What it cannot do is no failure: the
// layer is read whole. A nil one does nothing.
type deltas struct {
	o        Options
	source   remote.Source
	parts    remote.Parts
	keeper   remote.Keeper // nil where nothing keeps layers
	relation *relation
	link     link

	planning sync.Mutex // one layer at a time

	mu      sync.Mutex
	rebuilt map[image.Digest]rebuilding
	misled  bool // a layer was put together and was another one: no more of that
}

// rebuilding is what a layer took that was put together, in bytes.
type rebuilding struct {
	fetched int64 // read of the remote: indexes, literals, frames, and what is between them
	local   int64 // contents that the engine or the cache had
}

// deltas returns what puts together the layers that the engine lacks; nil where nothing can.
func (p *pull) newDeltas(send []image.Digest) *deltas {
	parts, gives := p.from.(remote.Parts)
	engine, _ := p.to.(Relatives)
	keeper, _ := p.from.(remote.Keeper)
	if p.o.Delta == DeltaNever || !gives || engine == nil && keeper == nil {
		return nil
	}
	var stored int64
	missing := map[image.Digest]bool{}
	for _, d := range send {
		missing[d] = true
		if l := p.layers[d]; l.Stored >= p.o.leastDelta {
			stored += l.Stored
		}
	}
	if stored == 0 {
		return nil
	}
	d := &deltas{o: p.o, source: p.from, parts: parts, keeper: keeper, rebuilt: map[image.Digest]rebuilding{}}
	d.relation = &relation{
		engine: engine, keeper: keeper, source: p.from, parts: parts, link: &d.link, tables: tables{p.o.CacheDir, p.o.Log}, log: p.o.Log,
		names: []image.Reference{p.image.Source, p.image.Target}, own: p.order, budget: stored / tableShare,
	}
	for _, l := range p.order {
		if !missing[l] {
			d.relation.without = append(d.relation.without, l)
		}
	}
	return d
}

// layerPlan is how a layer is to be put together.
type layerPlan struct {
	*delta.Plan
	parts  *layerParts
	tables int64 // bytes of other layers' indexes that were read to plan it
}

// plan finds out whether a layer is to be put together, and how. It returns nil where it is to be read whole.
func (d *deltas) plan(ctx context.Context, layer remote.Layer) *layerPlan {
	if d == nil || layer.Stored < d.o.leastDelta || layer.Source == remote.InCache || d.isMisled() {
		return nil
	}
	d.planning.Lock()
	defer d.planning.Unlock()
	d.o.Progress.Status("looking what is there of layer " + layer.Digest.Short())
	defer d.o.Progress.Status("")
	plan, err := d.tryPlan(ctx, layer)
	if err != nil {
		d.o.Log.Debug("the layer is read whole", "layer", layer.Digest, "why", err)
		return nil
	}
	return plan
}

func (d *deltas) tryPlan(ctx context.Context, layer remote.Layer) (*layerPlan, error) {
	if err := d.relation.find(ctx); err != nil {
		return nil, err
	}
	if d.relation.empty() {
		return nil, errors.New("nothing is there that could be used")
	}
	parts := &layerParts{from: d.parts, layer: layer, link: &d.link}
	x, err := parts.index(ctx)
	if err != nil {
		return nil, err
	}
	if layer.Size >= 0 && x.Size != layer.Size || len(x.Chunks) > mostDeltaChunks {
		return nil, fmt.Errorf("%w: its index is not of use", chunk.ErrDamaged)
	}
	d.relation.tables.put(layer.Digest, parts)
	locals, tables := d.relation.cover(ctx, layer, x)
	plan := &layerPlan{delta.NewPlan(x, locals), parts, tables}
	if plan.Local == 0 {
		return nil, errors.New("nothing of it is there")
	}
	if d.o.Delta != DeltaAlways {
		if !plan.Worth(layer.Stored, 1, localRate, 0) { // over the slowest link
			return nil, fmt.Errorf("%d of %d bytes would be fetched", plan.Fetch, layer.Stored)
		}
		parts.probe(ctx, x)
		if latency, rate := d.link.speed(); !plan.Worth(layer.Stored, rate, localRate, latency) {
			return nil, fmt.Errorf("the whole is quicker: %d of %d bytes would be fetched, at %.0f a second after %s", plan.Fetch, layer.Stored, rate, latency)
		}
	}
	return plan, nil
}

// errWhole says that a layer is to be read whole.
var errWhole = errors.New("it is read whole")

// open opens a layer as Source.Open does, put together where that is worth it. What keeps layers gets it so, too.
func (d *deltas) open(ctx context.Context, from remote.Source, layer remote.Layer) (body io.ReadCloser, err error) {
	if d == nil || d.isMisled() {
		return from.Open(ctx, layer)
	}
	made := func(ctx context.Context) (io.ReadCloser, error) { return d.make(ctx, from, layer) }
	err = errors.ErrUnsupported
	if d.keeper != nil && layer.Stored >= d.o.leastDelta {
		body, err = d.keeper.OpenMade(ctx, layer, made)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		body, err = made(ctx)
	}
	switch {
	case errors.Is(err, errWhole):
		return from.Open(ctx, layer)
	case err != nil:
		return nil, err
	}
	return &madeLayer{body, d}, nil
}

// madeLayer is a layer that was put together, by this pull or another one. Where it was put together wrong, this pull
// knows it.
type madeLayer struct {
	io.ReadCloser
	deltas *deltas
}

func (m *madeLayer) Read(p []byte) (int, error) {
	n, err := m.ReadCloser.Read(p)
	var wrong *misledError
	if errors.As(err, &wrong) {
		m.deltas.mislead()
	}
	return n, err
}

// misledError says that a layer was put together as another one.
type misledError struct {
	layer image.Digest
	cause error
}

func (e *misledError) Error() string {
	return fmt.Sprintf("layer %s was put together wrong: %s", e.layer.Short(), e.cause)
}

func (e *misledError) Unwrap() error { return e.cause }

// make puts a layer together. It fails with errWhole where that is not worth it.
func (d *deltas) make(ctx context.Context, from remote.Source, layer remote.Layer) (io.ReadCloser, error) {
	plan := d.plan(ctx, layer)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case plan == nil:
		return nil, errWhole
	}
	r := &rebuiltLayer{deltas: d, layer: layer, plan: plan}
	r.body = plan.Open(ctx, delta.Options{
		Read:  plan.parts.open,
		Whole: func(ctx context.Context) (io.ReadCloser, error) { return from.Open(ctx, layer) },
		Note: func(cause error) {
			d.o.Progress.Note(fmt.Sprintf("layer %s cannot be put together, reading it whole: %s", layer.Digest.Short(), cause))
			d.o.Log.Info("layer cannot be put together", "layer", layer.Digest, "error", cause)
		},
	})
	r.proved = image.Verify(r.body, layer.Digest, layer.Size)
	return r, nil
}

// rebuiltLayer is a layer that is put together.
type rebuiltLayer struct {
	deltas *deltas
	layer  remote.Layer
	plan   *layerPlan
	body   *delta.Reader
	proved io.Reader
}

func (r *rebuiltLayer) Read(p []byte) (int, error) {
	n, err := r.proved.Read(p)
	var wrong *image.MismatchError
	switch {
	case errors.As(err, &wrong) && fault.KindOf(err) != fault.Damaged: // that is the remote's own
		err = &misledError{r.layer.Digest, err}
	case err == io.EOF:
		r.note() // before who reads it out of a cache knows that this is all
	}
	return n, err
}

// Close implements io.Closer.
func (r *rebuiltLayer) Close() error {
	err := r.body.Close()
	r.note()
	return err
}

// note notes what it took.
func (r *rebuiltLayer) note() {
	stats := r.body.Stats()
	took := rebuilding{fetched: r.plan.tables + r.plan.parts.fetched.Load(), local: stats.Local}
	if stats.Whole {
		took.fetched += r.layer.Stored
	}
	r.deltas.note(r.layer.Digest, took)
}

func (d *deltas) note(layer image.Digest, took rebuilding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.misled {
		d.rebuilt[layer] = took
	}
}

// taken returns what a layer took that was put together; zero where it was not. A dry run has noted it by would.
func (d *deltas) taken(layer image.Digest) rebuilding {
	if d == nil {
		return rebuilding{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rebuilt[layer]
}

// would notes what it would take to put a layer together, where that were done.
func (d *deltas) would(ctx context.Context, layer remote.Layer) {
	if plan := d.plan(ctx, layer); plan != nil {
		d.note(layer.Digest, rebuilding{plan.tables + plan.parts.fetched.Load() + plan.Fetch, plan.Local})
	}
}

// mislead says that a layer was put together which was another one: an index has lied. All are read whole from then on.
func (d *deltas) mislead() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.misled = true
	clear(d.rebuilt)
}

func (d *deltas) isMisled() bool {
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.misled
}
