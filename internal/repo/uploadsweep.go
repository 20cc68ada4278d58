package repo

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// UploadAge is how long an upload stays to which nothing is added.
const UploadAge = 24 * time.Hour

// SweepUploads removes the uploads whose youngest piece is not younger than age, by
// the store's clock, and returns how many there were.
func (r *Repo) SweepUploads(ctx context.Context, age time.Duration) (removed int, err error) {
	var now time.Time
	for _, err := range r.store.List(ctx, uploadsPrefix) {
		if err == nil {
			now, err = r.storeTime(ctx)
		}
		if err != nil {
			return 0, r.failure(err, "cannot look at the uploads to %s", r.name)
		}
		break // there are some
	}
	removed, err = r.sweepUploads(ctx, now.Add(-age))
	return removed, r.failure(err, "cannot remove old uploads to %s", r.name)
}

// storeTime is what time it is for the store, by a new upload that is removed again.
func (r *Repo) storeTime(ctx context.Context) (time.Time, error) {
	id, err := r.CreateUpload(ctx, "now")
	if err != nil {
		return time.Time{}, err
	}
	info, err := r.store.Stat(ctx, uploadKey(id, uploadSession))
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if err := r.store.Delete(late, uploadKey(id, uploadSession)); err != nil {
		return time.Time{}, err
	}
	return info.Modified, err
}

// sweepUploads removes the uploads to which nothing was added since then.
func (r *Repo) sweepUploads(ctx context.Context, since time.Time) (removed int, err error) {
	var current string // the upload that is being listed
	var keys []string  // its objects; none where it stays
	drop := func() error {
		if len(keys) == 0 {
			return nil
		}
		removed++
		return r.removeUpload(ctx, current, keys)
	}
	stays := false
	for info, err := range r.store.List(ctx, uploadsPrefix) {
		if err != nil {
			return removed, err
		}
		id, ok := parseUploadKey(info.Key)
		if !ok {
			continue
		}
		if id != current {
			if err := drop(); err != nil {
				return removed, err
			}
			current, keys, stays = id, nil, false
		}
		if stays = stays || info.Modified.After(since); stays {
			keys = nil
		} else {
			keys = append(keys, info.Key)
		}
	}
	return removed, drop()
}

// deleteAll deletes many objects, several at once.
func (r *Repo) deleteAll(ctx context.Context, keys []string) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(deleters)
	for _, key := range keys {
		g.Go(func() error { return r.store.Delete(gctx, key) })
	}
	return g.Wait()
}
