package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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
// image is left in the engine; after an interrupt at most what the engine had
// whole: the image or a part of it, untagged. A rerun goes on from there, and
// removes the parts.
func Pull(ctx context.Context, from remote.Source, to Loader, images []PullImage, o Options) ([]Result, error) {
	o = o.withDefaults()
	plan := make([]*pull, len(images))
	planned := map[image.Digest]bool{}
	for i, img := range images { // all of them first: fail before anything moves
		p := &pull{from: remote.SourceOf(from, img.Source.Repository), to: to, o: o, image: img, planned: planned}
		if err := p.resolve(ctx); err != nil {
			return nil, err
		}
		plan[i] = p
	}
	var results []Result
	for _, p := range plan {
		result, err := p.follow(ctx)
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

	named  image.ID       // what the name stands for in the remote
	tree   *image.Tree    // what is pulled; for engines but containerd's image store a single image
	id     image.ID       // what the engine will call it
	config *image.Config  // of a single image
	doc    []byte         // the same in bytes
	order  []image.Digest // of its layers, bottom first, as the engine is to get them: one may occur again
	layers map[image.Digest]remote.Layer
	packed map[image.DiffID]image.Descriptor // layers that a store which goes by configs gets compressed, see pack

	held int // how many of the lowest layers a classic store has

	made []image.ID // images of stacks that this pull's loads have brought into the engine, or may have
	left []image.ID // such images of earlier pulls, which were killed, and of others at this time

	indexed map[image.DiffID]int64 // layers to be put together, and how large their indexes say that they are, see pack

	planned map[image.Digest]bool // layers of dry runs, which images of one call share

	deltas *deltas // nil where none of its layers can be put together

	signedBy string
}

// follow pulls the image. Where the remote turns out not to have it whole, because
// its tag has moved on meanwhile and the old image is gone, it pulls the new one.
func (p *pull) follow(ctx context.Context) (Result, error) {
	for attempt := 0; ; attempt++ {
		result, err := p.run(ctx)
		now, since := remote.Since(ctx, p.from, p.image.Source, p.named, err)
		if since != nil || now == p.named {
			return result, since
		}
		if attempt == mendings {
			return result, err
		}
		p.o.Log.Info("the tag has moved, pulling what it names now", "image", p.image.Source, "was", p.named, "error", err)
		*p = pull{from: p.from, to: p.to, o: p.o, image: p.image, planned: p.planned}
		if err := p.resolve(ctx); err != nil {
			return Result{}, err
		}
	}
}

// resolve reads everything but the layers, and makes sure that those are there.
func (p *pull) resolve(ctx context.Context) (err error) {
	if p.named, err = p.from.Resolve(ctx, p.image.Source); err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		err := p.read(ctx, p.named)
		now, since := remote.Since(ctx, p.from, p.image.Source, p.named, err)
		if since != nil || now == p.named {
			return since
		}
		if attempt == mendings {
			return err
		}
		p.named = now
	}
}

// read is resolve of what the name stands for. It may be called again, for another image.
func (p *pull) read(ctx context.Context, id image.ID) (err error) {
	p.order = nil
	if p.o.Verify != nil {
		if p.signedBy, err = p.o.Verify(ctx, p.image.Source, id); err != nil {
			return err
		}
	}
	if err := p.readTree(ctx, id); err != nil {
		return err
	}
	if p.to.Kind() == engine.Containerd {
		p.id = p.tree.ID
		for _, l := range p.tree.Layers() {
			p.order = append(p.order, l.Digest)
		}
	} else if err := p.single(); err != nil {
		return err
	}
	layers, err := remote.Layers(ctx, p.from, image.Distinct(p.order))
	if err != nil {
		return fmt.Errorf("%s: %w", p.image.Source, err)
	}
	p.layers = make(map[image.Digest]remote.Layer, len(layers))
	for _, l := range layers {
		p.layers[l.Digest] = l
	}
	p.packed, p.indexed = nil, nil
	if p.to.Kind() == engine.Containerd && p.tree.Kind == image.ConfigKind { // whose name goes by their sizes
		if err := p.pack(ctx, image.Distinct(p.order)); err != nil {
			return err
		}
		p.synthesize()
	}
	return nil
}

// readTree reads the documents of what is to be pulled.
func (p *pull) readTree(ctx context.Context, id image.ID) (err error) {
	c := choice{name: p.image.Source.String(), platform: p.o.Platform, all: p.o.AllPlatforms, attested: p.to.Kind() == engine.Containerd}
	if c.platform == (image.Platform{}) {
		c.platform = p.to.Platform()
	}
	p.tree, err = remote.ReadTree(ctx, p.from, id, c.pick)
	var wrong *image.TreeError
	switch {
	case errors.As(err, &wrong):
		return fault.Wrap(fault.Other, err, "%s is not an image that this version can pull", p.image.Source)
	case err != nil:
		return fmt.Errorf("%s: %w", p.image.Source, err)
	case p.tree.Kind == image.IndexKind && len(p.tree.Children) == 0:
		return c.none(nil)
	}
	if config := p.tree.Image(); config != nil && p.o.Platform != (image.Platform{}) {
		return c.check(config.Platform)
	}
	return nil
}

// single makes p.tree the one image that an engine takes which knows no indexes,
// and calls it by its config.
func (p *pull) single() error {
	if p.tree.Kind == image.IndexKind {
		if len(p.tree.Children) != 1 {
			return fault.New(fault.Usage, "%s is there for several platforms, and the engine keeps one of an image", p.image.Source).
				Advise("Choose one with --platform. Engines with the containerd image store keep all.")
		}
		p.tree = p.tree.Children[0]
	}
	if p.config = p.tree.Image(); p.config == nil {
		return fault.New(fault.Other, "%s is not an image that an engine can run", p.image.Source)
	}
	config := p.tree
	if p.tree.Kind == image.ManifestKind {
		config = p.tree.Children[0]
	}
	p.id, p.doc, p.order = config.ID, config.Doc, p.config.DiffIDs
	return nil
}

func (p *pull) run(ctx context.Context) (Result, error) {
	send, err := p.lacking(ctx)
	if err != nil {
		return Result{}, err
	}
	p.deltas = p.newDeltas(send)
	if p.o.DryRun {
		for _, d := range send {
			if !p.planned[d] {
				p.deltas.would(ctx, p.layers[d])
			}
		}
		return p.result(send), ctx.Err()
	}
	has := len(send) == 0
	if has { // all layers; the image itself as well?
		if has, err = p.has(ctx); err != nil {
			return Result{}, err
		}
	}
	for _, d := range image.Distinct(p.order) {
		if !slices.Contains(send, d) {
			p.o.Progress.Layer(d.Short(), p.layers[d].Size).Present()
		}
	}
	if has {
		p.o.Lacks(p.image, nil)
		p.unmake(ctx)
	} else if send, err = p.load(ctx, send); err != nil {
		return Result{}, err
	}
	if p.image.Target.Tag != "" {
		if err := p.to.Tag(ctx, p.id, p.image.Target); err != nil {
			if !has {
				err = p.cleanUp(ctx, err)
			}
			return Result{}, err
		}
	}
	return p.result(send), nil
}

// lacking returns the layers that the engine lacks, each once, bottom first.
func (p *pull) lacking(ctx context.Context) ([]image.Digest, error) {
	p.o.Progress.Status("asking the engine which layers it has")
	defer p.o.Progress.Status("")
	switch p.to.Kind() {
	case engine.Containerd:
		return p.lackingBlobs(ctx)
	case engine.Podman: // takes all or nothing
		if has, err := p.to.Has(ctx, p.id); has || err != nil {
			return nil, err
		}
		return image.Distinct(p.order), nil
	}
	held, below, err := p.to.Held(ctx, p.order)
	for n := 1; n <= len(p.order) && len(below) > 0; n++ {
		if id := image.DigestOf(p.stackConfig(n)); slices.Contains(below, id) {
			p.left = append(p.left, id)
		}
	}
	p.held = held
	return image.Distinct(p.order[held:]), err
}

// has reports whether the engine has the image, whole.
func (p *pull) has(ctx context.Context) (bool, error) {
	if p.to.Kind() == engine.Containerd {
		return p.hasWhole(ctx)
	}
	return p.to.Has(ctx, p.id)
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
		if errors.Is(err, engine.ErrAbsent) && errors.Is(left, engine.ErrAbsent) {
			return err // it would say the same again
		}
		return errors.Join(err, left)
	}
	return err
}

func (p *pull) result(sent []image.Digest) Result {
	name := p.image.Target.String()
	if p.image.Target.Tag == "" {
		name = p.image.Source.String()
	}
	r := Result{Image: name, ID: p.id, DryRun: p.o.DryRun, SignedBy: p.signedBy, Layers: []LayerResult{}}
	for _, d := range image.Distinct(p.order) {
		l := p.layers[d]
		took := p.deltas.taken(d)
		if l.Size < 0 && took.size > 0 {
			l.Size = took.size
		}
		r.Layers = append(r.Layers, LayerResult{Digest: d, Size: l.Size, Stored: l.Stored, Moved: slices.Contains(sent, d), Fetched: took.fetched, Local: took.local})
	}
	r.shareIn(p.planned)
	return r
}
