package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/storage"
)

// Forget deletes an entry, as a garbage collection does, unless one of its objects
// was modified after since; the zero time is never. It asks nobody who may need
// the entry: it is for what is nothing but a cache. It reports whether the entry is gone.
func (r *Repo) Forget(ctx context.Context, id image.Digest, since time.Time) (gone bool, err error) {
	var keys []string
	for info, err := range r.store.List(ctx, entryPrefix(id)) {
		if err != nil {
			return false, r.failure(err, "cannot look into %s", r.name)
		}
		if !since.IsZero() && info.Modified.After(since) {
			return false, nil
		}
		keys = append(keys, info.Key)
	}
	if err := r.deleteEntry(ctx, id, keys); err != nil {
		return false, r.failure(err, "cannot remove %s from %s", id.Short(), r.name)
	}
	return true, nil
}

// Touch makes an entry the youngest, so that Entries tells when it was of use. It
// fails with errors.ErrUnsupported where the store is no storage.Toucher.
func (r *Repo) Touch(ctx context.Context, id image.Digest) error {
	t, ok := r.store.(storage.Toucher)
	if !ok {
		return fmt.Errorf("%s: %w", r.name, errors.ErrUnsupported)
	}
	return r.failure(t.Touch(ctx, entryKey(id, entryJSON)), "cannot write to %s", r.name)
}

// deleteEntry deletes the objects of an entry: json first, but for the marks of an
// index, which would count again for whoever writes it next; VERSION last.
func (r *Repo) deleteEntry(ctx context.Context, id image.Digest, keys []string) error {
	place := func(key string) int {
		switch {
		case strings.HasPrefix(key, entryKey(id, heldBase)):
			return 0
		case key == entryKey(id, entryJSON):
			return 1
		case key == entryKey(id, entryVersion):
			return 3
		}
		return 2
	}
	slices.SortStableFunc(keys, func(a, b string) int { return place(a) - place(b) })
	for _, key := range keys {
		if err := r.store.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}
