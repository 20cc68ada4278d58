package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// loadsAtOnce bounds the loads that are on their way: one that the engine
// unpacks, and those of which it has all but the end.
const loadsAtOnce = 3

// loadPiece is from how many bytes of layers on an engine gets them in a load of
// their own, so that it unpacks them while later ones are on their way: an
// engine begins to unpack when an archive is complete, and not before.
const loadPiece = 48 << 20

// load sends the layers that the engine lacks and makes sure that the image has
// arrived. Where an index has lied, or a layer was damaged in a cache, it sends what the
// engine lacks once more. Where the engine turns out to lack what it seemed to have, it sends
// all, once, and to a containerd image store once more. It returns the layers that were sent.
func (p *pull) load(ctx context.Context, send []image.Digest) ([]image.Digest, error) {
	all := image.Distinct(p.order)
	if err := p.pack(ctx, send); err != nil {
		return nil, err
	}
	p.tellLacking(send)
	parts := p.parts(send)
	has, err := p.sendAndLook(ctx, parts)
	told := false
	for again := 0; err != nil && again < mendings; again++ {
		misled := p.deltas.isMisled() && !told
		if !misled && !errors.Is(err, remote.ErrReplaced) { // what was damaged in a cache is removed, and told
			break
		}
		if misled {
			told = true
			p.o.Progress.Note(fmt.Sprintf("%s: an index in the remote is wrong; reading layers whole", p.image.Source))
		}
		p.o.Log.Info("load failed", "image", p.id, "error", err)
		if send, err = p.rest(ctx); err == nil {
			p.tellLacking(send)
			parts = p.parts(send)
			has, err = p.sendAndLook(ctx, parts)
		}
	}
	if err == nil && !has && len(send) < len(all) {
		err = engine.ErrLacksLayer // nothing was said, and the image is not whole
	}
	again := 0
	switch {
	case p.to.Kind() == engine.Containerd: // which may pass over a blob that it is about to remove, also when it gets it
		again = 2
	case len(send) < len(all) || len(parts) > 1:
		again = 1
	}
	for ; again > 0 && errors.Is(err, engine.ErrLacksLayer); again-- {
		p.o.Progress.Note(fmt.Sprintf("%s: the engine lacks layers that it seemed to have; sending all of them", p.image.Source))
		p.o.Log.Info("load failed", "image", p.id, "error", err)
		send, p.held = all, 0
		if err = p.cleanUp(ctx, nil); err == nil {
			err = p.pack(ctx, send)
		}
		if err == nil {
			p.tellLacking(send)
			has, err = p.sendAndLook(ctx, []part{p.whole(send)})
		}
		if err == nil && !has && again > 1 {
			err = engine.ErrLacksLayer
		}
	}
	switch {
	case err == nil && !has:
		err = fault.New(fault.Other, "the engine said that it loaded %s, but has no image %s", p.image.Source, p.id.Short())
	case errors.Is(err, engine.ErrLacksLayer): // all was sent
		err = fault.Wrap(fault.Other, err, "the engine could not unpack %s", p.image.Source).
			Advise("See the engine's log, and what else uses its disk.")
	}
	if err != nil {
		p.left = nil // another pull may need them
		p.unmake(ctx)
		return nil, p.cleanUp(ctx, err)
	}
	return send, nil
}

// rest cleans up what a failed load has left of the image, and returns the layers that the engine lacks now.
func (p *pull) rest(ctx context.Context) (send []image.Digest, err error) {
	if err := p.cleanUp(ctx, ctx.Err()); err != nil {
		return nil, err
	}
	if send, err = p.lacking(ctx); err == nil {
		err = p.pack(ctx, send)
	}
	return send, err
}

func (p *pull) tellLacking(send []image.Digest) {
	layers := make([]remote.Layer, len(send))
	for i, d := range send {
		layers[i] = p.sent(d)
	}
	p.o.Lacks(p.image, layers)
}

func (p *pull) sendAndLook(ctx context.Context, parts []part) (has bool, err error) {
	if err := p.send(ctx, parts); err != nil {
		return false, err
	}
	var unmaking sync.WaitGroup
	unmaking.Go(func() { p.unmake(ctx) })
	has, err = p.has(ctx)
	unmaking.Wait()
	return has, err
}

// unmakers bounds the images of stacks that are removed at once.
const unmakers = 4

// unmake removes images of stacks, also after an interrupt: they only helped to
// load an image. It is called when all loads have ended. The engine keeps those
// of their layers that are another image's too, this one's for instance.
func (p *pull) unmake(ctx context.Context) {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(unmakers)
	for _, id := range image.Distinct(append(p.made, p.left...)) {
		if id == p.id {
			continue
		}
		g.Go(func() error {
			if err := p.to.RemoveUntagged(late, id); err != nil {
				p.o.Log.Warn("an untagged image stays in the engine", "image", id, "error", err)
			}
			return nil
		})
	}
	_ = g.Wait() // logged
	p.made, p.left = nil, nil
}

// part is one of the archives that an image is loaded by: the whole, or the
// stack of its layers up to one of them.
type part struct {
	id   image.ID         // what the engine will call it
	root image.Descriptor // what the archive is of: a manifest or an index
	docs [][]byte
	// For stores that go by configs: the image's own, or one made for the stack.
	config []byte
	send   []image.Digest // those layers that the archive carries, each once
}

// whole is one archive with these layers.
func (p *pull) whole(send []image.Digest) part {
	if p.to.Kind() == engine.Containerd {
		_, docs := p.tree.Documents()
		return part{id: p.id, root: p.root(), docs: docs, send: send}
	}
	return p.stack(p.doc, p.order, send)
}

// stack is an archive for a store that goes by configs.
func (p *pull) stack(config []byte, layers, send []image.DiffID) part {
	manifest := image.SynthesizeManifest(config, p.descriptors(layers))
	return part{id: image.DigestOf(config), root: manifestDescriptor(manifest), docs: [][]byte{config, manifest}, config: config, send: send}
}

func manifestDescriptor(doc []byte) image.Descriptor {
	return image.Descriptor{MediaType: image.MediaTypeOf(doc, ocispec.MediaTypeImageManifest), Digest: image.DigestOf(doc), Size: int64(len(doc))}
}

// parts cuts the image above the lowest held layers, unless a layer occurs
// again there: an archive of its own would have to carry it a second time.
func (p *pull) parts(send []image.Digest) []part {
	piece := p.o.piece
	if piece == 0 {
		piece = loadPiece
	}
	if p.to.Kind() == engine.Containerd {
		return p.blobParts(send, piece)
	}
	if p.to.Kind() != engine.Classic || len(send) < len(p.order)-p.held {
		return []part{p.whole(send)}
	}
	var parts []part
	size, left, from := int64(0), p.unpacked(send...), p.held
	for i := p.held; i < len(p.order)-1; i++ {
		size += p.unpacked(p.order[i])
		if size < piece || left-size < piece {
			continue
		}
		parts = append(parts, p.stack(p.stackConfig(i+1), p.order[:i+1], p.order[from:i+1]))
		left, size, from = left-size, 0, i+1
	}
	return append(parts, p.stack(p.doc, p.order, p.order[from:]))
}

// stackConfig returns the config of an image of the lowest n layers alone.
func (p *pull) stackConfig(n int) []byte { return image.StackConfig(p.config.Platform, p.order[:n]) }

// send feeds the engine with the parts of the image. While the engine unpacks
// one, the next is on its way but for its end: it needs the layers of the one
// before. Layers are fetched ahead of the one that is being fed, o.Parallel at once.
func (p *pull) send(ctx context.Context, parts []part) error {
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(stop)
	var send []image.Digest
	for _, part := range parts {
		send = append(send, part.send...)
	}
	warnRoom(p.o, p.to, total(p.descriptors(send))+p.unpacked(send...)) // staged, and unpacked
	streams := p.fetch(gctx, g, send)
	defer p.o.Progress.Status("")
	sent, loaded := gates(len(parts)), gates(len(parts))
	for i, part := range parts {
		if i > 0 && wait(gctx, sent[i-1]) != nil || i >= loadsAtOnce && wait(gctx, loaded[i-loadsAtOnce]) != nil {
			break
		}
		if i < len(parts)-1 {
			p.made = append(p.made, part.id)
		}
		g.Go(func() error {
			// A failure elsewhere breaks off a load until its end is sent, and not
			// after that: the engine would finish it unseen.
			cuttable, cut := context.WithCancel(ctx)
			defer cut()
			keep := context.AfterFunc(gctx, cut)
			err := p.feed(cuttable, part, streams, func() error {
				close(sent[i])
				if i == len(parts)-1 {
					p.o.Progress.Status(fmt.Sprintf("the engine is unpacking %s", p.image.Source))
				}
				if i > 0 {
					if err := wait(gctx, loaded[i-1]); err != nil {
						return err
					}
				}
				if !keep() {
					return gctx.Err()
				}
				return nil
			})
			if err == nil {
				close(loaded[i])
			}
			return err
		})
	}
	return g.Wait()
}

func gates(n int) []chan struct{} {
	all := make([]chan struct{}, n)
	for i := range all {
		all[i] = make(chan struct{})
	}
	return all
}

// wait waits for done, unless ctx ends.
func wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// feed loads one part. end is called when all of its archive but the end is
// with the engine, and may hold that back.
func (p *pull) feed(ctx context.Context, part part, streams map[image.Digest]*stream, end func() error) error {
	archive := engine.Archive{
		Root:      part.root,
		Documents: part.docs,
		Config:    part.config,
		Send:      p.descriptors(part.send),
		Open:      func(l image.Descriptor) (io.ReadCloser, error) { return streams[l.Digest], nil },
		End:       end,
	}
	body, writer := io.Pipe()
	var writing sync.WaitGroup
	var writeErr error
	writing.Go(func() {
		writeErr = archive.Write(writer)
		writer.CloseWithError(writeErr)
	})
	loaded, err := p.to.Load(ctx, body)
	p.o.Log.Debug("the engine has answered", "loaded", loaded, "error", err)
	body.CloseWithError(errReaderGone) // an engine may stop listening early
	for _, d := range part.send {
		streams[d].Close()
	}
	writing.Wait()
	if err != nil && (writeErr == nil || fault.Interrupted(writeErr) || errors.Is(writeErr, errReaderGone)) {
		return err
	}
	return writeErr
}

// descriptors are layers with their sizes: of one that is not sent, and not known,
// nothing.
func (p *pull) descriptors(ids []image.Digest) []image.Descriptor {
	layers := make([]image.Descriptor, len(ids))
	for i, d := range ids {
		layers[i] = image.Descriptor{Digest: d, Size: max(0, p.sent(d).Size)}
	}
	return layers
}

// packedGrowth is by how much what layers are compressed in grows as the engine unpacks
// it, about, where only that tells: programs come to two and a half times as much.
const packedGrowth = 2

// unpacked is how many bytes the engine unpacks of layers, as far as that is known.
func (p *pull) unpacked(ids ...image.Digest) (size int64) {
	for _, d := range ids {
		if in, ok := p.packed[d]; ok {
			size += packedGrowth * in.Size
		} else {
			size += max(0, p.sent(d).Size)
		}
	}
	return size
}

func total(layers []image.Descriptor) (size int64) {
	for _, l := range layers {
		size += l.Size
	}
	return size
}
