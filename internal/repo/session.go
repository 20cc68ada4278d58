package repo

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/lease"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

var (
	_ remote.Sessions   = (*Repo)(nil)
	_ remote.Remote     = (*session)(nil)
	_ remote.TagCreator = (*session)(nil)
	_ remote.Holder     = (*session)(nil)

	_ remote.StoredTarget = (*session)(nil)
)

// session is a repository as one push writes it: what the push relies on is
// leased before it is asked for, so that no garbage collection deletes it
// meanwhile (docs/format.md, P1 to P7).
type session struct {
	*Repo
	lease *lease.Lease
}

// Begin implements remote.Sessions.
func (r *Repo) Begin(waiting func(string)) (remote.Target, func(context.Context)) {
	held := lease.New(r.store, lease.Options{Times: r.times, Log: r.log, NoWait: r.noWait, Waiting: waiting})
	leased := *r
	leased.alive = held.Alive
	return &session{&leased, held}, held.Release
}

// rely leases ids. fresh says that what was found out before may not hold any more.
func (s *session) rely(ctx context.Context, ids []image.Digest) (fresh bool, err error) {
	fresh, err = s.lease.Rely(ctx, ids...)
	return fresh, s.leaseFailure(err)
}

func (s *session) leaseFailure(err error) error {
	var known *fault.Error // which says which permission is missing
	if errors.Is(err, storage.ErrPermission) && !errors.As(err, &known) {
		return fault.Wrap(fault.Refused, err, "cannot write to %s", s.name).
			Advise("A push says under run/leases/ what it relies on: it needs to write, read and delete there.")
	}
	if errors.Is(err, lease.ErrSwept) {
		return fault.Wrap(fault.Locked, err, "cannot write to %s now", s.name).
			Advise("Run the same command again in a while: what is stored stays. Without --no-wait it waits until the garbage collection has ended, an hour or two at most.")
	}
	return s.failure(err, "cannot say in %s what this relies on", s.name)
}

// Missing implements remote.Target.
func (s *session) Missing(ctx context.Context, c remote.Closure) (missing remote.Closure, there []remote.Layer, err error) {
	if _, err := s.rely(ctx, slices.Concat(c.Documents, c.Layers)); err != nil {
		return missing, nil, err
	}
	for {
		missing, there, err = s.Repo.Missing(ctx, c)
		if err != nil {
			return missing, there, err
		}
		fresh, err := s.relyOnAliased(ctx, there)
		if err != nil || !fresh {
			return missing, there, err
		}
	}
}

// relyOnAliased leases the blobs that layers were found in by an alias.
func (s *session) relyOnAliased(ctx context.Context, there []remote.Layer) (fresh bool, err error) {
	var blobs []image.Digest
	for _, l := range there {
		if id, _, ok := parseEntryKey(l.Object); ok && id != l.Digest {
			blobs = append(blobs, id)
		}
	}
	if len(blobs) == 0 {
		return false, nil
	}
	return s.rely(ctx, blobs)
}

// PutLayer implements remote.Target.
func (s *session) PutLayer(ctx context.Context, layer image.Descriptor, from io.Reader) (remote.Layer, error) {
	if _, err := s.rely(ctx, []image.Digest{layer.Digest}); err != nil {
		return remote.Layer{}, err
	}
	stored, err := s.Repo.PutLayer(ctx, layer, from)
	return stored, s.lost(err)
}

// PutStored implements remote.StoredTarget.
func (s *session) PutStored(ctx context.Context, layer image.Descriptor, stored remote.Stored) (remote.Layer, error) {
	ids := []image.Digest{layer.Digest}
	if !stored.Blob.IsZero() {
		ids = append(ids, stored.Blob)
	}
	if _, err := s.rely(ctx, ids); err != nil {
		return remote.Layer{}, err
	}
	done, err := s.Repo.PutStored(ctx, layer, stored)
	return done, s.lost(err)
}

// PutDocument implements remote.Target.
func (s *session) PutDocument(ctx context.Context, doc []byte) error {
	if _, err := s.rely(ctx, []image.Digest{image.DigestOf(doc)}); err != nil {
		return err
	}
	return s.whileAlive(ctx, func() error { return s.Repo.PutDocument(ctx, doc) })
}

// Hold implements remote.Holder.
func (s *session) Hold(ctx context.Context, index image.Digest, manifests []image.Digest) error {
	if _, err := s.rely(ctx, append(slices.Clone(manifests), index)); err != nil {
		return err
	}
	return s.whileAlive(ctx, func() error { return s.hold(ctx, index, manifests, s.relyOnAll) })
}

// Tag implements remote.Target.
func (s *session) Tag(ctx context.Context, ref image.Reference, id image.ID) error {
	return s.whileAlive(ctx, func() error { return s.tag(ctx, ref, id, s.store.Put, s.relyOnAll) })
}

// CreateTag implements remote.TagCreator.
func (s *session) CreateTag(ctx context.Context, ref image.Reference, id image.ID) error {
	return s.whileAlive(ctx, func() error { return s.createTag(ctx, ref, id, s.relyOnAll) })
}

// whileAlive writes, again if the lease is lost before it takes effect: what was
// relied on is looked for anew then.
func (s *session) whileAlive(ctx context.Context, write func() error) error {
	for attempt := 0; ; attempt++ {
		err := write()
		if !errors.Is(err, lease.ErrLost) {
			return err
		}
		if attempt == leaseAttempts {
			return s.lost(err)
		}
		s.log.Info("the lease was lost; beginning again", "error", err)
		if _, err := s.rely(ctx, nil); err != nil {
			return err
		}
	}
}

// leaseAttempts bounds how often a push begins again after it has lost its lease.
const leaseAttempts = 3

// lost says what to do where a lease was lost in the middle of what cannot begin again by itself.
func (s *session) lost(err error) error {
	if !errors.Is(err, lease.ErrLost) {
		return err
	}
	return fault.Wrap(fault.Other, err, "this machine was asleep, or %s out of reach, for too long to write there beside garbage collections", s.name).
		Advise("Run the same command again: what is stored stays.")
}

// relyOnAll leases an image and what it needs.
func (s *session) relyOnAll(ctx context.Context, ids []image.Digest, there []remote.Layer) (fresh bool, err error) {
	for _, l := range there {
		if id, _, ok := parseEntryKey(l.Object); ok {
			ids = append(ids, id)
		}
	}
	return s.rely(ctx, ids)
}
