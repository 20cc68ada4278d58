package original

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Remote is what a Source is made of.
type Remote interface {
	remote.Source
	remote.Originals
	remote.Holder
	remote.Signatures
	remote.StoredSource
}

// Options of a Source.
type Options struct {
	Name     string // the remote as the user named it, for messages
	Parallel int    // layers measured at once; 0 means as many as there are processors
	Log      *slog.Logger

	// CacheDir and Key say where diffIDs are remembered: in a file below CacheDir for
	// each Key, which is one name for one remote, however it was written; it is
	// hashed, not stored. An empty CacheDir remembers nothing.
	CacheDir, Key string

	// Status is told what is waited for, and an empty text at the end. Warn is told,
	// once for each image, that nothing proves it. Both may be nil.
	Status, Warn func(string)
}

// Source is a remote in which images of format 1.0 look like those of today: a tag
// on one resolves to the digest of the config that follows from it, whose layers
// are there by their diffIDs. All other images are what they are. To resolve such a
// tag, the layers that are not remembered are read. It is safe for concurrent use.
type Source struct {
	Remote
	o      Options
	reader Reader

	measuring sync.Mutex // one image at a time: others may share its layers
	memory    *memory

	mu        sync.Mutex
	images    map[image.ID]image.ID   // configs, by what tags name
	documents map[image.Digest][]byte // configs and manifests
	kept      []kept                  // the images that these are of, the oldest first
	size      int64                   // of the documents, in bytes
	layers    map[image.DiffID]remote.Layer
	next      map[image.ID][]byte // documents of today that Resolve has read
}

var (
	_ Remote          = (*Source)(nil)
	_ remote.Referred = (*Source)(nil)
	_ remote.Members  = (*Source)(nil)
	_ remote.Parts    = (*Source)(nil)
	_ remote.Keeper   = (*Source)(nil)
)

// New returns from as a Source.
func New(from Remote, o Options) *Source {
	if o.Parallel <= 0 {
		o.Parallel = runtime.GOMAXPROCS(0)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Status == nil {
		o.Status = func(string) {}
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	return &Source{
		Remote: from, o: o, reader: Reader{From: from}, memory: openMemory(o.CacheDir, o.Key, o.Log),
		images: map[image.ID]image.ID{}, documents: map[image.Digest][]byte{}, layers: map[image.DiffID]remote.Layer{},
		next: map[image.ID][]byte{},
	}
}

// Resolve implements remote.Source.
func (s *Source) Resolve(ctx context.Context, ref image.Reference) (image.ID, error) {
	id, err := s.Remote.Resolve(ctx, ref)
	if err != nil || !ref.Digest.IsZero() { // a digest is no tag
		return id, err
	}
	for attempt := 0; ; attempt++ {
		if s.isToday(ctx, id) {
			return id, nil
		}
		config, err := s.image(ctx, ref, id)
		// An upgrade moves the tag, and a collection deletes what is being read.
		now, since := remote.Since(ctx, s.Remote, ref, id, err)
		if now != id && since == nil && attempt < moves {
			id = now
			continue
		}
		if since != nil {
			err = since
		}
		if err != nil && !fault.Interrupted(err) {
			return image.ID{}, fmt.Errorf("%s: %w", ref, err)
		}
		return config, err
	}
}

// moves bounds how often Resolve follows a tag that moves while its image is read.
const moves = 3

// isToday reports whether id is no image of format 1.0. The document that tells is
// at hand then, for whoever reads it next: it is not asked for twice. What fails here
// fails there again.
func (s *Source) isToday(ctx context.Context, id image.ID) bool {
	s.mu.Lock()
	_, known := s.next[id]
	s.mu.Unlock()
	if known {
		return true
	}
	doc, err := s.Remote.Document(ctx, id)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.next) >= mostNext {
			clear(s.next)
		}
		s.next[id] = doc
	}
	return !errors.Is(err, remote.ErrOriginal)
}

// mostNext bounds the documents that nobody has come for.
const mostNext = 8

// image returns the digest of the config of an image of format 1.0.
func (s *Source) image(ctx context.Context, ref image.Reference, id image.ID) (image.ID, error) {
	s.measuring.Lock()
	defer s.measuring.Unlock()
	s.mu.Lock()
	known, ok := s.images[id]
	ok = ok && s.documents[known] != nil // another image of the same config may have been forgotten
	s.mu.Unlock()
	if ok {
		return known, nil
	}
	img, err := s.reader.Read(ctx, id)
	if err != nil {
		return image.ID{}, err
	}
	layers, err := img.Layers()
	if err != nil {
		return image.ID{}, err
	}
	measured, err := s.measure(ctx, ref, layers)
	s.memory.store() // also what an image has that failed
	if err != nil {
		return image.ID{}, err
	}
	diffIDs := make([]image.DiffID, len(measured))
	for i, l := range measured {
		diffIDs[i] = l.Digest
	}
	doc, err := img.config(diffIDs)
	if err != nil {
		return image.ID{}, err
	}
	s.o.Warn(fmt.Sprintf("%s in %s is of format 1.0, by the original dogestry: nothing proves that its bytes are what was pushed", ref, s.o.Name))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range measured {
		s.layers[l.Digest] = l
	}
	parsed, err := image.ParseConfig(doc)
	if err != nil {
		return image.ID{}, err
	}
	layersOf := make([]image.Descriptor, len(parsed.DiffIDs))
	for i, d := range parsed.DiffIDs {
		layersOf[i] = image.Descriptor{Digest: d, Size: s.layers[d].Size}
	}
	// An engine that has the image may know it by its manifest.
	manifest := image.SynthesizeManifest(doc, layersOf)
	config := image.DigestOf(doc)
	s.keep(kept{id, config, image.DigestOf(manifest)}, doc, manifest)
	return config, nil
}

// kept is an image whose documents are at hand.
type kept struct {
	id               image.ID // what a tag names
	config, manifest image.Digest
}

const (
	mostKept  = image.MaxTree // bytes of documents that are at hand
	leastKept = 16            // images whose documents are, however large: a copy is at fewer at once
)

// keep keeps the documents of an image, and forgets those of old ones: they can be
// made again. s.mu is held.
func (s *Source) keep(k kept, config, manifest []byte) {
	s.images[k.id], s.documents[k.config], s.documents[k.manifest] = k.config, config, manifest
	s.kept = append(s.kept, k)
	for s.size += int64(len(config) + len(manifest)); s.size > mostKept && len(s.kept) > leastKept; s.kept = s.kept[1:] {
		old := s.kept[0]
		s.size -= int64(len(s.documents[old.config]) + len(s.documents[old.manifest]))
		delete(s.images, old.id)
		delete(s.documents, old.config)
		delete(s.documents, old.manifest)
	}
}

// measure returns layers by their diffIDs, with their sizes.
func (s *Source) measure(ctx context.Context, ref image.Reference, layers []remote.Layer) ([]remote.Layer, error) {
	found := slices.Clone(layers)
	var unknown []int
	for i, l := range layers {
		if k, ok := s.memory.get(l.Digest, l.Version); ok {
			found[i].Digest, found[i].Size = k.DiffID, k.Size
		} else {
			unknown = append(unknown, i)
		}
	}
	if len(unknown) == 0 {
		return found, ctx.Err()
	}
	defer s.o.Status("")
	var mu sync.Mutex
	done := 0
	tell := func() {
		s.o.Status(fmt.Sprintf("reading the layers of %s to learn their digests, %d of %d", ref, done, len(unknown)))
	}
	tell()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(s.o.Parallel)
	for _, i := range unknown {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			l := layers[i]
			id, size, err := Measure(gctx, s.Remote, l)
			if err != nil {
				return err
			}
			found[i].Digest, found[i].Size = id, size
			mu.Lock()
			defer mu.Unlock()
			s.memory.put(l.Digest, measured{l.Version, id, size})
			done++
			tell()
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return found, ctx.Err()
}

// Document implements remote.Source.
func (s *Source) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	s.mu.Lock()
	doc, ok := s.documents[id]
	next, read := s.next[id]
	delete(s.next, id)
	s.mu.Unlock()
	switch {
	case ok:
		return slices.Clone(doc), ctx.Err()
	case read:
		return next, ctx.Err()
	}
	return s.Remote.Document(ctx, id)
}

// Look implements remote.Source. What Resolve has measured is there; whether it
// still is, shows when it is opened.
func (s *Source) Look(ctx context.Context, c remote.Closure, known map[image.Digest]remote.Layer) (*remote.Found, error) {
	mine := &remote.Found{Documents: map[image.Digest]string{}, Layers: map[image.Digest]remote.Layer{}, Torn: map[image.Digest]error{}}
	s.mu.Lock()
	rest := remote.Closure{
		Documents: slices.DeleteFunc(slices.Clone(c.Documents), func(d image.Digest) bool {
			_, ok := s.documents[d]
			if ok {
				mine.Documents[d] = ""
			}
			return ok
		}),
		Layers: slices.DeleteFunc(slices.Clone(c.Layers), func(d image.Digest) bool {
			l, ok := s.layers[d]
			if ok {
				mine.Layers[d] = l
			}
			return ok
		}),
	}
	s.mu.Unlock()
	if rest.Empty() {
		return mine, ctx.Err()
	}
	found, err := s.Remote.Look(ctx, rest, known)
	if err != nil {
		return nil, err
	}
	found.Add(mine)
	return found, nil
}

// Open implements remote.Source. A layer of format 1.0 that is there no more may be
// there as one of today: the image was upgraded since, and a collection has deleted it.
func (s *Source) Open(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	body, err := s.Remote.Open(ctx, layer)
	if !fault.Is(err, fault.Damaged) || !s.isOriginal(layer) {
		return body, err
	}
	today, failed := remote.Layers(ctx, s.Remote, []image.Digest{layer.Digest})
	if failed != nil {
		return nil, err
	}
	return s.Remote.Open(ctx, today[0])
}

// isOriginal reports whether a layer is one of format 1.0 that Resolve has measured.
func (s *Source) isOriginal(layer remote.Layer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.layers[layer.Digest]
	return ok && l.Object == layer.Object
}

// OpenStored implements remote.StoredSource. Layers of format 1.0 are not given as
// they are stored: they go through the one door for what is not proved yet, and are
// encoded anew, as this version does it.
func (s *Source) OpenStored(ctx context.Context, layer remote.Layer) (remote.Stored, error) {
	if s.isOriginal(layer) {
		return remote.Stored{}, fmt.Errorf("a layer of format 1.0: %w", errors.ErrUnsupported)
	}
	return s.Remote.OpenStored(ctx, layer)
}

// OpenPart implements remote.Parts, as far as the remote below does. Layers of format 1.0 have no index.
func (s *Source) OpenPart(ctx context.Context, layer remote.Layer, offset, n int64) (io.ReadCloser, error) {
	parts, ok := s.Remote.(remote.Parts)
	if !ok || s.isOriginal(layer) {
		return nil, fmt.Errorf("no parts are to be had of layer %s: %w", layer.Digest.Short(), errors.ErrUnsupported)
	}
	return parts.OpenPart(ctx, layer, offset, n)
}

// Kept implements remote.Keeper, as do the methods below: what is kept below, and nothing where that keeps nothing.
func (s *Source) Kept(ctx context.Context, without []image.Digest) ([]remote.Layer, error) {
	if k, ok := s.Remote.(remote.Keeper); ok {
		return k.Kept(ctx, without)
	}
	return nil, nil
}

// Use implements remote.Keeper.
func (s *Source) Use(ctx context.Context, layer remote.Layer) (done func()) {
	if k, ok := s.Remote.(remote.Keeper); ok {
		return k.Use(ctx, layer)
	}
	return func() {}
}

// OpenMade implements remote.Keeper. Layers of format 1.0 are not made: they have no index.
func (s *Source) OpenMade(ctx context.Context, layer remote.Layer, open func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
	k, ok := s.Remote.(remote.Keeper)
	if !ok || s.isOriginal(layer) {
		return nil, fmt.Errorf("nothing keeps layer %s: %w", layer.Digest.Short(), errors.ErrUnsupported)
	}
	return k.OpenMade(ctx, layer, open)
}

// Referrers implements remote.Referred: those that the remote below has, if it has such things.
func (s *Source) Referrers(ctx context.Context, repository string, subject image.Digest) iter.Seq2[image.Digest, error] {
	if r, ok := s.Remote.(remote.Referred); ok {
		return r.Referrers(ctx, repository, subject)
	}
	return func(func(image.Digest, error) bool) {}
}

// Members implements remote.Members, as far as the remote below does.
func (s *Source) Members(ctx context.Context, repository string) iter.Seq2[remote.Membership, error] {
	if m, ok := s.Remote.(remote.Members); ok {
		return m.Members(ctx, repository)
	}
	return func(yield func(remote.Membership, error) bool) {
		yield(remote.Membership{}, fmt.Errorf("nobody knows there what belongs to a repository: %w", errors.ErrUnsupported))
	}
}
