package repo

import (
	"bytes"
	"context"
	"errors"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

var _ remote.Untagger = (*Repo)(nil)

// untagAttempts bounds how often a tag is looked at again that changes between
// the look and the removal, and goes on naming the same.
const untagAttempts = 5

// Untag removes a tag that names id. It deletes nothing else: what the tag
// reached is garbage collection's (docs/format.md, D1 and D4).
func (r *Repo) Untag(ctx context.Context, ref image.Reference, id image.ID) error {
	var err error
	for range untagAttempts {
		var content []byte
		content, err = r.read(ctx, tagKey(ref), maxSmall)
		damaged := fault.Is(err, fault.Damaged) // too large for a tag
		switch {
		case errors.Is(err, storage.ErrNotFound):
			return nil
		case err != nil && !damaged:
			return r.failure(err, "cannot read the tag %s in %s", ref, r.name)
		}
		named, parseErr := parseID(content)
		if damaged || parseErr != nil {
			named = image.ID{}
		}
		if named != id {
			return r.moved(ref, id, named)
		}
		if damaged {
			err = r.store.Delete(ctx, tagKey(ref)) // nobody compares that much, and no push writes it
		} else {
			err = r.deleteIf(ctx, tagKey(ref), content)
		}
		if !errors.Is(err, storage.ErrChanged) {
			break
		}
	}
	return r.failure(err, "cannot remove the tag %s from %s", ref, r.name)
}

// deleteIf removes a small object that holds content. Where the store cannot
// compare and delete, it looks once more just before. (storage.ErrChanged)
func (r *Repo) deleteIf(ctx context.Context, key string, content []byte) error {
	if remover, ok := r.store.(storage.Remover); ok {
		err := remover.DeleteIf(ctx, key, content)
		if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		r.log.Debug("the store cannot compare and delete here, so it looks again and deletes", "key", key, "error", err)
	}
	switch now, err := r.small(ctx, key); {
	case errors.Is(err, storage.ErrNotFound):
		return nil
	case err != nil:
		return err
	case !bytes.Equal(now, content):
		return storage.ErrChanged
	}
	return r.store.Delete(ctx, key)
}

// moved says that a tag has come to name something else than what was to be untagged.
func (r *Repo) moved(ref image.Reference, id, named image.ID) error {
	what := func(id image.ID) string {
		if id.IsZero() {
			return "nothing, for it is damaged"
		}
		return id.Short()
	}
	return fault.New(fault.Refused, "%s in %s names %s by now, and not %s: it stays", ref, r.name, what(named), what(id)).
		Advise("Somebody has just written it. Look at what it names, and run the same command again to remove it all the same.")
}
