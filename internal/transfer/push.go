package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// PushImage is an image to push: as the engine knows it, and as the remote is to.
type PushImage struct {
	Source string
	Target image.Reference

	found *engine.Image // once the engine was asked
}

// Find asks the engine for the images, as Push would: a name that is mistyped can
// be told before a remote is made for it. Push does not ask for them again.
func Find(ctx context.Context, from Exporter, images []PushImage) error {
	for i := range images {
		if images[i].found != nil {
			continue
		}
		found, err := from.Inspect(ctx, images[i].Source)
		if err != nil {
			return err
		}
		images[i].found = &found
	}
	return nil
}

// Push moves images from an engine to a remote, in the order given, and tags
// each as soon as it is complete. Layers that are there already, also through
// an earlier image of the same call, are not read again. It stops at the first
// failure and returns the results of what was done before it; whole layers stay
// and a rerun goes on from there.
func Push(ctx context.Context, from Exporter, to remote.Target, images []PushImage, o Options) ([]Result, error) {
	o = o.withDefaults()
	plan := make([]*push, len(images))
	planned := map[image.Digest]bool{}
	if err := Find(ctx, from, images); err != nil {
		return nil, err
	}
	if !o.DryRun {
		var end func(context.Context)
		to, end = remote.Begin(to, o.Progress.Status)
		defer end(ctx)
	}
	for i, img := range images { // all of them first: fail before anything moves
		found := *img.found
		own := remote.TargetFor(to, img.Target)
		p := &push{from: from, to: own, o: o, img: found, id: found.ID, target: img.Target, tag: own.Tag, planned: planned}
		for _, other := range plan[:i] {
			if other.img.ID == found.ID {
				p.same = other
			}
		}
		if err := p.open(ctx); err != nil {
			return nil, err
		}
		if o.IfAbsent {
			if err := p.mayCreate(ctx); err != nil {
				return nil, err
			}
		}
		plan[i] = p
	}
	var results []Result
	for _, p := range plan {
		result, err := p.run(ctx)
		if err != nil {
			return results, err
		}
		o.sayKept(p.to, result)
		results = append(results, result)
	}
	return results, nil
}

// push is one image on its way.
type push struct {
	from   Exporter
	to     remote.Target
	o      Options
	img    engine.Image
	id     image.ID // what the tag will name: the image as the engine calls it, unless it is compressed anew
	target image.Reference
	tag    func(context.Context, image.Reference, image.ID) error

	closure remote.Closure // all that the image needs there; of blobs once they are known
	missing remote.Closure // what of it is to be sent
	layers  map[image.Digest]*LayerResult
	order   []image.Digest        // of the image's layers, bottom first, each once
	planned map[image.Digest]bool // layers of dry runs, which images of one call share

	signedBy string

	blobs *blobs // of an engine with the containerd image store, else nil
	same  *push  // of the same image, under another name, before this one; or nil
}

func (p *push) run(ctx context.Context) (Result, error) {
	if err := p.look(ctx); err != nil {
		return Result{}, err
	}
	if p.o.DryRun {
		if p.blobs.unknown() {
			if err := p.exportBlobs(ctx); err != nil {
				return Result{}, err
			}
		}
		return p.result(), nil
	}
	if err := deliver(ctx, p, p.o.Log); err != nil {
		return Result{}, err
	}
	return p.result(), nil
}

// mend plans to write again what vanished from the remote. Of an index the remote
// may hold manifests of other engines: what they lack is not this push's to give.
func (p *push) mend(lost remote.Closure) error {
	if id, foreign := outside(p.closure, lost); foreign {
		return fault.New(fault.Damaged, "incomplete copy: the remote says that it has another platform of %s, and lacks entry %s of it", p.target, id.Short()).
			Advise("Copy the remote again, or push the image from an engine that has that platform.")
	}
	p.plan(lost)
	return nil
}

// needs is all that the image needs.
func (p *push) needs() remote.Closure { return p.closure }

func (p *push) vanishing(err error) *fault.Error {
	return fault.Wrap(fault.Other, err, "%s keeps vanishing from the remote while it is pushed", p.target)
}

// plan notes what is to be sent.
func (p *push) plan(missing remote.Closure) {
	if p.blobs != nil {
		missing.Layers = p.blobs.sources(missing.Layers)
	}
	p.missing = missing
	for _, d := range missing.Layers {
		p.layers[d] = &LayerResult{Digest: d, Size: -1, Stored: -1, Moved: true}
	}
}

// mayCreate makes sure that the tag may be written, and lets run create it.
func (p *push) mayCreate(ctx context.Context) error {
	creator, ok := p.to.(remote.TagCreator)
	if !ok {
		return fault.New(fault.Refused, "this remote cannot promise that the tag %s is not overwritten", p.target).
			Advise("Push without --if-absent.")
	}
	p.tag = creator.CreateTag
	return creator.MayCreate(ctx, p.target, p.id, !p.o.DryRun)
}

// open finds out what the image is made of; of some that only an export tells later.
func (p *push) open(ctx context.Context) error {
	p.closure = remote.Closure{Documents: []image.Digest{p.img.ID}, Layers: image.Distinct(p.img.DiffIDs)}
	p.order = p.closure.Layers
	p.layers = map[image.Digest]*LayerResult{}
	if p.from.Kind() != engine.Containerd { // what that has of an image, blobs tell
		return chosen(p.img.String(), p.o).check(p.img.Platform)
	}
	return p.openBlobs(ctx)
}

// look asks the remote what it lacks.
func (p *push) look(ctx context.Context) error {
	if p.learn(); p.blobs.unknown() {
		p.o.Progress.Status("")
		return nil
	}
	missing, there, err := p.to.Missing(ctx, p.closure)
	p.o.Progress.Status("")
	if err != nil {
		return err
	}
	for _, l := range there {
		p.there(l)
	}
	p.plan(missing)
	return nil
}

// there notes a layer that the remote has. Of one that is there by its diffID
// too, that is nothing to tell.
func (p *push) there(l remote.Layer) {
	if p.layers[l.Digest] != nil || !p.blobs.unknown() && !slices.Contains(p.order, l.Digest) {
		return
	}
	p.layers[l.Digest] = &LayerResult{Digest: l.Digest, Size: l.Size, Stored: l.Stored, packed: !l.Packed.IsZero()}
	p.o.Progress.Layer(l.Digest.Short(), l.Size).Present()
}

// name tags the image, which is complete. Of an index it first says which
// manifests are there. A signature comes before the tag: readers find it as soon
// as they find the tag.
func (p *push) name(ctx context.Context) error {
	if p.blobs != nil {
		if err := p.blobs.hold(ctx, p.to); err != nil {
			return err
		}
	}
	if p.o.Sign != nil {
		by, err := p.o.Sign(ctx, p.target, p.id)
		if err != nil {
			return err
		}
		p.signedBy = by
	}
	return p.tag(ctx, p.target, p.id)
}

func (p *push) result() Result {
	r := Result{Image: p.target.String(), ID: p.id, DryRun: p.o.DryRun, SignedBy: p.signedBy, Layers: []LayerResult{}}
	for _, d := range p.order {
		if l := p.layers[d]; l != nil {
			r.Layers = append(r.Layers, *l)
		}
	}
	r.shareIn(p.planned)
	return r
}

// send stores what is missing, from the engine's own store where that can be
// read, and the rest from an export.
func (p *push) send(ctx context.Context) error {
	if p.missing.Empty() && !p.blobs.unknown() {
		return nil
	}
	if p.blobs != nil {
		return p.sendBlobs(ctx)
	}
	stored, err := p.from.Stored(p.img)
	if err == nil && stored != nil {
		err = p.sendStored(ctx, stored)
	}
	if err != nil || p.missing.Empty() {
		return err
	}
	return p.sendExport(ctx)
}

// sendExport reads one export and stores what is missing of it: layers as they
// come by, documents behind them. It stops reading when it has all.
func (p *push) sendExport(ctx context.Context) error {
	var config []byte
	err := p.export(ctx, func(ctx context.Context, g *errgroup.Group, export *engine.Export) (err error) {
		config, err = p.feed(ctx, g, export)
		return err
	})
	if err != nil {
		return err
	}
	if config == nil { // only layers were missing
		return ctx.Err()
	}
	p.missing = remote.Closure{}
	return p.to.PutDocument(ctx, config)
}

// export asks the engine for an export. feed walks through it and starts puts in
// g, which are waited for.
func (p *push) export(ctx context.Context, feed func(context.Context, *errgroup.Group, *engine.Export) error) error {
	warnRoom(p.o, p.from, p.img.Size)
	p.o.Progress.Status(fmt.Sprintf("the engine is exporting %s", p.img))
	defer p.o.Progress.Status("")
	g, gctx := errgroup.WithContext(ctx)
	export := p.from.Export(gctx, p.img)
	defer export.Close() // when the puts have ended: they may still wait for its bytes
	err := feed(gctx, g, export)
	if putErr := g.Wait(); putErr != nil && (err == nil || fault.Interrupted(err) || errors.Is(err, errReaderGone)) {
		err = putErr
	}
	return err
}

// feed walks through the export and starts a put for each missing layer. It
// returns the config when that was missing. It does not wait for the puts.
func (p *push) feed(ctx context.Context, g *errgroup.Group, export *engine.Export) ([]byte, error) {
	layers := make(map[image.DiffID]bool, len(p.missing.Layers))
	for _, d := range p.missing.Layers {
		layers[d] = true
	}
	wantConfig := len(p.missing.Documents) > 0
	var config []byte
	slots := make(chan struct{}, p.o.Parallel)
	for len(layers) > 0 || wantConfig && config == nil {
		item, err := export.Next()
		if err == io.EOF {
			return nil, p.lacking(layers)
		}
		if err != nil {
			return nil, err
		}
		p.o.Progress.Status("")
		switch {
		case item.Document:
			if config, err = image.ReadDocument(item.Body, p.img.ID); err != nil {
				return nil, p.damaged(err, "config")
			}
		case layers[item.Digest]:
			delete(layers, item.Digest)
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			if err := p.put(ctx, g, item, func() { <-slots }); err != nil {
				return nil, err
			}
		default:
			p.o.Progress.Status(fmt.Sprintf("passing over layers of %s that are there already", p.img))
		}
	}
	if !wantConfig {
		config = nil
	}
	return config, nil
}

// put reads the item to its end, while a goroutine of g stores it; that one may
// go on when put has returned, and calls done at its end.
func (p *push) put(ctx context.Context, g *errgroup.Group, item engine.Item, done func()) error {
	id, packed := p.blobs.layerIn(item.Digest)
	layer := image.Descriptor{MediaType: p.mediaOf(item), Digest: id, Size: item.Size}
	bar := p.o.Progress.Layer(id.Short(), item.Size)
	body := io.Reader(watch(item.Body, bar.Add))
	if packed {
		tar := codec.Inflate(body)
		defer tar.Close()
		layer.Size, body = -1, tar
	}
	result := p.layers[id] // here, not in the goroutine: the caller goes on and notes other layers
	s := newStream(streamChunks)
	g.Go(func() error {
		defer done()
		defer s.Close()
		stored, err := p.to.PutLayer(ctx, layer, s)
		if err != nil {
			bar.Fail()
			var wrong *image.MismatchError
			if errors.As(err, &wrong) {
				return p.damaged(wrong, "layer "+id.Short())
			}
			return err
		}
		result.moved(stored)
		bar.Done()
		return nil
	})
	err := s.fill(ctx, body, func(int) {})
	if packed && errors.Is(err, codec.ErrDamaged) {
		return p.damaged(err, "layer "+item.Digest.Short())
	}
	return err
}

// mediaOf returns the media type of a layer of an export. Of a containerd image store
// it has one: a manifest names it so, and it is to be kept as it is, unless the image is compressed anew.
func (p *push) mediaOf(item engine.Item) string {
	switch {
	case p.blobs != nil && p.blobs.unpack != nil:
		return ""
	case item.Media == "" && p.blobs != nil:
		return ocispec.MediaTypeImageLayer
	}
	return item.Media
}

func (p *push) damaged(err error, what string) error {
	return fault.Wrap(fault.Damaged, err, "the engine gave wrong bytes for the %s of %s", what, p.img).
		Advise("The engine's own storage is damaged: pull or build the image again there.")
}

// lacking names something that the engine left out of its export.
func (p *push) lacking(layers map[image.DiffID]bool) error {
	what := "its config"
	for d := range layers {
		what = "layer " + d.Short()
	}
	return fault.New(fault.Damaged, "the engine's export of %s lacks %s", p.img, what).
		Advise("The engine's own storage is damaged: pull or build the image again there.")
}
