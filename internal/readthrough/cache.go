// Package readthrough keeps what is read of a remote in a directory, up to a limit,
// so that the next one who needs it need not ask the remote: layers and documents,
// which are what their digests say for ever. Tags and signatures are always asked for.
//
// The directory has the portable repository format (docs/format.md), without tags.
// Whatever it holds proves itself, so nothing else is written down: how large it is
// comes from listing it, and when an entry was of use last is its own time. Several
// processes may use one directory at once.
package readthrough

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
)

// Store is what a cache lies on: a directory.
type Store interface {
	storage.Store
	storage.Follower
	storage.Toucher
	storage.Sweeper
}

// Options of a cache.
type Options struct {
	Name  string // the directory as the user named it, for messages
	Limit int64  // of all that is in it, in bytes
	Log   *slog.Logger

	// Notify is told what people should know although it is no failure. It may be
	// nil, and may be called at any time.
	Notify func(line string)
}

// pause is how long nothing is written to a cache that could not be written.
const pause = time.Minute

// Cache is a bounded cache. It is safe for concurrent use.
type Cache struct {
	store  Store
	repo   *repo.Repo
	name   string
	log    *slog.Logger
	notify func(string)
	room   *room

	now func() time.Time // time.Now but in tests

	mu    sync.Mutex
	off   time.Time             // until then nothing is written
	told  bool                  // of trouble with the cache itself
	wrong map[image.Digest]bool // entries of which was told that they are damaged
	stuck map[image.Digest]bool // damaged entries that cannot be removed
}

// Open returns the cache on store, which stays the caller's. A store that has tags
// is somebody's remote, and refused: what they name would be deleted.
func Open(ctx context.Context, store Store, o Options) (*Cache, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Notify == nil {
		o.Notify = func(string) {}
	}
	r, err := repo.Open(ctx, store, repo.Options{Name: o.Name, Codec: codec.LZ4, Log: o.Log})
	if err != nil {
		return nil, err
	}
	for tag, err := range r.References(ctx, "") {
		if err != nil {
			return nil, err
		}
		return nil, fault.New(fault.Refused, "%s has the image %s: it is a remote, and no cache", o.Name, tag.Reference).
			Advise("What is in a cache may be deleted at any time. Name another directory, which dogestry makes.")
	}
	c := &Cache{
		store: store, repo: r, name: o.Name, log: o.Log, notify: o.Notify,
		now: time.Now, wrong: map[image.Digest]bool{}, stuck: map[image.Digest]bool{},
	}
	c.room = newRoom(c, o.Limit)
	return c, nil
}

// find looks for a layer that is there whole.
func (c *Cache) find(ctx context.Context, id image.Digest) (remote.Layer, bool) {
	found := c.look(ctx, remote.Closure{Layers: []image.Digest{id}})
	if len(found) == 0 {
		return remote.Layer{}, false
	}
	return found[0], true
}

// look returns the layers that are there whole.
func (c *Cache) look(ctx context.Context, want remote.Closure) []remote.Layer {
	_, there, err := c.repo.Missing(ctx, want)
	if err != nil {
		c.trouble(err)
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(there, func(l remote.Layer) bool { return c.stuck[l.Digest] || c.stuck[l.Packed] })
}

// document returns a document that is there. One that is damaged is told; whoever
// needs it writes it again.
func (c *Cache) document(ctx context.Context, id image.Digest) ([]byte, bool) {
	doc, err := c.repo.Document(ctx, id)
	if err == nil {
		c.touch(ctx, id)
		return doc, true
	}
	var damage *remote.Damage
	switch {
	case !fault.Is(err, fault.Damaged):
		c.trouble(err)
	case errors.As(err, &damage) && !damage.Missing:
		c.tell(id, "document", err)
	}
	return nil, false
}

// keep stores a document.
func (c *Cache) keep(ctx context.Context, doc []byte) {
	if !c.writable() || image.CheckDocument(doc) != nil {
		return
	}
	n := int64(len(doc)) + beside
	if !c.room.reserve(ctx, n) {
		return
	}
	err := c.repo.PutDocument(ctx, doc)
	if err != nil {
		c.cannotWrite(err)
		c.room.release(n, 0)
		return
	}
	c.room.release(n, n)
}

// touch notes that entries were of use. Where that is not possible, they go as if
// they had not been.
func (c *Cache) touch(ctx context.Context, ids ...image.Digest) {
	for _, id := range ids {
		if err := c.repo.Touch(ctx, id); err != nil {
			c.log.Debug("cannot note that an entry of the cache was of use", "entry", id, "error", err)
		}
	}
}

// lost removes the entries of a layer that is not what it should be. An entry that
// is gone already, since somebody has made room, is nothing to tell.
func (c *Cache) lost(ctx context.Context, layer remote.Layer, cause error) {
	var damage *remote.Damage
	if fault.Interrupted(cause) || errors.As(cause, &damage) && damage.Missing {
		return
	}
	c.tell(layer.Digest, "layer", cause)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	for _, id := range entriesOf(layer) {
		if _, err := c.repo.Forget(ctx, id, time.Time{}); err != nil {
			c.mu.Lock()
			c.stuck[id] = true
			c.mu.Unlock()
			c.trouble(err)
		}
	}
}

// cleanupTime is for removing what is damaged, also after the context has ended.
const cleanupTime = 10 * time.Second

// entriesOf returns the entries that a layer lies in.
func entriesOf(l remote.Layer) []image.Digest {
	if l.Packed.IsZero() || l.Packed == l.Digest {
		return []image.Digest{l.Digest}
	}
	return []image.Digest{l.Digest, l.Packed}
}

// tell tells of damage, once for each entry.
func (c *Cache) tell(id image.Digest, what string, cause error) {
	c.mu.Lock()
	told := c.wrong[id]
	if len(c.wrong) < mostTold {
		c.wrong[id] = true
	}
	c.mu.Unlock()
	c.log.Debug("an entry of the cache is damaged", "entry", id, "error", cause)
	if !told {
		c.notify(what + " " + id.Short() + " in the cache " + c.name + " was damaged: it is removed, and read from the remote again")
	}
}

// mostTold bounds the entries of which it is known that they were told.
const mostTold = 1 << 10

// trouble tells, once, that the cache itself does not work. Nothing fails for that.
func (c *Cache) trouble(err error) {
	if fault.Interrupted(err) {
		return
	}
	c.log.Debug("the cache does not work", "error", err)
	c.mu.Lock()
	told := c.told
	c.told = true
	c.mu.Unlock()
	if !told {
		c.notify("the cache " + c.name + " is of no use now: " + err.Error() + "; going on without it")
	}
}

// cannotWrite is trouble, after which nothing is written for a while.
func (c *Cache) cannotWrite(err error) {
	if fault.Interrupted(err) {
		return
	}
	c.mu.Lock()
	c.off = c.now().Add(pause)
	c.mu.Unlock()
	c.trouble(err)
}

func (c *Cache) writable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.now().Before(c.off)
}
