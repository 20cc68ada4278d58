package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// copying is one image on its way from remote to remote.
type copying struct {
	*copier
	from  remote.Source // of the image's repository
	to    remote.Target
	image CopyImage
	tag   func(context.Context, image.Reference, image.ID) error

	member   bool                  // no tag's image: all of it is meant, whatever was asked for of tags
	alone    bool                  // what refers to it is copied by who copies what it refers to
	referred int                   // manifests that refer to it, and were copied with it
	warned   map[image.Digest]bool // that refer to it, and are left out
	toldLeft int                   // how many of them was said

	id      image.ID                          // what the tag names at the source
	tree    *image.Tree                       // what is copied: that, unless it is compressed anew
	unpack  unpacking                         // of what is
	packed  map[image.DiffID]image.Descriptor // layers by their diffIDs, where manifests have them compressed
	media   map[image.Digest]string           // media types of layers
	order   []image.Digest                    // of the layers, bottom first, each once
	closure remote.Closure                    // all that the image needs at the target

	missing remote.Closure                // what of it is to be sent
	again   bool                          // it was there, and has vanished
	results map[image.Digest]*LayerResult // of the layers
	sent    map[image.Digest]remote.Layer // layers that came to the target, also for another image
}

// find asks the source what the tag names.
func (p *copying) find(ctx context.Context) (err error) {
	if id, ok := p.o.pinned[p.image.Source]; ok {
		p.id = id
		return nil
	}
	p.id, err = p.from.Resolve(ctx, p.image.Source)
	return err
}

// read reads what the image is made of, and makes sure that it may be copied.
func (p *copying) read(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		err := p.readOnce(ctx)
		if attempt == 0 && p.o.pinned != nil && fault.Is(err, fault.Damaged) {
			// A source makes the documents of an image of format 1.0 when its tag is
			// resolved, and does not keep those of many until an export comes to them.
			if _, failed := p.from.Resolve(ctx, p.image.Source); failed == nil {
				continue
			}
		}
		if again, err := p.follow(ctx, err, attempt); !again {
			return err
		}
	}
}

// follow says whether to begin again behind err, since the source has another
// image by that name now, and else what is to be told. An export follows nothing.
func (p *copying) follow(ctx context.Context, err error, attempt int) (again bool, _ error) {
	if p.o.pinned != nil {
		return false, err // what it names now is not what was planned
	}
	now, since := remote.Since(ctx, p.from, p.image.Source, p.id, err)
	if since != nil || now == p.id {
		return false, since
	}
	if attempt == mendings {
		return false, err
	}
	p.o.Log.Info("the tag has moved, copying what it names now", "image", p.image.Source, "was", p.id, "error", err)
	p.id = now
	p.forgetFailed()
	return true, nil
}

func (p *copying) readOnce(ctx context.Context) error {
	if err := p.survey(ctx); err != nil {
		return err
	}
	return p.mayTag(ctx)
}

// survey reads what the image is made of.
func (p *copying) survey(ctx context.Context) (err error) {
	if err := p.readTree(ctx); err != nil {
		return err
	}
	_, docs := p.tree.Documents()
	if err := remote.CheckOutside(p.image.Source.String(), docs...); err != nil {
		return err
	}
	if p.packed, err = p.tree.Packed(); err != nil {
		return p.noImage(err)
	}
	if !p.member {
		if p.tree, p.unpack, err = p.o.recompress(p.image.Source.String(), p.tree, p.packed); err != nil {
			return err
		}
	}
	if p.closure, err = remote.ClosureIn(p.to, p.tree); err != nil {
		return p.noImage(err)
	}
	p.order, p.media = nil, map[image.Digest]string{}
	for _, l := range p.tree.Layers() {
		p.order = append(p.order, l.Digest)
		p.media[l.Digest] = l.MediaType
	}
	p.results, p.sent, p.again = map[image.Digest]*LayerResult{}, map[image.Digest]remote.Layer{}, false
	return nil
}

func (p *copying) noImage(err error) error {
	return fault.Wrap(fault.Other, err, "%s is not an image that this version can copy", p.image.Source)
}

// readTree reads the documents: of an index those of all that the source has, or
// that are asked for.
func (p *copying) readTree(ctx context.Context) (err error) {
	c := chosen(p.image.Source.String(), p.o.Options)
	c.all = c.all || p.member
	c.attested = true
	p.tree, err = remote.ReadTree(ctx, p.from, p.id, func(held []image.Child) ([]image.Digest, error) {
		if len(held) == 0 {
			return nil, fault.New(fault.Damaged, "incomplete copy: none of its platforms is in %s", p.o.From).
				Advise("Push the image there again.")
		}
		return c.pick(held)
	})
	var wrong *image.TreeError
	switch {
	case errors.As(err, &wrong):
		return p.noImage(err)
	case err != nil:
		return named(p.image.Source, err)
	}
	if config := p.tree.Image(); config != nil {
		return c.check(config.Platform)
	}
	if p.o.AllPlatforms && !p.member && p.tree.Kind == image.IndexKind {
		return p.checkPlatforms()
	}
	return nil
}

// checkPlatforms makes sure that the source has all manifests of the index.
func (p *copying) checkPlatforms() error {
	for _, m := range p.tree.Index.Manifests {
		if !slices.ContainsFunc(p.tree.Children, func(t *image.Tree) bool { return t.ID == m.Digest }) {
			return fault.New(fault.NotFound, "%s has not all platforms of %s: it lacks %s, %s", p.o.From, p.image.Source, m.Platform, m.Digest.Short()).
				Advise("Push the others there first, or leave --all-platforms out.")
		}
	}
	return nil
}

// mayTag finds out how the tag is to be written, and whether it may be.
func (p *copying) mayTag(ctx context.Context) error {
	p.tag = p.to.Tag
	if from := p.image.Moves; !from.IsZero() {
		mover, ok := p.to.(remote.Mover)
		if !ok {
			return fault.New(fault.Refused, "%s cannot promise that the tag %s is moved only while it names what it did", p.o.To, p.image.Target)
		}
		p.tag = func(ctx context.Context, ref image.Reference, id image.ID) error {
			return mover.MoveTag(ctx, ref, from, id)
		}
	}
	if !p.o.IfAbsent {
		return nil
	}
	creator, ok := p.to.(remote.TagCreator)
	if !ok {
		return fault.New(fault.Refused, "%s cannot promise that the tag %s is not overwritten", p.o.To, p.image.Target).
			Advise("Copy without --if-absent.")
	}
	p.tag = creator.CreateTag
	try := !p.o.DryRun && p.tried.CompareAndSwap(false, true) // once is enough
	return creator.MayCreate(ctx, p.image.Target, p.tree.ID, try)
}

// run copies the image. Where the source turns out not to have it whole, because
// its tag has moved on meanwhile and the old image is gone, it copies the new one.
func (p *copying) run(ctx context.Context) (Result, error) {
	for attempt := 0; ; attempt++ {
		result, err := p.move(ctx)
		again, err := p.follow(ctx, err, attempt)
		if !again {
			p.o.sayKept(p.to, result)
			return result, err
		}
		if err := p.read(ctx); err != nil {
			return Result{}, err
		}
	}
}

// move sends what the target lacks, and tags the image.
func (p *copying) move(ctx context.Context) (Result, error) {
	missing, there, err := p.to.Missing(ctx, p.closure)
	p.o.Progress.Status("")
	if err != nil {
		return Result{}, err
	}
	for _, l := range there {
		if slices.Contains(p.order, l.Digest) {
			p.results[l.Digest] = &LayerResult{Digest: l.Digest, Size: l.Size, Stored: l.Stored, packed: !l.Packed.IsZero()}
			p.present(l)
		}
	}
	p.plan(missing)
	if p.o.DryRun {
		if err = p.send(ctx); err == nil {
			err = p.referrers(ctx)
		}
	} else {
		err = deliver(ctx, p, p.o.Log)
	}
	if err != nil {
		return Result{}, err
	}
	return p.result(), nil
}

// plan notes what is to be sent: of a layer that is missing by its diffID, what
// the image has it compressed in.
func (p *copying) plan(missing remote.Closure) {
	for i, d := range missing.Layers {
		if packed, ok := p.packed[d]; ok && !slices.Contains(p.order, d) {
			missing.Layers[i] = packed.Digest
		}
	}
	missing.Layers = image.Distinct(missing.Layers)
	p.missing = missing
}

// mend plans to write again what vanished. Of an index the target may hold
// manifests that are not part of this copy: what they lack is not for it to give.
func (p *copying) mend(lost remote.Closure) error {
	if id, foreign := outside(p.closure, lost); foreign {
		return fault.New(fault.Damaged, "incomplete copy: %s says that it has another platform of %s, and lacks entry %s of it", p.o.To, p.image.Target, id.Short()).
			Advise("Copy that platform too, from a remote that has it, or push the image from an engine that does.")
	}
	p.again = true
	p.plan(lost)
	return nil
}

// needs is all that the image needs.
func (p *copying) needs() remote.Closure { return p.closure }

func (p *copying) vanishing(err error) *fault.Error {
	return fault.Wrap(fault.Other, err, "%s keeps vanishing from %s while it is copied", p.image.Target, p.o.To)
}

// send moves what is missing: layers, then documents, those first that others name.
func (p *copying) send(ctx context.Context) error {
	if err := p.sendLayers(ctx); err != nil || p.o.DryRun {
		return err
	}
	ids, docs := p.tree.Documents()
	for i, id := range ids {
		if slices.Contains(p.missing.Documents, id) {
			if err := p.to.PutDocument(ctx, docs[i]); err != nil {
				return err
			}
		}
	}
	p.missing = remote.Closure{}
	return p.checkPacked()
}

// sendLayers looks the missing layers up at the source, and moves them.
func (p *copying) sendLayers(ctx context.Context) error {
	if len(p.missing.Layers) == 0 {
		return ctx.Err()
	}
	missing := p.missing.Layers
	blobs := make([]image.Digest, len(missing))
	for i, d := range missing {
		blobs[i], _ = p.unpack.blob(d)
	}
	layers, err := remote.Layers(ctx, p.from, blobs)
	if err != nil {
		return named(p.image.Source, err)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(p.o.Parallel)
	moved, own := make([]remote.Layer, len(layers)), make([]bool, len(layers))
	for i, l := range layers {
		as := p.as(missing[i], l)
		if p.o.DryRun {
			r := &LayerResult{Digest: as.Digest, Size: as.Size, Stored: l.Stored, Moved: true, object: p.objectOf(l, as)}
			if as.Digest != l.Digest {
				r.Stored = -1
			}
			p.results[as.Digest] = r
			continue
		}
		if gctx.Err() != nil {
			break
		}
		g.Go(func() (err error) {
			moved[i], own[i], err = p.carry(gctx, p.way(), l, as, p.again)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return named(p.image.Source, err)
	}
	if err := ctx.Err(); err != nil || p.o.DryRun {
		return err
	}
	for i, l := range layers {
		as := p.as(missing[i], l)
		p.sent[as.Digest] = moved[i]
		r := &LayerResult{Digest: as.Digest, Size: as.Size, Stored: moved[i].Stored, Moved: own[i]}
		if as.Size < 0 { // the source did not know
			r.Size = moved[i].Size
		}
		if was := p.results[as.Digest]; was != nil && was.Moved {
			r.Moved = true
		}
		p.results[as.Digest] = r
	}
	return nil
}

// as is how the target is given a layer, of which the source has l: itself, or what it is compressed in.
func (p *copying) as(id image.Digest, l remote.Layer) image.Descriptor {
	if id != l.Digest {
		return image.Descriptor{Digest: id, Size: -1}
	}
	return image.Descriptor{MediaType: p.media[id], Digest: id, Size: l.Size}
}

// checkPacked makes sure that the compressed layers which were moved are what the
// image's configs say: the target has found out what is in them.
func (p *copying) checkPacked() error {
	for id, packed := range p.packed {
		if l, ok := p.sent[packed.Digest]; ok && l.Tar != id {
			return fault.New(fault.Damaged, "layer %s of %s is not the %s that its config says", packed.Digest.Short(), p.image.Source, id.Short()).
				Advise("No engine could unpack it: build the image again.")
		}
	}
	return nil
}

// name tags the image, which is complete. Of an index it first says which
// manifests are there.
func (p *copying) name(ctx context.Context) error {
	if holder, ok := p.to.(remote.Holder); ok && p.tree.Kind == image.IndexKind {
		var ids []image.Digest
		for _, child := range p.tree.Children {
			ids = append(ids, child.ID)
		}
		if err := holder.Hold(ctx, p.tree.ID, ids); err != nil {
			return err
		}
	}
	if p.unpack == nil { // else it is another image than what they are about
		if err := p.signatures(ctx); err != nil {
			return err
		}
	}
	if err := p.referrers(ctx); err != nil {
		return err
	}
	return p.tag(ctx, p.image.Target, p.tree.ID)
}

// signatures copies those of the tag, before it: a reader that verifies never finds
// it without one. Under another name they would prove nothing.
func (p *copying) signatures(ctx context.Context) error {
	from, gives := p.from.(remote.Signatures)
	to, takes := p.to.(remote.Signatures)
	if ref := p.image.Source; !gives || !takes || ref.Tag == "" || ref.Tag != p.image.Target.Tag || ref.Repository != p.image.Target.Repository {
		return nil
	}
	for s, err := range from.Signed(ctx, p.image.Target, p.id) {
		if err != nil {
			return err
		}
		content, err := from.Signature(ctx, p.image.Target, s.Image, s.Key)
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Damaged) {
			continue // nobody takes it for one
		}
		if err == nil {
			err = p.o.putSignature(ctx, to, p.image.Target, s, content)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// putSignature stores what came from elsewhere, unless the target has the same, or
// what is to stay: a pull that has seen a newer signature takes the older one for a
// roll-back.
func (o Options) putSignature(ctx context.Context, to remote.Signatures, ref image.Reference, s remote.Signature, content []byte) error {
	there, err := to.Signature(ctx, ref, s.Image, s.Key)
	switch {
	case fault.Is(err, fault.NotFound), fault.Is(err, fault.Damaged):
	case err != nil:
		return err
	case bytes.Equal(there, content), o.SignatureStays != nil && o.SignatureStays(there, content):
		return nil
	}
	return to.PutSignature(ctx, ref, s.Image, s.Key, content)
}

func (p *copying) result() Result {
	r := Result{Image: p.image.Target.String(), ID: p.tree.ID, DryRun: p.o.DryRun, Layers: []LayerResult{}, Referrers: p.referred}
	for _, d := range p.order {
		if l := p.results[d]; l != nil {
			r.Layers = append(r.Layers, *l)
		}
	}
	return r
}

// named says which image a failure is about.
func named(ref image.Reference, err error) error {
	if fault.Interrupted(err) {
		return err
	}
	return fmt.Errorf("%s: %w", ref, err)
}
