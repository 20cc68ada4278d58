package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

var _ original.Remote = (*Repo)(nil)

// originalVersion is the VERSION of an entry that the original dogestry wrote.
const originalVersion = "1.0"

// originalOrder is the order in which the files of a layer are tried there.
var originalOrder = []codec.Codec{codec.LZ4, codec.None}

// isOriginal reports whether an entry is one of the original dogestry's. Whether its
// json is a document is to be asked before: then it is none.
func (r *Repo) isOriginal(ctx context.Context, id image.Digest) (bool, error) {
	version, err := r.small(ctx, entryKey(id, entryVersion))
	switch {
	case errors.Is(err, storage.ErrNotFound), fault.Is(err, fault.Damaged):
		return false, nil
	case err != nil:
		return false, r.failure(err, "cannot read %s", r.name)
	}
	return strings.TrimSuffix(string(version), "\n") == originalVersion, nil
}

// noDocument is the fault of an entry of format 1.0 that was asked for as a document.
func (r *Repo) noDocument(id image.Digest) error {
	key := entryKey(id, entryJSON)
	where := &remote.Damage{Object: key, Text: key + " in " + r.name, Cause: remote.ErrOriginal}
	return fault.Wrap(fault.Damaged, where, "%s is no document", id.Short()).
		Advise("An image of that format is reached by its tag alone.")
}

// oldImage is the fault of what is to be named anew and is of format 1.0.
func (r *Repo) oldImage(id image.ID) error {
	return fault.Wrap(fault.Refused, remote.ErrOriginal, "image %s in %s cannot be given another name", id.Short(), r.name).
		Advise("`dogestry upgrade %s` makes an image of today of it.", r.name)
}

// Original implements remote.Originals.
func (r *Repo) Original(ctx context.Context, id image.Digest) (remote.Original, error) {
	key := entryKey(id, entryJSON)
	o := remote.Original{ID: id, Layer: remote.Layer{Digest: id, Size: -1, Source: key}}
	var sizes map[string]int64
	var versions map[string]string
	var is bool
	var readErr error
	// At once, since a chain is walked entry by entry.
	var g errgroup.Group
	g.Go(func() (err error) {
		sizes, versions, err = r.originalFiles(ctx, id)
		return r.failure(err, "cannot look into %s", r.name)
	})
	g.Go(func() (err error) {
		is, err = r.isOriginal(ctx, id)
		return err
	})
	o.JSON, readErr = r.read(ctx, key, image.MaxDocument)
	if err := g.Wait(); err != nil {
		return o, err
	}
	switch {
	case len(sizes) == 0:
		return o, r.incomplete(&tornError{"entry " + entryPrefix(id) + " is missing", key, true})
	case !is:
		return o, r.incomplete(wrongObject(entryKey(id, entryVersion), "does not say that this is an entry of format 1.0"))
	case errors.Is(readErr, storage.ErrNotFound):
		return o, r.incomplete(missingObject(key))
	case fault.Is(readErr, fault.Damaged):
		return o, r.incomplete(wrongObject(key, "is too large"))
	case readErr != nil:
		return o, r.failure(readErr, "cannot read %s", r.name)
	}
	for _, c := range originalOrder {
		file := layerFile(c)
		if size, ok := sizes[file]; ok {
			o.Layer.Stored, o.Layer.Object, o.Layer.Version = size, entryKey(id, file), versions[file]
			break
		}
	}
	return o, nil
}

// originalFiles lists an entry. Where a store tells no versions, time and size make
// one: what is remembered by it is proved each time that it is used.
func (r *Repo) originalFiles(ctx context.Context, id image.Digest) (sizes map[string]int64, versions map[string]string, err error) {
	sizes, versions = map[string]int64{}, map[string]string{}
	add := func(name string, info storage.Info) {
		if info.Version == "" {
			info.Version = fmt.Sprint(info.Size)
		}
		sizes[name], versions[name] = info.Size, version(info)
	}
	prefix := entryPrefix(id)
	for info, err := range r.store.List(ctx, prefix) {
		if unlists(err) {
			return sizes, versions, r.askFor(ctx, id, add, entryJSON, layerFile(codec.LZ4), layerFile(codec.None))
		}
		if err != nil {
			return nil, nil, err
		}
		name := strings.TrimPrefix(info.Key, prefix)
		if name != entryJSON && name != entryVersion {
			if _, ok := codecOf(name); !ok {
				continue
			}
		}
		add(name, info)
	}
	return sizes, versions, nil
}

// OpenOriginal implements remote.Originals.
func (r *Repo) OpenOriginal(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	return r.OpenDecoded(ctx, layer)
}
