package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// This file is what a push does otherwise for an engine with the containerd image
// store. That keeps an image's documents and layers as blobs, by their digests,
// and they are stored byte for byte, so that the image keeps its ID
// (docs/decisions/0011-containerd-image-store.md).

// blobs is an image in a containerd image store.
type blobs struct {
	img    engine.Image
	o      Options
	to     remote.Target
	stored *engine.Stored // nil where the engine's own store cannot be read

	// Set once the documents are known: before anything moves if they can be read
	// in the engine's own store or in the remote, else by an export.
	tree    *image.Tree
	packed  map[image.DiffID]image.Descriptor // layers by their diffIDs, where the manifests have them compressed
	unpack  unpacking                         // where the layers are that tree has by their diffIDs, though the engine has them compressed
	closure remote.Closure
}

// errUnknown says that a document can be had by an export only.
var errUnknown = errors.New("its documents are not known yet")

// unknown reports whether only an export tells what the image is made of.
func (b *blobs) unknown() bool { return b != nil && b.tree == nil }

// openBlobs finds out what the image is made of, if that is possible without an export.
func (p *push) openBlobs(ctx context.Context) (err error) {
	b := &blobs{img: p.img, o: p.o, to: p.to}
	p.blobs = b
	if p.learn(); !b.unknown() {
		b.stored = p.same.blobs.stored
		return nil
	}
	if err := b.checkWhole(); err != nil {
		return err
	}
	if b.stored, err = p.from.Stored(p.img); err != nil {
		return err
	}
	source, _ := p.to.(remote.Source)
	err = b.read(ctx, func(ctx context.Context, id image.Digest) ([]byte, error) {
		var why error
		if b.stored != nil {
			var doc []byte
			if doc, why = b.stored.Document(id); why == nil {
				return doc, nil
			}
		}
		if source != nil {
			doc, err := source.Document(ctx, id)
			if err == nil || !fault.Is(err, fault.Damaged) {
				return doc, err
			}
		}
		if b.stored != nil && b.stored.Required {
			return nil, required(why, b.img)
		}
		p.o.Log.Info("a document comes from an export", "image", b.img, "document", id, "why", why)
		return nil, errUnknown
	})
	switch {
	case errors.Is(err, errUnknown) && p.o.Recompress: // which layers that takes, documents tell
		if err := p.exportDocuments(ctx); err != nil {
			return err
		}
	case errors.Is(err, errUnknown):
		return nil
	case err != nil:
		return err
	}
	p.known()
	return nil
}

// learn takes over what the image is made of, where a push of it under another name has found out by now, so that one
// export serves both.
func (p *push) learn() {
	if !p.blobs.unknown() || p.same == nil || p.same.blobs.unknown() {
		return
	}
	own, of := p.blobs, p.same.blobs
	own.tree, own.packed, own.unpack, own.closure = of.tree, of.packed, of.unpack, of.closure
	p.known()
}

// known notes what the image is made of.
func (p *push) known() {
	p.id, p.closure, p.order = p.blobs.tree.ID, p.blobs.closure, p.blobs.layers()
}

// read reads the documents of what is to be pushed.
func (b *blobs) read(ctx context.Context, document func(context.Context, image.Digest) ([]byte, error)) error {
	tree, err := image.ReadTree(ctx, b.img.ID, image.Reader{
		Document: document,
		Pick: func(_ context.Context, _ image.Digest, index *image.Index) ([]image.Digest, error) {
			return b.pick(index)
		},
	})
	var wrong *image.TreeError
	if errors.As(err, &wrong) {
		return b.noImage(err)
	}
	if err == nil {
		_, docs := tree.Documents()
		err = remote.CheckOutside(b.img.String(), docs...)
	}
	if err != nil {
		return err
	}
	packed, err := tree.Packed()
	if err != nil {
		return b.noImage(err)
	}
	if config := tree.Image(); config != nil {
		if err := chosen(b.img.String(), b.o).check(config.Platform); err != nil {
			return err
		}
	}
	if tree, b.unpack, err = b.o.recompress(b.img.String(), tree, packed); err != nil {
		return err
	}
	if b.closure, err = remote.ClosureIn(b.to, tree); err != nil {
		return b.noImage(err)
	}
	b.tree, b.packed = tree, packed
	return nil
}

func (b *blobs) noImage(err error) error {
	return fault.Wrap(fault.Other, err, "%s is not an image that this version can push", b.img)
}

// checkWhole refuses an image that the engine lists and has not all of: its
// export would lack as much, without a word. Of an index that is for the user to say.
func (b *blobs) checkWhole() error {
	for _, m := range b.img.Manifests {
		switch {
		case m.Whole:
		case m.Digest == b.img.ID:
			return b.notWhole()
		case b.o.AllPlatforms:
			return fault.New(fault.NotFound, "the engine has not all platforms of %s: it lacks %s, %s", b.img, m.Platform, m.Digest.Short()).
				Advise("Pull the others first (docker pull --platform), or leave --all-platforms out.")
		}
	}
	return nil
}

func (b *blobs) notWhole() error {
	return fault.New(fault.Damaged, "the engine lists %s, and has not all of it", b.img).
		Advise("Pull or build the image again there: what the engine has unpacked alone cannot be pushed.")
}

// pick chooses from the manifests of an index: those that the engine has whole,
// and what attests them.
func (b *blobs) pick(index *image.Index) ([]image.Digest, error) {
	whole := map[image.Digest]bool{}
	for _, m := range b.img.Manifests {
		whole[m.Digest] = m.Whole
	}
	var have []image.Child
	for _, c := range index.Manifests {
		if whole[c.Digest] && (c.Attests.IsZero() || whole[c.Attests]) {
			have = append(have, c)
		}
	}
	if len(have) == 0 {
		return nil, b.notWhole()
	}
	c := chosen(b.img.String(), b.o)
	c.attested = true
	return c.pick(have)
}

// layers are those that the image's manifests name.
func (b *blobs) layers() []image.Digest {
	var ids []image.Digest
	for _, l := range b.tree.Layers() {
		ids = append(ids, l.Digest)
	}
	return ids
}

// sources returns what the engine has for missing layers: of one that is missing
// by its diffID, what it is compressed in.
func (b *blobs) sources(missing []image.Digest) []image.Digest {
	named := b.layers()
	var ids []image.Digest
	for _, d := range missing {
		if packed, ok := b.packed[d]; ok && !slices.Contains(named, d) {
			d = packed.Digest
		}
		ids = append(ids, d)
	}
	return image.Distinct(ids)
}

// media returns the media type of a layer; of a classic store's it is that of a tar.
func (b *blobs) media(id image.Digest) string {
	if b != nil {
		for _, l := range b.tree.Layers() {
			if l.Digest == id {
				return l.MediaType
			}
		}
	}
	return ""
}

// layerIn returns what a blob of the engine's holds: itself, or the layer that is compressed in it and is to be stored as a tar.
func (b *blobs) layerIn(blob image.Digest) (id image.Digest, packed bool) {
	if b == nil {
		return blob, false
	}
	return b.unpack.layer(blob)
}

// blobOf returns what the engine has of a layer: itself, or what it is compressed in.
func (b *blobs) blobOf(layer image.Digest) (id image.Digest, packed bool) {
	if b == nil {
		return layer, false
	}
	return b.unpack.blob(layer)
}

// hold lets the remote know which manifests of an index are there.
func (b *blobs) hold(ctx context.Context, to remote.Target) error {
	holder, ok := to.(remote.Holder)
	if !ok || b.tree.Kind != image.IndexKind {
		return nil
	}
	var ids []image.Digest
	for _, c := range b.tree.Children {
		ids = append(ids, c.ID)
	}
	return holder.Hold(ctx, b.tree.ID, ids)
}

// sendBlobs stores what is missing: layers, then documents, those first that
// others name.
func (p *push) sendBlobs(ctx context.Context) error {
	b := p.blobs
	if b.stored != nil && b.tree != nil {
		if err := p.sendStored(ctx, b.stored); err != nil {
			return err
		}
	}
	if b.tree == nil || len(p.missing.Layers) > 0 {
		if err := p.exportBlobs(ctx); err != nil {
			return err
		}
	}
	ids, docs := b.tree.Documents()
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

// checkPacked makes sure that the compressed layers which were stored are what the
// image's configs say: the remote has found out what is in them.
func (p *push) checkPacked() error {
	for id, packed := range p.blobs.packed {
		if l := p.layers[packed.Digest]; l != nil && l.Moved && l.diffID != id {
			return fault.New(fault.Damaged, "layer %s of %s is not the %s that its config says", packed.Digest.Short(), p.img, id.Short()).
				Advise("No engine could unpack it: build the image again.")
		}
	}
	return nil
}

// exportBlobs reads one export and stores the layers that are missing, as they
// come by. Where it is not known yet what the image is made of, that is each
// which the remote lacks; the documents, which come in between, tell in the end.
func (p *push) exportBlobs(ctx context.Context) error {
	blind := p.blobs.unknown()
	var docs *documents
	err := p.export(ctx, func(ctx context.Context, g *errgroup.Group, export *engine.Export) (err error) {
		docs, err = p.feedBlobs(ctx, g, export)
		return err
	})
	if err != nil {
		return err
	}
	if blind {
		if err := p.readFrom(ctx, docs); err != nil {
			return err
		}
		p.known()
	}
	left, err := p.putRest(ctx, docs)
	switch {
	case err != nil || len(left) == 0:
		return err
	case blind: // a layer is there by its digest and not by its diffID: that takes its bytes
		p.plan(remote.Closure{Documents: p.missing.Documents, Layers: left})
		return p.exportBlobs(ctx)
	}
	lacking := map[image.Digest]bool{}
	for _, d := range left {
		lacking[d] = true
	}
	return p.lacking(lacking)
}

// readFrom reads the documents of what is to be pushed, which an export has brought.
func (p *push) readFrom(ctx context.Context, docs *documents) error {
	return p.blobs.read(ctx, func(_ context.Context, id image.Digest) ([]byte, error) {
		if doc := docs.of[id]; doc != nil {
			return doc, nil
		}
		return nil, fault.New(fault.Damaged, "the engine's export of %s lacks the document %s", p.img, id.Short()).
			Advise("The engine's own storage is damaged: pull or build the image again there.")
	})
}

// putRest stores layers that came as documents, being JSON, and returns those that
// are still missing: an engine may leave out of an export what it lacks.
func (p *push) putRest(ctx context.Context, docs *documents) (left []image.Digest, err error) {
	missing, there, err := p.to.Missing(ctx, p.closure)
	if err != nil {
		return nil, err
	}
	for _, l := range there {
		p.there(l)
	}
	p.missing.Documents = missing.Documents
	if p.o.DryRun {
		return nil, nil
	}
	for _, d := range p.blobs.sources(missing.Layers) {
		doc := docs.of[d]
		if doc == nil {
			left = append(left, d)
			continue
		}
		stored, err := p.to.PutLayer(ctx, image.Descriptor{MediaType: p.blobs.media(d), Digest: d, Size: int64(len(doc))}, bytes.NewReader(doc))
		if err != nil {
			return nil, err
		}
		p.layers[d] = &LayerResult{Digest: d}
		p.layers[d].moved(stored)
	}
	return left, nil
}

// documents are those of an export, by their digests.
type documents struct {
	of   map[image.Digest][]byte
	held int64
}

func newDocuments() *documents { return &documents{of: map[image.Digest][]byte{}} }

// keep reads a document of an export.
func (p *push) keep(docs *documents, item engine.Item) (err error) {
	if docs.held += item.Size; docs.held > image.MaxTree {
		return fault.New(fault.Other, "the engine's export of %s has documents of more than %d bytes", p.img, image.MaxTree)
	}
	if docs.of[item.Digest], err = image.ReadDocument(item.Body, item.Digest); err != nil {
		return p.damaged(err, "document "+item.Digest.Short())
	}
	return nil
}

// feedBlobs walks through the export, starts a put for each missing layer and
// returns the documents. It does not wait for the puts.
func (p *push) feedBlobs(ctx context.Context, g *errgroup.Group, export *engine.Export) (*documents, error) {
	wanted := make(map[image.Digest]bool, len(p.missing.Layers))
	for _, d := range p.missing.Layers {
		wanted[d] = true
	}
	known := p.blobs.tree != nil
	docs := newDocuments()
	slots := make(chan struct{}, p.o.Parallel)
	for !known || len(wanted) > 0 {
		item, err := export.Next()
		if err == io.EOF {
			return docs, nil // putRest says what is missing
		}
		if err != nil {
			return nil, err
		}
		p.o.Progress.Status("")
		if item.Document {
			if err := p.keep(docs, item); err != nil {
				return nil, err
			}
			delete(wanted, item.Digest) // putRest stores it
			continue
		}
		id, _ := p.blobs.layerIn(item.Digest)
		want := wanted[id]
		if !known {
			if want, err = p.lacks(ctx, id); err != nil {
				return nil, err
			}
		}
		if !want {
			p.o.Progress.Status(fmt.Sprintf("passing over layers of %s that are there already", p.img))
			continue
		}
		delete(wanted, id)
		p.layers[id] = &LayerResult{Digest: id, Size: item.Size, Stored: -1, Moved: true}
		if p.o.DryRun {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err := p.put(ctx, g, item, func() { <-slots }); err != nil {
			return nil, err
		}
	}
	return docs, nil
}

// lacks asks the remote about one layer, and notes it where it is there.
func (p *push) lacks(ctx context.Context, id image.Digest) (bool, error) {
	missing, there, err := p.to.Missing(ctx, remote.Closure{Layers: []image.Digest{id}})
	for _, l := range there {
		p.there(l)
	}
	return len(missing.Layers) > 0, err
}
