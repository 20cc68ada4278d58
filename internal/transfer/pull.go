package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// PullImage is an image to pull: as the remote knows it, and as the engine is to.
type PullImage struct {
	Source image.Reference
	Target image.Reference // without a tag the image stays untagged in the engine
}

// cleanupTime is how long the engine gets to remove what a failed pull left, also after an interrupt.
const cleanupTime = 10 * time.Second

// Pull moves images from a remote to an engine, in the order given, and tags
// each once the engine has it whole. It stops at the first failure and returns
// the results of what was done before it. After a failure nothing of the failed
// image is left in the engine; after an interrupt at most the whole image,
// untagged, which a rerun finds.
func Pull(ctx context.Context, from remote.Source, to Loader, images []PullImage, o Options) ([]Result, error) {
	o = o.withDefaults()
	plan := make([]*pull, len(images))
	for i, img := range images { // all of them first: fail before anything moves
		p := &pull{from: from, to: to, o: o, image: img}
		if err := p.resolve(ctx); err != nil {
			return nil, err
		}
		plan[i] = p
	}
	var results []Result
	for _, p := range plan {
		result, err := p.run(ctx)
		if err != nil {
			return results, err
		}
		results = append(results, result)
	}
	return results, nil
}

// pull is one image on its way.
type pull struct {
	from  remote.Source
	to    Loader
	o     Options
	image PullImage

	id      image.ID
	doc     []byte
	diffIDs []image.DiffID
	layers  map[image.DiffID]remote.Layer
}

// resolve reads everything but the layers, and makes sure that those are there.
func (p *pull) resolve(ctx context.Context) (err error) {
	if p.id, err = p.from.Resolve(ctx, p.image.Source); err != nil {
		return err
	}
	if p.doc, err = p.from.Document(ctx, p.id); err != nil {
		return fmt.Errorf("%s: %w", p.image.Source, err)
	}
	config, err := image.ParseConfig(p.doc)
	if err != nil {
		return fault.Wrap(fault.Other, err, "%s is not an image that this version can pull", p.image.Source)
	}
	p.diffIDs = config.DiffIDs
	distinct := image.Distinct(config.DiffIDs)
	layers, err := p.from.Layers(ctx, distinct)
	if err != nil {
		return fmt.Errorf("%s: %w", p.image.Source, err)
	}
	p.layers = make(map[image.DiffID]remote.Layer, len(layers))
	for _, l := range layers {
		p.layers[l.DiffID] = l
	}
	return nil
}

func (p *pull) run(ctx context.Context) (Result, error) {
	held, err := p.held(ctx)
	if err != nil {
		return Result{}, err
	}
	if p.o.DryRun {
		return p.result(held), nil
	}
	has := held == len(p.diffIDs)
	if has { // all layers; the image itself as well?
		if has, err = p.to.Has(ctx, p.id); err != nil {
			return Result{}, err
		}
	}
	for _, d := range image.Distinct(p.diffIDs[:held]) {
		p.o.Progress.Layer(d.Short(), p.layers[d].Size).Present()
	}
	if !has {
		if held, err = p.load(ctx, held); err != nil {
			return Result{}, err
		}
	}
	if p.image.Target.Tag != "" {
		if err := p.to.Tag(ctx, p.id, p.image.Target); err != nil {
			if !has {
				err = p.cleanUp(ctx, err)
			}
			return Result{}, err
		}
	}
	return p.result(held), nil
}

// held returns how many of the lowest layers the engine has.
func (p *pull) held(ctx context.Context) (int, error) {
	p.o.Progress.Status("asking the engine which layers it has")
	defer p.o.Progress.Status("")
	return p.to.Held(ctx, p.diffIDs)
}

// load sends the layers above the lowest held ones and makes sure that the
// image has arrived. Where the engine turns out to lack what it seemed to have,
// it sends all, once. It returns how many lowest layers were not sent.
func (p *pull) load(ctx context.Context, held int) (int, error) {
	err := p.send(ctx, held)
	if errors.Is(err, engine.ErrLacksLayer) && held > 0 {
		p.o.Progress.Note(fmt.Sprintf("%s: the engine lacks layers that it seemed to have; sending all of them", p.image.Source))
		p.o.Log.Info("partial load failed", "image", p.id, "error", err)
		held = 0
		err = p.send(ctx, held)
	}
	if err != nil {
		return 0, p.cleanUp(ctx, err)
	}
	has, err := p.to.Has(ctx, p.id)
	if err == nil && !has {
		err = fault.New(fault.Other, "the engine said that it loaded %s, but has no image %s", p.image.Source, p.id.Short())
	}
	if err != nil {
		return 0, p.cleanUp(ctx, err)
	}
	return held, nil
}

// send feeds the engine one archive with the layers above the lowest held ones.
// They are fetched ahead of the one being fed, o.Parallel at once.
func (p *pull) send(ctx context.Context, held int) error {
	send := image.Distinct(p.diffIDs[held:])
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(stop)
	streams := p.fetch(gctx, g, send)
	archive := engine.Archive{
		Config:   p.doc,
		Manifest: p.manifest(),
		Open:     func(l image.Descriptor) (io.ReadCloser, error) { return streams[l.Digest], nil },
	}
	for _, d := range send {
		archive.Send = append(archive.Send, image.Descriptor{Digest: d, Size: p.layers[d].Size})
	}
	warnRoom(p.o, p.to, 2*total(archive.Send)) // staged, and unpacked
	body, writer := io.Pipe()
	g.Go(func() error {
		err := archive.Write(writer)
		writer.CloseWithError(err)
		if err == nil {
			p.o.Progress.Status(fmt.Sprintf("the engine is unpacking %s", p.image.Source))
		}
		return err
	})
	defer p.o.Progress.Status("")
	loaded, loadErr := p.to.Load(gctx, body, func(string) {})
	p.o.Log.Debug("the engine has answered", "loaded", loaded, "error", loadErr)
	body.CloseWithError(errReaderGone) // an engine may stop listening early
	if loadErr != nil {
		cancel()
	}
	err := g.Wait()
	if loadErr != nil && (err == nil || fault.Interrupted(err) || errors.Is(err, errReaderGone)) {
		return loadErr
	}
	return err
}

func total(layers []image.Descriptor) (size int64) {
	for _, l := range layers {
		size += l.Size
	}
	return size
}

// fetch opens the layers in order, o.Parallel at once, and returns their
// streams. Closing a stream makes room for the next layer.
func (p *pull) fetch(ctx context.Context, g *errgroup.Group, ids []image.DiffID) map[image.DiffID]*stream {
	streams := make(map[image.DiffID]*stream, len(ids))
	slots := make(chan struct{}, p.o.Parallel)
	for _, d := range ids {
		s := newStream()
		s.onGone = func() {
			select {
			case <-slots:
			default: // it never got its place
			}
		}
		streams[d] = s
	}
	g.Go(func() error {
		for _, d := range ids {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			g.Go(func() error { return p.fetchLayer(ctx, p.layers[d], streams[d]) })
		}
		return nil
	})
	return streams
}

func (p *pull) fetchLayer(ctx context.Context, layer remote.Layer, s *stream) error {
	bar := p.o.Progress.Layer(layer.DiffID.Short(), layer.Size)
	tar, err := p.from.Open(ctx, layer)
	if err != nil {
		bar.Fail()
		return s.fill(ctx, failing{err}, bar.Add)
	}
	defer tar.Close()
	if err := s.fill(ctx, tar, bar.Add); err != nil {
		bar.Fail()
		return err
	}
	bar.Done()
	return nil
}

// manifest returns the image's synthesised manifest, which names the archive's
// content for engines that go by it.
func (p *pull) manifest() []byte {
	layers := make([]image.Descriptor, len(p.diffIDs))
	for i, d := range p.diffIDs {
		layers[i] = image.Descriptor{Digest: d, Size: p.layers[d].Size}
	}
	return image.SynthesizeManifest(p.doc, layers)
}

// cleanUp removes from the engine what a failed pull left there, and returns
// err, with what went wrong in cleaning up. The image of an interrupted pull
// stays if it is whole: it has no tag of ours, and a rerun goes on from it.
func (p *pull) cleanUp(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	quick, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	if left := p.to.RemoveUntagged(quick, p.id); left != nil {
		return errors.Join(err, left)
	}
	return err
}

func (p *pull) result(held int) Result {
	name := p.image.Target.String()
	if p.image.Target.Tag == "" {
		name = p.image.Source.String()
	}
	r := Result{Image: name, ID: p.id, DryRun: p.o.DryRun, Layers: []LayerResult{}}
	moved := map[image.DiffID]bool{}
	for _, d := range p.diffIDs[held:] {
		moved[d] = true
	}
	for _, d := range image.Distinct(p.diffIDs) {
		l := p.layers[d]
		r.Layers = append(r.Layers, LayerResult{DiffID: d, Size: l.Size, Stored: l.Stored, Moved: moved[d]})
	}
	return r
}

// failing is a reader that gives an error alone.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
