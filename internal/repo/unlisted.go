package repo

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/storage"
)

// A store that cannot list (a plain web server) is asked for what an entry can hold, by
// its names.

// unlists reports whether an error of a list says that there are none.
func unlists(err error) bool { return errors.Is(err, errors.ErrUnsupported) }

// filesByName is files for such a store.
func (r *Repo) filesByName(ctx context.Context, id image.Digest) (*files, error) {
	doc, err := r.read(ctx, entryKey(id, entryJSON), image.MaxDocument)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, nil
	case fault.Is(err, fault.Damaged): // too large: who reads it says so
		return &files{json: true}, nil
	case err != nil:
		return nil, err
	}
	f := &files{json: true}
	var meta metadata
	isDocument := image.DigestOf(doc) == id
	if !isDocument && json.Unmarshal(doc, &meta) == nil {
		if _, ok := codecOf(meta.File); ok {
			if err := r.askFor(ctx, id, f.add, meta.File); err != nil || len(f.layers) > 0 {
				return f, err
			}
		}
	}
	names := []string{entryBlob}
	for _, c := range readOrder {
		names = append(names, layerFile(c))
	}
	if isDocument {
		if index, err := image.ParseIndex(doc); err == nil {
			for _, child := range index.Manifests {
				if mark := heldBase + child.Digest.Hex(); !slices.Contains(names, mark) {
					names = append(names, mark)
				}
			}
		}
	}
	return f, r.askFor(ctx, id, f.add, names...)
}

// askFor asks for files of an entry, and tells add of those that are there.
func (r *Repo) askFor(ctx context.Context, id image.Digest, add func(name string, info storage.Info), names ...string) error {
	found := make([]*storage.Info, len(names))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, name := range names {
		g.Go(func() error {
			info, err := r.store.Stat(gctx, entryKey(id, name))
			switch {
			case err == nil:
				found[i] = &info
			case errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrPermission): // a bucket's way to say so, where it cannot be listed
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, info := range found {
		if info != nil {
			add(names[i], *info)
		}
	}
	return nil
}

// unlisted tells once what is not found on such a store.
type unlisted struct{ once sync.Once }

func (r *Repo) tellUnlisted() {
	r.unlisted.once.Do(func() {
		r.notify("warning: " + r.name + " gives no lists: signatures, SBOMs and what else refers to an image there are not found")
	})
}
