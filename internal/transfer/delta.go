package transfer

import (
	"cmp"
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
	// without last. It fails with errors.ErrUnsupported where its layers are not to be read so. See engine.Client.
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

	whole map[image.Digest]bool // layers that are read whole, in any case

	planning sync.Mutex // held by who looks what the engine has: one layer at a time

	mu      sync.Mutex
	rebuilt map[image.Digest]rebuilding
	planned map[image.Digest]*layerPlan // to be used by open
	misled  bool                        // a layer was put together and was another one: no more of that
}

// rebuilding is what a layer took that was put together, in bytes.
type rebuilding struct {
	fetched int64 // read of the remote: indexes, literals, frames, and what is between them
	local   int64 // contents that the engine or the cache had
	size    int64 // of the layer
}

// deltas returns what puts together the layers that the engine lacks; nil where nothing can.
func (p *pull) newDeltas(send []image.Digest) *deltas {
	parts, gives := p.from.(remote.Parts)
	engine, _ := p.to.(Relatives)
	keeper, _ := p.from.(remote.Keeper)
	if p.o.Delta == DeltaNever || !gives || engine == nil && keeper == nil {
		return nil
	}
	whole := p.neverMade()
	var stored, kept int64
	n := 0
	missing := map[image.Digest]bool{}
	for _, d := range send {
		missing[d] = true
		switch l := p.layers[d]; {
		case l.Stored < p.o.leastDelta:
		case whole[d]:
			n, kept = n+1, kept+l.Stored
		default:
			stored += l.Stored
		}
	}
	p.sayWhole(n, kept)
	if stored == 0 {
		return nil
	}
	d := &deltas{
		o: p.o, source: p.from, parts: parts, keeper: keeper, whole: whole,
		rebuilt: map[image.Digest]rebuilding{}, planned: map[image.Digest]*layerPlan{},
	}
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

// neverMade returns the layers that are not put together: those that the engine takes as they are compressed, and
// those that lie in a blob of which the image says that it is not of zstd, and so has no index.
func (p *pull) neverMade() map[image.Digest]bool {
	whole := map[image.Digest]bool{}
	for _, l := range p.tree.Layers() {
		if tar, compressed := l.Tar(); tar && compressed {
			whole[l.Digest] = true
		}
	}
	packed, _ := p.tree.Packed() // pack fails for what is wrong with it
	for tar, in := range packed {
		if p.layers[tar].Packed == in.Digest && compressionOf(in) != "zstd" {
			whole[tar] = true
		}
	}
	return whole
}

// layerPlan is how a layer is to be put together.
type layerPlan struct {
	*delta.Plan
	parts  *layerParts
	tables int64 // bytes of other layers' indexes that were read to plan it
	size   int64 // of the layer, as its index has it
}

// size returns how large a layer is of which only reading it would tell, by its index, where it is to be put together:
// that proves it, and where it is wrong the layer is another one. It is false where it is to be read whole.
func (d *deltas) size(ctx context.Context, layer remote.Layer) (size int64, ok bool) {
	if !d.may(layer) {
		return -1, false
	}
	size, err := d.o.Rebuild(ctx, layer.Digest, func() (int64, error) {
		plan := d.plan(ctx, layer)
		if plan == nil {
			return -1, cmp.Or(ctx.Err(), errWhole)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.planned[layer.Digest] = plan
		return plan.size, nil
	})
	return size, err == nil
}

// take returns the plan of a layer that size has made, once, or else makes one.
func (d *deltas) take(ctx context.Context, layer remote.Layer) *layerPlan {
	if d != nil && !d.isMisled() {
		d.mu.Lock()
		plan := d.planned[layer.Digest]
		delete(d.planned, layer.Digest)
		d.mu.Unlock()
		if plan != nil {
			return plan
		}
	}
	return d.plan(ctx, layer)
}

// may reports whether a layer may be put together: large ones that the engine gets as tars, and the cache has not.
func (d *deltas) may(layer remote.Layer) bool {
	return d != nil && layer.Stored >= d.o.leastDelta && layer.Source != remote.InCache && !d.whole[layer.Digest] && !d.isMisled()
}

// plan finds out whether a layer is to be put together, and how. It returns nil where it is to be read whole.
func (d *deltas) plan(ctx context.Context, layer remote.Layer) *layerPlan {
	if !d.may(layer) {
		return nil
	}
	d.o.Progress.Status("looking what is there of layer " + layer.Digest.Short())
	defer d.o.Progress.Status("")
	plan, err := d.tryPlan(ctx, layer)
	if err != nil {
		d.o.Log.Debug("the layer is read whole", "layer", layer.Digest, "why", err)
		return nil
	}
	return plan
}

// tryPlan reads the layer's own index while other layers look what the engine has: the one that is fed first may
// come last, and would wait for all the others' requests.
func (d *deltas) tryPlan(ctx context.Context, layer remote.Layer) (*layerPlan, error) {
	if err := d.findRelatives(ctx, layer); err != nil {
		return nil, err
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
	plan, err := d.planFrom(ctx, parts, x)
	if err != nil {
		return nil, err
	}
	switch {
	case plan.Local == 0:
		return nil, errors.New("nothing of it is there")
	case plan.Fetch >= layer.Stored:
		return nil, errors.New("as much would be fetched as the whole is")
	case d.o.Delta == DeltaAlways:
		return plan, nil
	case !plan.Worth(layer.Stored, 1, localRate, 0): // over the slowest link
		return nil, fmt.Errorf("%d of %d bytes would be fetched", plan.Fetch, layer.Stored)
	}
	d.planning.Lock() // probes at once would measure each other
	parts.probe(ctx, x)
	d.planning.Unlock()
	latency, rate := d.link.speed()
	if !plan.Worth(layer.Stored, rate, localRate, latency) {
		return nil, fmt.Errorf("the whole is quicker: %d of %d bytes would be fetched, at %.0f a second after %s", plan.Fetch, layer.Stored, rate, latency)
	}
	d.o.Log.Debug("the layer is put together", "layer", layer.Digest, "fetch", plan.Fetch, "stored", layer.Stored, "local", plan.Local, "rate", int64(rate), "latency", latency)
	return plan, nil
}

// findRelatives fails where a layer is not even worth reading its index.
func (d *deltas) findRelatives(ctx context.Context, layer remote.Layer) error {
	d.planning.Lock()
	defer d.planning.Unlock()
	if err := d.relation.find(ctx); err != nil {
		return err
	}
	// A registry does not find a layer of yesterday's image by what is in it. So its index is remembered today.
	packed := !layer.Packed.IsZero() && d.o.CacheDir != ""
	if d.relation.empty() && !(packed && d.relation.readable) {
		return errors.New("nothing is there that could be used")
	}
	return nil
}

// planFrom plans a layer, of which parts have read the index x, out of what is there.
func (d *deltas) planFrom(ctx context.Context, parts *layerParts, x *chunk.Index) (*layerPlan, error) {
	d.planning.Lock()
	defer d.planning.Unlock()
	if !d.relation.hold(x) { // a registry's layers are all planned before the first one moves
		return nil, errors.New("the indexes of this image are too large")
	}
	if err := d.relation.look(ctx); err != nil {
		return nil, err
	}
	locals, tables := d.relation.cover(ctx, parts.layer, x)
	return &layerPlan{delta.NewPlan(x, locals), parts, tables, x.Size}, nil
}

// errWhole says that a layer is to be read whole.
var errWhole = errors.New("it is read whole")

// open opens a layer as Source.Open does, put together where that is worth it. What keeps layers gets it so, too.
func (d *deltas) open(ctx context.Context, from remote.Source, layer remote.Layer) (io.ReadCloser, error) {
	may := d.may(layer)
	if !may && !d.isMisled() {
		return from.Open(ctx, layer)
	}
	as := layer
	if !layer.Packed.IsZero() { // its size may be what the index says, which proves nothing against what is kept, or there
		as.Size = -1
	}
	made := func(ctx context.Context) (io.ReadCloser, error) { return d.make(ctx, from, layer) }
	var body io.ReadCloser
	err := errWhole // since an index has lied, and others of the image may have as well
	if may {
		err = errors.ErrUnsupported
		if d.keeper != nil {
			body, err = d.keeper.OpenMade(ctx, as, made)
		}
		if errors.Is(err, errors.ErrUnsupported) {
			body, err = made(ctx)
		}
	}
	if errors.Is(err, errWhole) {
		body, err = from.Open(ctx, as)
	}
	if err != nil {
		d.noteMisled(err)
		return nil, err
	}
	return &madeLayer{image.HoldBack(&sizedLayer{r: body, layer: layer}, func() error { return nil }), body, d}, nil
}

// madeLayer is a layer that was put together, by this pull or another one. Where it was put together wrong, this pull
// knows it.
type madeLayer struct {
	io.Reader
	io.Closer
	deltas *deltas
}

func (m *madeLayer) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.deltas.noteMisled(err)
	return n, err
}

// sizedLayer is a layer that is proved, wherever it comes from, but for its size. Where that is not what the index said,
// who was told so has been misled.
type sizedLayer struct {
	r     io.Reader
	layer remote.Layer
	read  int64
}

func (s *sizedLayer) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.read += int64(n)
	if size := s.layer.Size; size >= 0 && (s.read > size || err == io.EOF && s.read < size) {
		return 0, &misledError{s.layer.Digest, fmt.Errorf("it has not the %d bytes that its index says", s.layer.Size)}
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
	plan := d.take(ctx, layer)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case plan == nil:
		return nil, errWhole
	}
	whole := layer
	if !layer.Packed.IsZero() { // see open
		whole.Size = -1
	}
	r := &rebuiltLayer{deltas: d, layer: layer, plan: plan}
	r.body = plan.Open(ctx, delta.Options{
		Read:  plan.parts.open,
		Whole: func(ctx context.Context) (io.ReadCloser, error) { return from.Open(ctx, whole) },
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
	took := rebuilding{fetched: r.plan.tables + r.plan.parts.fetched.Load(), local: stats.Local, size: r.layer.Size}
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
		// Of what was read already, nothing is read again.
		left := plan.FetchBefore(layer.Stored - int64(len(plan.parts.tail)))
		d.note(layer.Digest, rebuilding{plan.tables + plan.parts.fetched.Load() + left, plan.Local, plan.size})
	}
}

// mislead says that a layer was put together which was another one: an index has lied. All are read whole from then on.
func (d *deltas) mislead() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.misled = true
	clear(d.rebuilt)
	clear(d.planned)
}

// noteMisled is mislead where err says so.
func (d *deltas) noteMisled(err error) {
	var wrong *misledError
	if errors.As(err, &wrong) {
		d.mislead()
	}
}

func (d *deltas) isMisled() bool {
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.misled
}
