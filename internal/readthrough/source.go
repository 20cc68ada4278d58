package readthrough

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Source is a remote of which layers and documents are kept in a cache. Tags,
// signatures, and what it has of an index are the remote's at each time. Of layers
// that the cache has, it is not asked at all, so they are there also where the
// remote has lost them. It is safe for concurrent use; of readers at once of one
// layer a single one makes the remote send it.
type Source struct {
	cache   *Cache
	from    remote.Source
	flights *flights
	live    bool    // what is there is asked of the remote
	unread  *unread // nil where the remote learns nothing from what is read there
}

var (
	_ remote.Source       = (*Source)(nil)
	_ remote.StoredSource = (*Source)(nil)
	_ remote.Holder       = (*Source)(nil)
	_ remote.Signatures   = (*Source)(nil)
	_ remote.Originals    = (*Source)(nil)
	_ remote.Referred     = (*Source)(nil)
	_ remote.Members      = (*Source)(nil)
	_ remote.Blobs        = (*Source)(nil)
	_ remote.Parts        = (*Source)(nil)
)

// New returns from as it is to be read through the cache.
func (c *Cache) New(from remote.Source) *Source {
	return &Source{cache: c, from: from, flights: &flights{cache: c, under: map[flightKey]*flight{}}}
}

// NewLive is New for a remote that is written to, too: what it has is asked of it each
// time, and the cache is not believed that something is there. Bytes come from the cache.
func (c *Cache) NewLive(from remote.Source) *Source {
	s := c.New(from)
	s.live = true
	return s
}

// Resolve asks the remote what a tag names. What is named by its digest is that.
func (s *Source) Resolve(ctx context.Context, ref image.Reference) (image.ID, error) {
	if !ref.Digest.IsZero() && !s.live {
		if doc, ok := s.cache.document(ctx, ref.Digest); ok {
			if _, err := image.KindOf(doc); err == nil {
				return ref.Digest, nil
			}
		}
	}
	id, err := s.from.Resolve(ctx, ref)
	if ref.Digest.IsZero() && isAway(err) {
		advice := fault.AdviceOf(err)
		if advice != "" {
			advice += "\n"
		}
		err = fault.Wrap(fault.KindOf(err), err, "cannot ask what %s names", ref).
			Advise("%sA tag may move, so it is asked for each time. An image that the cache has whole can be had by its digest: %s@sha256:…", advice, ref.Repository)
	}
	return id, err
}

// Document implements remote.Source.
func (s *Source) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	if doc, ok := s.cache.document(ctx, id); ok {
		s.unread.add(id)
		return doc, nil
	}
	doc, err := s.from.Document(ctx, id)
	if err == nil {
		s.cache.keep(ctx, doc)
	}
	return doc, err
}

// Look implements remote.Source. What the cache has tells no versions.
func (s *Source) Look(ctx context.Context, c remote.Closure, known map[image.Digest]remote.Layer) (*remote.Found, error) {
	if s.live {
		return s.from.Look(ctx, c, known)
	}
	mine := &remote.Found{Documents: map[image.Digest]string{}, Layers: map[image.Digest]remote.Layer{}, Torn: map[image.Digest]error{}}
	var rest remote.Closure
	for _, l := range s.cache.look(ctx, remote.Closure{Layers: c.Layers}) {
		l.Source, l.Version = remote.InCache, ""
		mine.Layers[l.Digest] = l
	}
	for _, id := range c.Layers {
		if _, ok := mine.Layers[id]; !ok {
			rest.Layers = append(rest.Layers, id)
		}
	}
	for _, id := range c.Documents {
		if _, ok := s.cache.document(ctx, id); ok {
			mine.Documents[id] = ""
		} else {
			rest.Documents = append(rest.Documents, id)
		}
	}
	if err := ctx.Err(); err != nil || rest.Empty() {
		return mine, err
	}
	found, err := s.from.Look(ctx, rest, known)
	if err == nil && len(found.Torn) > 0 && s.unread.read(ctx, s.from) {
		found, err = s.from.Look(ctx, rest, known)
	}
	if err != nil {
		return nil, err
	}
	found.Add(mine)
	return found, nil
}

// LookBlob implements remote.Blobs: the remote is asked only where the cache has
// nothing of that digest.
func (s *Source) LookBlob(ctx context.Context, id image.Digest, known map[image.Digest]remote.Layer) (*remote.Found, error) {
	if !s.live {
		there := &remote.Found{Documents: map[image.Digest]string{}, Layers: map[image.Digest]remote.Layer{}, Torn: map[image.Digest]error{}}
		if l, ok := s.cache.find(ctx, id); ok {
			l.Source, l.Version = remote.InCache, ""
			there.Layers[id] = l
			return there, nil
		}
		if _, ok := s.cache.document(ctx, id); ok {
			there.Documents[id] = ""
			return there, nil
		}
	}
	return remote.LookBlob(ctx, s.from, id, known)
}

// Open implements remote.Source.
func (s *Source) Open(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	r, err := s.read(ctx, layer, false, nil)
	if err != nil {
		return nil, err
	}
	if r != nil {
		return r, nil
	}
	up, err := s.upstream(ctx, layer)
	if err != nil {
		return nil, err
	}
	return s.from.Open(ctx, up)
}

// OpenStored implements remote.StoredSource, where the remote is one.
func (s *Source) OpenStored(ctx context.Context, layer remote.Layer) (remote.Stored, error) {
	if _, ok := s.from.(remote.StoredSource); !ok {
		return remote.Stored{}, fmt.Errorf("the remote gives no layers as it keeps them: %w", errors.ErrUnsupported)
	}
	r, err := s.read(ctx, layer, true, nil)
	if err != nil {
		return remote.Stored{}, err
	}
	if r != nil {
		stored := r.stored
		stored.Body = r
		return stored, nil
	}
	up, err := s.upstream(ctx, layer)
	if err != nil {
		return remote.Stored{}, err
	}
	return s.openStored(ctx, up)
}

// OpenPart implements remote.Parts: of a layer that the cache has, from there, else of the remote, where that gives
// parts. They are not kept.
func (s *Source) OpenPart(ctx context.Context, layer remote.Layer, offset, n int64) (io.ReadCloser, error) {
	if layer.Source == remote.InCache {
		body, err := s.cache.repo.OpenPart(ctx, layer, offset, n)
		if errors.Is(err, errors.ErrUnsupported) { // a blob, which is its own bytes
			return s.cache.repo.OpenRange(ctx, layer, offset, n)
		}
		return body, err
	}
	parts, ok := s.from.(remote.Parts)
	if !ok {
		return nil, fmt.Errorf("the remote gives no parts of layers: %w", errors.ErrUnsupported)
	}
	return parts.OpenPart(ctx, layer, offset, n)
}

// openStored opens a layer of the remote as that keeps it.
func (s *Source) openStored(ctx context.Context, up remote.Layer) (remote.Stored, error) {
	source, ok := s.from.(remote.StoredSource)
	if !ok {
		return remote.Stored{}, errors.ErrUnsupported
	}
	return source.OpenStored(ctx, up)
}

// Damage implements remote.StoredSource.
func (s *Source) Damage(layer remote.Layer, cause error) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTime)
	defer cancel()
	if found, ok := s.cache.find(ctx, layer.Digest); ok {
		s.cache.lost(ctx, found, cause)
		return s.cache.damage(found, cause)
	}
	if source, ok := s.from.(remote.StoredSource); ok && layer.Source != remote.InCache {
		return source.Damage(layer, cause)
	}
	return s.cache.damage(layer, cause)
}

// read opens a layer in the cache, or brings it there: by what open opens, where that is not nil, else from the
// remote. It returns no reader, and no error, where the cache cannot have it.
func (s *Source) read(ctx context.Context, layer remote.Layer, raw bool, open opener) (*reader, error) {
	for range attempts {
		if found, ok := s.cache.find(ctx, layer.Digest); ok {
			r, err := s.fromCache(ctx, layer, found, raw)
			if err == nil || ctx.Err() != nil {
				return r, err
			}
			s.cache.lost(ctx, found, err)
		}
		if err := ctx.Err(); err != nil || !s.cache.writable() {
			return nil, err
		}
		up, err := s.upstream(ctx, layer)
		if err != nil {
			return nil, err
		}
		f := s.flights.join(ctx, s.from, up, open)
		select {
		case <-f.begun:
		case <-f.done:
		case <-ctx.Done():
			s.flights.leave(f)
			return nil, ctx.Err()
		}
		object := f.has()
		if object != "" {
			at := remote.Layer{Digest: layer.Digest, Size: layer.Size, Stored: up.Stored, Object: object, Packed: up.Packed}
			if raw && f.anew() {
				s.flights.leave(f)
				return nil, fmt.Errorf("the remote does not give this layer as it keeps it: %w", errors.ErrUnsupported)
			}
			return s.newReader(ctx, f.repo, layer, at, f, raw) // leaves f
		}
		<-f.done
		s.flights.leave(f)
		var failed *remoteError
		switch {
		case errors.As(f.err, &failed):
			return nil, failed.cause
		case f.err != nil:
			return nil, nil
		}
		// It is there since.
	}
	return nil, nil
}

// attempts bounds how often a layer is looked for that comes and goes.
const attempts = 3

// fromCache opens a layer that the cache has. A small one is proved before the first
// byte is handed out.
func (s *Source) fromCache(ctx context.Context, layer, found remote.Layer, raw bool) (*reader, error) {
	r, err := s.newReader(ctx, s.cache.repo, layer, found, nil, raw)
	if err != nil {
		return nil, err
	}
	s.cache.touch(ctx, entriesOf(found)...)
	if raw || found.Size < 0 || found.Size > small {
		return r, nil
	}
	content, err := io.ReadAll(image.Verify(r.body, layer.Digest, layer.Size))
	if err != nil {
		r.Close()
		return nil, err
	}
	r.proved = bytes.NewReader(content)
	return r, nil
}

// small is how large layers may be that are proved in memory, in bytes.
const small = 64 << 10

// upstream returns a layer as the remote has it.
func (s *Source) upstream(ctx context.Context, layer remote.Layer) (remote.Layer, error) {
	if layer.Source != remote.InCache {
		return layer, nil
	}
	ask := []image.Digest{layer.Digest}
	found, err := remote.Layers(ctx, s.from, ask)
	if err != nil && s.unread.read(ctx, s.from) {
		found, err = remote.Layers(ctx, s.from, ask)
	}
	if err != nil {
		return remote.Layer{}, err
	}
	return found[0], nil
}

// Has reports whether a layer comes from the cache, so that the remote need not send it.
func (s *Source) Has(ctx context.Context, layer remote.Layer) bool {
	_, ok := s.cache.find(ctx, layer.Digest)
	return ok
}

// References implements remote.Source.
func (s *Source) References(ctx context.Context, repository string) iter.Seq2[remote.Tag, error] {
	return s.from.References(ctx, repository)
}
