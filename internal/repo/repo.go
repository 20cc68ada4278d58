// Package repo is a remote on a Store: the portable repository format of
// docs/format.md. Files are written before the json that tells of them, layers
// before documents, documents before tags, so that whatever dies in between, a
// tag never reaches an incomplete image.
package repo

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/lease"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

// lookups bounds how many entries are asked about at once. It is for stores
// far away: at 40 ms a request, 128 at once are 3,200 answers a second.
const lookups = 128

// Options of a repository.
type Options struct {
	Name  string      // the remote as the user named it, for messages
	Codec codec.Codec // how new layers are stored

	// NoIndex stores them without a chunk index, and in as few frames as the codec makes.
	NoIndex bool

	Log   *slog.Logger
	Times lease.Times // of leases and collections; the zero value means the format's

	// NoWait makes a session fail with a Locked fault where it would wait for a
	// garbage collection.
	NoWait bool

	// Notify is told what people should know although it is no failure. It may be
	// nil, and may be called at any time.
	Notify func(line string)
}

// Repo is a repository on a store. It is safe for concurrent use.
type Repo struct {
	store  storage.Store
	name   string
	codec  codec.Codec
	bare   bool // layers get no index
	log    *slog.Logger
	times  lease.Times
	noWait bool
	notify func(string)

	pieceSize int64 // of uploads, at most; tests make it smaller

	// alive allows to write what makes others need something: a tag, a mark of an
	// index, the json of an entry. Nil allows it; a session's asks its lease.
	alive func(context.Context) error

	unlisted *unlisted
}

// guarded returns a context for such writes.
func (r *Repo) guarded(ctx context.Context) context.Context {
	if r.alive == nil {
		return ctx
	}
	return storage.WithGuard(ctx, r.alive)
}

var _ remote.Remote = (*Repo)(nil)

// Open returns the repository on store, which may be empty: then the first tag
// makes it one. A newer major version of the format is refused.
func Open(ctx context.Context, store storage.Store, o Options) (*Repo, error) {
	r := &Repo{store: store, name: o.Name, codec: o.Codec, bare: o.NoIndex, log: o.Log, times: o.Times, noWait: o.NoWait, notify: o.Notify, pieceSize: pieceSize, unlisted: new(unlisted)}
	if r.notify == nil {
		r.notify = func(string) {}
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	marker, err := r.small(ctx, rootMarker)
	if errors.Is(err, storage.ErrNotFound) {
		return r, nil
	}
	if err != nil {
		return nil, r.failure(err, "cannot read %s", o.Name)
	}
	version := strings.TrimSpace(string(marker))
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err != nil || n > formatMajor {
		return nil, fault.New(fault.Refused, "%s has the format version %.20q; this dogestry knows %s", o.Name, version, formatVersion).
			Advise("Use a newer dogestry. If this is no dogestry remote, choose another directory.")
	}
	return r, nil
}

// maxSmall bounds tags, markers, pointers and metadata, in bytes.
const maxSmall = 64 << 10

// small reads an object of a few bytes.
func (r *Repo) small(ctx context.Context, key string) ([]byte, error) {
	return r.read(ctx, key, maxSmall)
}

func (r *Repo) read(ctx context.Context, key string, most int64) ([]byte, error) {
	b, err := storage.Read(ctx, r.store, key, most)
	if errors.Is(err, storage.ErrTooLarge) {
		return nil, fault.New(fault.Damaged, "%s in %s is larger than %d bytes", key, r.name, most)
	}
	return b, err
}

// failure turns a store's error into a fault that names the remote. Faults and
// the end of a context pass as they are.
func (r *Repo) failure(err error, format string, args ...any) error {
	var known *fault.Error
	switch {
	case err == nil, errors.As(err, &known), fault.Interrupted(err):
		return err
	case errors.Is(err, storage.ErrPermission):
		return fault.Wrap(fault.Refused, err, format, args...).
			Advise("dogestry needs to read %s, and to push or change tags also to write there.", r.name)
	case errors.Is(err, storage.ErrNoSpace):
		return fault.Wrap(fault.Other, err, format, args...).
			Advise("Make room in %s and run the same command again: what is stored stays.", r.name)
	case errors.Is(err, storage.ErrConflict):
		return fault.Wrap(fault.Other, err, format, args...).
			Advise("What is in the way there is not dogestry's: look at it, and move it away.")
	case errors.Is(err, storage.ErrNotFound):
		return fault.Wrap(fault.NotFound, err, format, args...)
	default:
		return fault.Wrap(fault.Other, err, format, args...)
	}
}
