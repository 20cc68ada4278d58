package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// shared is a remote, or a repository of a registry, as all hosts see it: what a tag
// names, documents and what is there are asked for once.
type shared struct {
	from remote.Source

	names     memo[string, image.ID]
	documents memo[image.Digest, []byte]
	looks     memo[string, *remote.Found]
	held      memo[image.Digest, []image.Digest]

	mu      sync.Mutex
	kept    int64 // bytes of documents that are remembered
	looked  int
	members map[string]*shared // repositories, of a registry
}

// Bounds of what is remembered. What is more is asked for each time.
const (
	maxKept   = 64 << 20 // bytes of documents
	maxLooked = 256
)

func share(from remote.Source) *shared {
	s := &shared{from: from, members: map[string]*shared{}}
	// As for who asks for it, so for all who do: they shall not have several answers.
	s.names.keep = func(image.ID, error) bool { return true }
	s.documents.keep = func(doc []byte, err error) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil || s.kept+int64(len(doc)) > maxKept {
			return false
		}
		s.kept += int64(len(doc))
		return true
	}
	s.looks.keep = func(_ *remote.Found, err error) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil || s.looked >= maxLooked {
			return false
		}
		s.looked++
		return true
	}
	return s
}

// in is the shared view of a repository of a registry.
func (s *shared) in(repository string, from remote.Source) *shared {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.members[repository] == nil {
		s.members[repository] = share(from)
	}
	return s.members[repository]
}

// resolved returns what a reference was found to name.
func (s *shared) resolved(ref image.Reference) (id image.ID, ok bool) {
	s.mu.Lock()
	if in := s.members[ref.Repository]; in != nil {
		s.mu.Unlock()
		return in.names.known(ref.String())
	}
	s.mu.Unlock()
	return s.names.known(ref.String())
}

// source is what one host reads.
type source struct {
	*shared
	member *member // nil where each reads layers at its own pace
}

var (
	_ remote.Source = (*source)(nil)
	_ remote.Holder = (*source)(nil)
)

// sourceFor returns the remote for one host.
func (s *shared) sourceFor(m *member) remote.Source {
	own := &source{s, m}
	if r, ok := s.from.(remote.Repositories); ok {
		return &registry{own, r}
	}
	parts, ok := s.from.(remote.Parts)
	if !ok || m != nil {
		return own
	}
	if keeper, ok := s.from.(remote.Keeper); ok {
		return &keeping{divisible{own, parts}, keeper}
	}
	return &divisible{own, parts}
}

// divisible is a source of which a host may read parts. One that shares layers with others may not: they would wait
// for it to read what it does not need.
type divisible struct {
	*source
	remote.Parts
}

// keeping is a source that has a cache: what one host puts together, all get out of that.
type keeping struct {
	divisible
	remote.Keeper
}

// divisibleRepository is a divisible that is a repository of a registry.
type divisibleRepository struct {
	repositoryOf
	remote.Parts
}

// keepingRepository is a keeping that is one.
type keepingRepository struct {
	divisibleRepository
	remote.Keeper
}

// registry is a source whose images belong to repositories.
type registry struct {
	*source
	repositories remote.Repositories
}

// In implements remote.Repositories.
func (r *registry) In(repository string) remote.Remote {
	in := r.repositories.In(repository)
	own := repositoryOf{&source{r.shared.in(repository, in), r.member}, in}
	parts, ok := in.(remote.Parts)
	if !ok || r.member != nil {
		return own
	}
	if keeper, ok := in.(remote.Keeper); ok {
		return keepingRepository{divisibleRepository{own, parts}, keeper}
	}
	return divisibleRepository{own, parts}
}

type repositoryOf struct {
	*source
	remote.Target
}

// Resolve implements remote.Source. All hosts get the same image.
func (s *source) Resolve(ctx context.Context, ref image.Reference) (image.ID, error) {
	return s.names.get(ctx, ref.String(), func() (image.ID, error) { return s.from.Resolve(ctx, ref) })
}

// Document implements remote.Source.
func (s *source) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	return s.documents.get(ctx, id, func() ([]byte, error) { return s.from.Document(ctx, id) })
}

// Look implements remote.Source.
func (s *source) Look(ctx context.Context, c remote.Closure, known map[image.Digest]remote.Layer) (*remote.Found, error) {
	if known != nil || len(c.Layers) == 0 {
		return s.from.Look(ctx, c, known)
	}
	var key strings.Builder
	for _, ids := range [][]image.Digest{c.Documents, c.Layers} {
		for _, id := range ids {
			key.Write(id[:])
		}
		key.WriteByte('\n')
	}
	return s.looks.get(ctx, key.String(), func() (*remote.Found, error) { return s.from.Look(ctx, c, nil) })
}

// Open implements remote.Source.
func (s *source) Open(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	if s.member == nil {
		return s.from.Open(ctx, layer)
	}
	return s.member.open(ctx, s.shared, layer)
}

// References implements remote.Source.
func (s *source) References(ctx context.Context, repository string) iter.Seq2[remote.Tag, error] {
	return s.from.References(ctx, repository)
}

// Held implements remote.Holder. A remote that is none has all of an index.
func (s *source) Held(ctx context.Context, index image.Digest) ([]image.Digest, error) {
	return s.held.get(ctx, index, func() ([]image.Digest, error) {
		if holder, ok := s.from.(remote.Holder); ok {
			return holder.Held(ctx, index)
		}
		doc, err := s.Document(ctx, index)
		if err != nil {
			return nil, err
		}
		parsed, err := image.ParseIndex(doc)
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", index.Short(), err)
		}
		ids := make([]image.Digest, len(parsed.Manifests))
		for i, m := range parsed.Manifests {
			ids[i] = m.Digest
		}
		return slices.Clip(ids), nil
	})
}

// Hold implements remote.Holder. Hosts read.
func (s *source) Hold(context.Context, image.Digest, []image.Digest) error {
	return errors.ErrUnsupported
}
