// Package layout is OCI image layouts (OCI image-spec, image-layout.md) as sources
// and targets of copies, and whatever else holds images as an index of names and
// bytes under their digests: see Contents and Place. Who reads gets nothing that is not proved by its digest;
// who writes finds an image named only when all of it is there.
package layout

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/storage"
)

// Where things lie in a layout.
const (
	blobs     = ocispec.ImageBlobsDir + "/sha256"
	indexFile = ocispec.ImageIndexFile
)

// Store is what a layout that is written lies in.
type Store interface {
	storage.Store
	storage.Creator
	storage.Updater
}

// Directory is an image layout on a store: a Place. What foreign programs write to
// its index.json at the same moment can be lost; what other Directories do is not.
type Directory struct {
	store Store
	name  string

	mu     sync.Mutex // of what was read last, and what that means
	read   []byte
	parsed *Index
}

var _ Place = (*Directory)(nil)

// Open returns the layout on a store, which name stands for. It is NotFound where
// there is none, and Refused where there is one of another version.
func Open(ctx context.Context, store Store, name string) (*Target, error) {
	there, err := check(ctx, store, name)
	if err == nil && !there {
		err = fault.New(fault.NotFound, "no image layout at %s: it has no oci-layout", name).
			Advise("Name the directory that has oci-layout and index.json in it.")
	}
	if err != nil {
		return nil, err
	}
	t := NewTarget(&Directory{store: store, name: name}, name)
	switch _, err := store.Stat(ctx, indexFile); {
	case errors.Is(err, storage.ErrNotFound):
		return nil, fault.New(fault.Damaged, "incomplete image layout: %s is missing in %s", indexFile, name).
			Advise("Copy it there again, with what wrote it.")
	case err != nil:
		return nil, t.failure(err, "cannot read %s", name)
	}
	return t, nil
}

// Create is Open where there need not be a layout yet: in an empty directory it makes
// one, without images. Anything else that is there is refused.
func Create(ctx context.Context, store Store, name string) (*Target, error) {
	there, err := Plan(ctx, store, name)
	if err != nil {
		return nil, err
	}
	d := there.place.(*Directory)
	for _, file := range []struct {
		key     string
		content []byte
	}{{ocispec.ImageLayoutFile, layoutFile()}, {indexFile, emptyIndex()}} {
		err := store.Create(ctx, file.key, bytes.NewReader(file.content))
		if errors.Is(err, errors.ErrUnsupported) { // a file system without links
			if _, err = store.Stat(ctx, file.key); errors.Is(err, storage.ErrNotFound) {
				err = store.Put(ctx, file.key, bytes.NewReader(file.content))
			}
		}
		if err != nil && !errors.Is(err, storage.ErrExists) {
			return nil, there.failure(err, "cannot write to %s", d.name)
		}
	}
	return there, nil
}

// Plan is Create that makes nothing: without a layout there is one without images.
func Plan(ctx context.Context, store Store, name string) (*Target, error) {
	there, err := check(ctx, store, name)
	if err != nil {
		return nil, err
	}
	t := NewTarget(&Directory{store: store, name: name}, name)
	if there {
		return t, nil
	}
	for info, err := range store.List(ctx, "") {
		if err != nil {
			return nil, t.failure(err, "cannot list %s", name)
		}
		if there, err = check(ctx, store, name); there || err != nil { // another has just made one
			return t, err
		}
		return nil, fault.New(fault.Refused, "%s is no image layout, and not empty: it has %s", name, info.Key).
			Advise("Name an empty or new directory, or one that has oci-layout in it.")
	}
	return t, nil
}

// Nowhere is the plan of a layout in a directory that is not there.
func Nowhere(name string) *Target { return NewTarget(nowhere{}, name) }

type nowhere struct{}

func (nowhere) Items(ctx context.Context) ([]Item, error) { return nil, ctx.Err() }

func (nowhere) Stat(context.Context, image.Digest) (Blob, error) {
	return Blob{}, storage.ErrNotFound
}

func (nowhere) Open(context.Context, Blob) (io.ReadCloser, error) {
	return nil, storage.ErrNotFound
}

func (nowhere) Put(context.Context, image.Digest, int64, io.Reader) error {
	return errors.ErrUnsupported
}

func (nowhere) Set(context.Context, Item, bool) error { return errors.ErrUnsupported }

// check reports whether there is a layout, and refuses one of another version.
func check(ctx context.Context, store Store, name string) (bool, error) {
	const most = 64 << 10
	doc, err := storage.Read(ctx, store, ocispec.ImageLayoutFile, most)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return false, nil
	case err != nil:
		return false, (&Source{Name: name}).failure(err, "cannot read %s", name)
	}
	if err := CheckVersion(doc); err != nil {
		return false, fault.Wrap(fault.Refused, err, "%s is no image layout that dogestry reads", name)
	}
	return true, nil
}

func emptyIndex() []byte {
	doc, err := NewIndex().Bytes()
	if err != nil {
		panic(err) // it has nothing in it
	}
	return doc
}

// Items reads index.json.
func (d *Directory) Items(ctx context.Context) ([]Item, error) {
	doc, err := storage.Read(ctx, d.store, indexFile, image.MaxDocument)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, ctx.Err() // a plan, or a layout that nobody has finished
	}
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.parsed == nil || !bytes.Equal(doc, d.read) {
		x, err := d.parse(doc)
		if err != nil {
			return nil, err
		}
		d.read, d.parsed = doc, x
	}
	return d.parsed.Items(), nil
}

func (d *Directory) parse(doc []byte) (*Index, error) {
	x, err := ParseIndex(doc)
	if err != nil {
		return nil, fault.Wrap(fault.Damaged, err, "%s of %s is damaged", indexFile, d.name)
	}
	return x, nil
}

// Stat implements Contents.
func (d *Directory) Stat(ctx context.Context, id image.Digest) (Blob, error) {
	info, err := d.store.Stat(ctx, objectOf(id))
	return Blob{Object: objectOf(id), Size: info.Size}, err
}

// Open implements Contents.
func (d *Directory) Open(ctx context.Context, b Blob) (io.ReadCloser, error) {
	return d.store.Get(ctx, b.Object, 0, -1)
}

// Put implements Place.
func (d *Directory) Put(ctx context.Context, id image.Digest, _ int64, body io.Reader) error {
	return d.store.Put(ctx, objectOf(id), body)
}

// Set implements Place.
func (d *Directory) Set(ctx context.Context, item Item, only bool) error {
	return d.store.Update(ctx, indexFile, image.MaxDocument, func(old []byte) ([]byte, error) {
		x := NewIndex()
		if old != nil {
			var err error
			if x, err = d.parse(old); err != nil {
				return nil, err
			}
		}
		for _, other := range distinct(x.items, item.Name) {
			if only && (other.Root.Digest != item.Root.Digest || other.Config != item.Config) {
				return nil, storage.ErrExists
			}
		}
		if !x.Set(item) {
			return old, nil
		}
		return x.Bytes()
	})
}
