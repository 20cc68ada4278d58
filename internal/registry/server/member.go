package server

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// lookups bounds how many tags are asked about at once.
const lookups = 32

// memberKey names a manifest of a repository.
type memberKey struct {
	repository string
	id         image.Digest
}

// taggedKey names what a tag was at some time.
type taggedKey struct {
	tag     string // with its repository
	version string
}

// has reports whether a repository has a manifest that the remote has: because it
// was put there, or because a tag of the repository leads to it. What was pushed
// by dogestry is there by its tags alone.
func (s *Server) has(ctx context.Context, repository string, id image.Digest) (bool, error) {
	if r, ok := s.from.(remote.Repositories); ok {
		_, err := r.In(repository).Resolve(ctx, image.Reference{Repository: repository, Digest: id})
		if isMissing(err) {
			return false, nil
		}
		return err == nil, err
	}
	if s.memberships != nil {
		if member, err := s.memberships.Belongs(ctx, repository, id); err != nil || member {
			return member, err
		}
	}
	key := memberKey{repository, id}
	if tag, ok := s.by.get(key); ok {
		named, err := s.from.Resolve(ctx, image.Reference{Repository: repository, Tag: tag})
		if err == nil {
			if leads, err := s.leads(ctx, named, id); err != nil || leads {
				return leads, err
			}
		} else if !isMissing(err) && !fault.Is(err, fault.Damaged) {
			return false, err
		}
	}
	found := ""
	err := s.eachTag(ctx, repository, func(ctx context.Context, ref image.Reference, named image.ID) error {
		leads, err := s.leads(ctx, named, id)
		if err == nil && leads {
			err = &foundTag{ref.Tag}
		}
		return err
	})
	var end *foundTag
	if errors.As(err, &end) {
		found, err = end.tag, nil
		s.by.put(key, found, 1)
	}
	return found != "", err
}

// foundTag ends a search.
type foundTag struct{ tag string }

func (*foundTag) Error() string { return "found" }

// eachTag calls do for each tag of a repository and what it names, several at once,
// and ends after the first error. A tag that is damaged or has just gone is left out.
func (s *Server) eachTag(ctx context.Context, repository string, do func(context.Context, image.Reference, image.ID) error) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for tag, err := range s.from.References(gctx, repository) {
		if err != nil {
			return errors.Join(g.Wait(), err)
		}
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			named, err := s.named(gctx, tag)
			if isMissing(err) || fault.Is(err, fault.Damaged) {
				s.log.Debug("a tag is left out", "tag", tag.Reference, "error", err)
				return nil
			}
			if err == nil {
				err = do(gctx, tag.Reference, named)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// named returns what a tag names. It is not read again while its version is the same.
func (s *Server) named(ctx context.Context, tag remote.Tag) (image.ID, error) {
	key := taggedKey{tag.Reference.String(), tag.Version}
	if id, ok := s.tagged.get(key); ok && tag.Version != "" {
		return id, nil
	}
	id, err := s.from.Resolve(ctx, tag.Reference)
	if err == nil && tag.Version != "" {
		s.tagged.put(key, id, 1)
	}
	return id, err
}

// leads reports whether a tag on an image leads to a manifest: it is the image,
// what follows from its config, or of an index one of its manifests.
func (s *Server) leads(ctx context.Context, named image.ID, id image.Digest) (bool, error) {
	if named == id {
		return true, nil
	}
	to, ok := s.reached.get(named)
	if !ok {
		var err error
		if to, err = s.manifestsOf(ctx, named); err != nil {
			if isMissing(err) || fault.Is(err, fault.Damaged) {
				return false, nil
			}
			return false, err
		}
		s.reached.put(named, to, 1+len(to))
	}
	for _, d := range to {
		if d == id {
			return true, nil
		}
	}
	return false, nil
}

// manifestsOf returns the manifests that an image has besides itself.
func (s *Server) manifestsOf(ctx context.Context, named image.ID) ([]image.Digest, error) {
	doc, err := s.from.Document(ctx, named)
	if err != nil {
		return nil, err
	}
	switch kind, _ := image.KindOf(doc); kind {
	case image.ConfigKind:
		if doc, err = s.manifestOf(ctx, "", named); err != nil {
			return nil, err
		}
		return []image.Digest{image.DigestOf(doc)}, nil
	case image.IndexKind:
		index, err := image.ParseIndex(doc)
		if err != nil {
			return nil, nil //nolint:nilerr // no image, and so without manifests
		}
		to := make([]image.Digest, len(index.Manifests))
		for i, child := range index.Manifests {
			to[i] = child.Digest
		}
		return to, nil
	}
	return nil, nil
}

// tagsOn returns the tags of a repository whose own manifest this is, and what they
// name; and of those that lead to it by an index one, "" where there is none.
func (s *Server) tagsOn(ctx context.Context, repository string, id image.Digest) (tags map[image.Reference]image.ID, index string, err error) {
	var mu sync.Mutex
	tags = map[image.Reference]image.ID{}
	err = s.eachTag(ctx, repository, func(ctx context.Context, ref image.Reference, named image.ID) error {
		leads, err := s.leads(ctx, named, id)
		if err != nil || !leads {
			return err
		}
		isIndex := false
		if named != id {
			doc, err := s.from.Document(ctx, named)
			if err != nil {
				return err
			}
			kind, err := image.KindOf(doc)
			isIndex = err == nil && kind == image.IndexKind
		}
		mu.Lock()
		defer mu.Unlock()
		if isIndex {
			index = ref.Tag
		} else {
			tags[ref] = named
		}
		return nil
	})
	return tags, index, err
}
