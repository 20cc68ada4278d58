package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// PushImage is an image to push: as the engine knows it, and as the remote is to.
type PushImage struct {
	Source string
	Target image.Reference
}

// mendings bounds how often a push writes again what vanished from the remote
// while it ran.
const mendings = 3

// Push moves images from an engine to a remote, in the order given, and tags
// each as soon as it is complete. Layers that are there already, also through
// an earlier image of the same call, are not read again. It stops at the first
// failure and returns the results of what was done before it; whole layers stay
// and a rerun goes on from there.
func Push(ctx context.Context, from Exporter, to remote.Target, images []PushImage, o Options) ([]Result, error) {
	o = o.withDefaults()
	plan := make([]*push, len(images))
	for i, img := range images { // all of them first: fail before anything moves
		found, err := from.Inspect(ctx, img.Source)
		if err != nil {
			return nil, err
		}
		plan[i] = &push{from: from, to: to, o: o, img: found, target: img.Target}
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

// push is one image on its way.
type push struct {
	from   Exporter
	to     remote.Target
	o      Options
	img    engine.Image
	target image.Reference

	missing remote.Closure
	layers  map[image.DiffID]*LayerResult
}

func (p *push) run(ctx context.Context) (Result, error) {
	if err := p.look(ctx); err != nil {
		return Result{}, err
	}
	if p.o.DryRun {
		return p.result(), nil
	}
	for attempt := 0; ; attempt++ {
		if !p.missing.Empty() {
			if err := p.send(ctx); err != nil {
				return Result{}, err
			}
		}
		err := p.to.Tag(ctx, p.target, p.img.ID)
		var incomplete *remote.IncompleteError
		if err == nil {
			return p.result(), nil
		}
		if !errors.As(err, &incomplete) {
			return Result{}, err
		}
		if attempt == mendings {
			return Result{}, fault.Wrap(fault.Other, err, "%s keeps vanishing from the remote while it is pushed", p.target).
				Advise("Something removes it: look for a clean-up job or a sync with deletion.")
		}
		p.o.Log.Info("part of the image vanished, writing it again", "image", p.target, "error", err)
		p.missing = incomplete.Missing
	}
}

// look asks the remote what it lacks.
func (p *push) look(ctx context.Context) error {
	distinct := image.Distinct(p.img.DiffIDs)
	missing, there, err := p.to.Missing(ctx, remote.Closure{Documents: []image.Digest{p.img.ID}, Layers: distinct})
	if err != nil {
		return err
	}
	p.missing = missing
	p.layers = make(map[image.DiffID]*LayerResult, len(distinct))
	for _, l := range there {
		p.layers[l.DiffID] = &LayerResult{DiffID: l.DiffID, Size: l.Size, Stored: l.Stored}
		p.o.Progress.Layer(l.DiffID.Short(), l.Size).Present()
	}
	for _, d := range missing.Layers {
		p.layers[d] = &LayerResult{DiffID: d, Size: -1, Stored: -1, Moved: true}
	}
	return nil
}

func (p *push) result() Result {
	r := Result{Image: p.target.String(), ID: p.img.ID, DryRun: p.o.DryRun, Layers: []LayerResult{}}
	for _, d := range image.Distinct(p.img.DiffIDs) {
		r.Layers = append(r.Layers, *p.layers[d])
	}
	return r
}

// send reads one export and stores what is missing of it: layers as they come
// by, documents behind them. It stops reading when it has all.
func (p *push) send(ctx context.Context) error {
	warnRoom(p.o, p.from, p.img.Size)
	p.o.Progress.Status(fmt.Sprintf("the engine is exporting %s", p.img))
	defer p.o.Progress.Status("")
	g, gctx := errgroup.WithContext(ctx)
	export := p.from.Export(gctx, p.img)
	config, err := p.feed(gctx, g, export)
	// The puts end before the export is closed: they may still wait for its bytes.
	if putErr := g.Wait(); putErr != nil && (err == nil || fault.Interrupted(err) || errors.Is(err, errReaderGone)) {
		err = putErr
	}
	export.Close()
	if err != nil {
		return err
	}
	if config == nil { // only layers were missing
		return ctx.Err()
	}
	p.missing = remote.Closure{}
	return p.to.PutDocument(ctx, config)
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
		case item.Config:
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
	bar := p.o.Progress.Layer(item.Digest.Short(), item.Size)
	s := newStream()
	g.Go(func() error {
		defer done()
		defer s.Close()
		stored, err := p.to.PutLayer(ctx, image.Descriptor{Digest: item.Digest, Size: item.Size}, s)
		if err != nil {
			bar.Fail()
			var wrong *image.MismatchError
			if errors.As(err, &wrong) {
				return p.damaged(wrong, "layer "+item.Digest.Short())
			}
			return err
		}
		result := p.layers[item.Digest]
		result.Size, result.Stored, result.Moved = stored.Size, stored.Stored, true
		bar.Done()
		return nil
	})
	return s.fill(ctx, item.Body, bar.Add)
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
