package readthrough

import (
	"context"
	"iter"
	"slices"
	"sync"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Registry is a Source over a remote in which images belong to repositories. What one
// repository had is in the cache for all: who may read what is another's affair.
type Registry struct {
	*Source
	repositories Repositories
}

var (
	_ remote.Repositories = (*Registry)(nil)
	_ remote.Catalogued   = (*Registry)(nil)
)

// Repositories is a remote whose images belong to repositories.
type Repositories interface {
	remote.Source
	remote.Repositories
	remote.Catalogued
}

// NewRegistry is New for such a remote.
func (c *Cache) NewRegistry(from Repositories) *Registry {
	s := c.New(from)
	s.unread = new(unread)
	return &Registry{s, from}
}

// Catalog implements remote.Catalogued: those that the remote has now.
func (r *Registry) Catalog(ctx context.Context) iter.Seq2[string, error] {
	return r.repositories.Catalog(ctx)
}

// In implements remote.Repositories. Only reading goes through the cache.
func (r *Registry) In(repository string) remote.Remote {
	in := r.repositories.In(repository)
	return member{&Source{cache: r.cache, from: in, flights: r.flights, unread: new(unread)}, in}
}

// member is one repository.
type member struct {
	*Source
	remote.Target
}

// unread are documents that the cache has given, so that the remote was not asked for
// them. A registry learns from documents in which blobs layers are compressed: where it
// does not find a layer, they have to be read there after all. It is safe for
// concurrent use; nil is none.
type unread struct {
	mu  sync.Mutex
	ids []image.Digest // the oldest first

	reading sync.Mutex // held while they are read; guards the rest
	were    bool       // some
}

// mostUnread bounds them: an image has fewer.
const mostUnread = image.MaxManifests + 32

func (u *unread) add(id image.Digest) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if slices.Contains(u.ids, id) {
		return
	}
	u.ids = append(u.ids, id)
	if over := len(u.ids) - mostUnread; over > 0 {
		u.ids = slices.Delete(u.ids, 0, over)
	}
}

// read reads them from the remote, once, and reports whether it makes sense to look
// again: whether there are any, or were, for who does not find a layer may have looked
// while another one read them. What fails here shows where it is needed.
func (u *unread) read(ctx context.Context, from remote.Source) bool {
	if u == nil {
		return false
	}
	u.reading.Lock()
	defer u.reading.Unlock()
	u.mu.Lock()
	ids := u.ids
	u.ids = nil
	u.mu.Unlock()
	for i, id := range ids {
		_, _ = from.Document(ctx, id)
		if ctx.Err() != nil { // others still need them
			for _, id := range ids[i:] {
				u.add(id)
			}
			return false
		}
		u.were = true
	}
	return u.were
}
