package repo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

var _ remote.TagCreator = (*Repo)(nil)

// createProbe is named as the keys of storage/probe are, whose Sweep removes
// what a killed push leaves.
const createProbe = runPrefix + "check-%016x/create"

// MayCreate looks whether the tag is free, and may try on a key of its own
// whether the store can create without replacing.
func (r *Repo) MayCreate(ctx context.Context, ref image.Reference, id image.ID, try bool) error {
	creator, ok := r.store.(storage.Creator)
	if !ok {
		return r.cannotCreate(errors.ErrUnsupported)
	}
	switch named, err := r.named(ctx, ref); {
	case err == nil && named != id:
		return r.exists(ref, named)
	case err == nil, !errors.Is(err, storage.ErrNotFound):
		return err
	case !try:
		return nil
	}
	key := fmt.Sprintf(createProbe, rand.Uint64())
	err := creator.Create(ctx, key, strings.NewReader(""))
	if err != nil {
		return r.cannotCreate(err)
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	return r.failure(r.store.Delete(late, key), "cannot remove %s from %s", key, r.name)
}

// CreateTag is Tag by a create-if-absent.
func (r *Repo) CreateTag(ctx context.Context, ref image.Reference, id image.ID) error {
	return r.createTag(ctx, ref, id, nil)
}

func (r *Repo) createTag(ctx context.Context, ref image.Reference, id image.ID, rely relier) error {
	creator, ok := r.store.(storage.Creator)
	if !ok {
		return r.cannotCreate(errors.ErrUnsupported)
	}
	err := r.tag(ctx, ref, id, creator.Create, rely)
	if errors.Is(err, errors.ErrUnsupported) {
		return r.cannotCreate(err)
	}
	return err
}

func (r *Repo) cannotCreate(err error) error {
	if !errors.Is(err, errors.ErrUnsupported) {
		return r.failure(err, "cannot write to %s", r.name)
	}
	return fault.Wrap(fault.Refused, err, "%s cannot promise that a tag is not overwritten", r.name).
		Advise("Do without --if-absent, or use a store that honours conditional writes: see `dogestry check %s`.", r.name)
}

// taken is the end of a create that came too late. The winner may have written
// the same.
func (r *Repo) taken(ctx context.Context, ref image.Reference, id image.ID) error {
	named, err := r.named(ctx, ref)
	switch {
	case err == nil && named == id:
		return nil
	case err == nil:
		return r.exists(ref, named)
	case errors.Is(err, storage.ErrNotFound): // removed since
		return fault.New(fault.Other, "the tag %s in %s came and went meanwhile", ref, r.name).
			Advise("Run the same command again.")
	}
	return err
}

func (r *Repo) exists(ref image.Reference, named image.ID) error {
	return fault.New(fault.Refused, "%s exists in %s, and names %s", ref, r.name, named.Short()).
		Advise("Choose another tag, or do it without --if-absent to move this one.")
}
