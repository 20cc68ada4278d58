package repo

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

var (
	_ remote.Mover = (*Repo)(nil)
	_ remote.Mover = (*session)(nil)
)

// moveAttempts bounds how often a tag is read again that changes between the
// reading and the swap, and goes on naming the same.
const moveAttempts = 5

// MoveTag implements remote.Mover.
func (r *Repo) MoveTag(ctx context.Context, ref image.Reference, from, to image.ID) error {
	return r.moveTag(ctx, ref, from, to, nil)
}

// MoveTag implements remote.Mover.
func (s *session) MoveTag(ctx context.Context, ref image.Reference, from, to image.ID) error {
	return s.whileAlive(ctx, func() error { return s.moveTag(ctx, ref, from, to, s.relyOnAll) })
}

func (r *Repo) moveTag(ctx context.Context, ref image.Reference, from, to image.ID, rely relier) error {
	swap := func(ctx context.Context, _ string, body io.Reader) error { return r.swapTag(ctx, ref, from, body) }
	return r.tag(ctx, ref, to, swap, rely)
}

// swapTag writes a tag that names from.
func (r *Repo) swapTag(ctx context.Context, ref image.Reference, from image.ID, body io.Reader) error {
	content, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	for range moveAttempts {
		var there []byte
		there, err = r.small(ctx, tagKey(ref))
		named, parseErr := parseID(there)
		switch {
		case errors.Is(err, storage.ErrNotFound):
			return fault.New(fault.Refused, "the tag %s in %s is gone by now", ref, r.name)
		case err != nil:
			return err
		case parseErr == nil && named.Hex() == string(content): // somebody else was as quick
			return nil
		case parseErr != nil || named != from:
			return fault.New(fault.Refused, "%s in %s does not name %s any more: it stays as it is", ref, r.name, from.Short()).
				Advise("Somebody has just written it. Run the same command again to see whether anything is left to do.")
		}
		if err = r.swap(ctx, tagKey(ref), there, content); !errors.Is(err, storage.ErrChanged) {
			break
		}
	}
	return err
}

// swap replaces a small object that holds old. Where the store cannot compare and
// swap, it was looked at just before.
func (r *Repo) swap(ctx context.Context, key string, old, content []byte) error {
	if swapper, ok := r.store.(storage.Swapper); ok {
		err := swapper.Swap(ctx, key, old, content)
		if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		r.log.Debug("the store cannot compare and swap here, so what was just looked at is replaced", "key", key, "error", err)
	}
	return r.store.Put(ctx, key, bytes.NewReader(content))
}
