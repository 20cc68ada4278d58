// Package dockerarchive is files as `docker save` writes and `docker load` reads
// them, as sources and targets of copies. There are two shapes: up to Docker 24, and of many other tools,
// manifest.json with configs and tars of layers beside it; since Docker 25 besides
// that an OCI image layout in the same tar.
//
// They are read where they lie: a tar is scanned once for where its files are,
// nothing is unpacked, and no name in it is ever taken for a path.
package dockerarchive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/layout"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

// Archive is a file that is read. An image is known in it by what the engine called
// it that saved it: the digest of its config, or of the manifest or index that the
// layout in the archive has for it. It is safe for concurrent use.
type Archive struct {
	*layout.Source
	file *os.File
}

var _ remote.Source = (*Archive)(nil)

// Open opens the file at path, which name stands for in messages. NotFound where
// there is none, Refused where it is no archive or a compressed one, Damaged where it
// is broken. The caller closes it.
func Open(ctx context.Context, path, name string) (_ *Archive, err error) {
	info, err := os.Stat(path) // before it is opened: that would wait for a pipe's writer
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fault.Wrap(fault.NotFound, plain(err), "no archive at %s", name)
	case err != nil:
		return nil, openFailure(err, name)
	case !info.Mode().IsRegular():
		return nil, fault.New(fault.Usage, "%s is no regular file", name).
			Advise("An archive is read in any order: write it to a file first.")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, openFailure(err, name)
	}
	defer func() {
		if err != nil {
			_ = file.Close()
		}
	}()
	c, err := read(ctx, file, info.Size(), name)
	var damage errDamaged
	var known *fault.Error
	switch {
	case err == nil:
	case errors.As(err, &known):
		return nil, err
	case errors.As(err, &damage):
		return nil, fault.Wrap(fault.Damaged, err, "%s is no archive that can be read", name).
			Advise("Write it again, with `docker save` or whatever made it.")
	case fault.Interrupted(err):
		return nil, err
	default:
		return nil, fault.Wrap(fault.Other, err, "cannot read %s", name)
	}
	return &Archive{&layout.Source{Contents: c, Name: name}, file}, nil
}

func openFailure(err error, name string) error {
	if errors.Is(err, os.ErrPermission) {
		return fault.Wrap(fault.Refused, plain(err), "no permission to read %s", name)
	}
	return fault.Wrap(fault.Other, plain(err), "cannot read %s", name)
}

// plain is err without the path, which the message has.
func plain(err error) error {
	var e *os.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	var l *os.LinkError
	if errors.As(err, &l) {
		return l.Err
	}
	return err
}

// Close closes the file. Readers that are open fail then.
func (a *Archive) Close() error { return a.file.Close() }

// contents are an archive as layout.Contents.
type contents struct {
	*entries
	name  string // as the user named the archive
	items []layout.Item
	files map[image.Digest]layout.Blob // what is not below blobs/sha256 by its digest

	documents int // bytes of those that were read to find out which image is which
}

// maxDocuments bounds them.
const maxDocuments = 256 << 20

func (c *contents) count(doc []byte) error {
	if c.documents += len(doc); c.documents > maxDocuments {
		return errDamaged(fmt.Sprintf("its manifests and configs have more than %d bytes", maxDocuments))
	}
	return nil
}

// read finds out what is in an archive that the user calls name. Its errors are
// faults, errDamaged, or about reading.
func read(ctx context.Context, r io.ReaderAt, size int64, name string) (*contents, error) {
	if err := uncompressed(r, name); err != nil {
		return nil, err
	}
	all, err := scan(ctx, r, size)
	if err != nil {
		return nil, err
	}
	c := &contents{entries: all, name: name, files: map[image.Digest]layout.Blob{}}
	named, err := c.layoutItems(ctx)
	if err != nil {
		return nil, err
	}
	doc, err := all.read(ctx, manifestFile)
	switch {
	case errors.Is(err, storage.ErrNotFound) && named != nil: // an image layout in a tar, no more
		c.items = named
		return c, nil
	case errors.Is(err, storage.ErrNotFound):
		return nil, fault.New(fault.Refused, "%s is no archive of images: it has no %s", name, manifestFile).
			Advise("Name a file that `docker save` has written. (Before Docker 1.10 it wrote none such.)")
	case err != nil:
		return nil, err
	}
	images, err := parseManifest(doc)
	if err != nil {
		return nil, errDamaged(fmt.Sprintf("its %s is damaged: %v", manifestFile, err))
	}
	return c, c.addSaved(ctx, images, named)
}

// uncompressed refuses what is compressed as a whole: there is no way to its middle.
func uncompressed(r io.ReaderAt, name string) error {
	head := make([]byte, 6)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return err
	}
	for command, magic := range map[string]string{"gzip": "\x1f\x8b", "zstd": "\x28\xb5\x2f\xfd", "bzip2": "BZh", "xz": "\xfd7zXZ\x00"} {
		if bytes.HasPrefix(head[:n], []byte(magic)) {
			return fault.New(fault.Refused, "%s is compressed by %s", name, command).
				Advise("Its files are read in any order: unpack it first, `%s -dc FILE >FILE.tar`.", command)
		}
	}
	return nil
}

// layoutItems returns what the image layout in an archive names, nil where there is none.
func (c *contents) layoutItems(ctx context.Context) ([]layout.Item, error) {
	version, err := c.read(ctx, ocispec.ImageLayoutFile)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err == nil {
		if err := layout.CheckVersion(version); err != nil {
			return nil, fault.Wrap(fault.Refused, err, "%s is no image layout that dogestry reads", c.name)
		}
		var doc []byte
		if doc, err = c.read(ctx, ocispec.ImageIndexFile); err == nil {
			x, err := layout.ParseIndex(doc)
			if err != nil {
				return nil, errDamaged(fmt.Sprintf("its %s is damaged: %v", ocispec.ImageIndexFile, err))
			}
			return append([]layout.Item{}, x.Items()...), nil
		}
	}
	if errors.Is(err, storage.ErrNotFound) {
		return nil, errDamaged("it has no " + ocispec.ImageIndexFile)
	}
	return nil, err
}

// addSaved adds the images of manifest.json, and those that the layout in the
// archive, if there is one, names besides. Of an image that is in both, the layout
// has the name that it had in the engine, unless that engine's store was classic.
func (c *contents) addSaved(ctx context.Context, images []saved, named []layout.Item) error {
	in, err := c.inLayout(ctx, named)
	if err != nil {
		return err
	}
	covered := map[image.Digest]bool{} // configs of which manifest.json alone says what they are called
	for _, img := range images {
		id, err := c.addImage(ctx, img)
		if err != nil {
			return err
		}
		item := layout.Item{Root: image.Descriptor{Digest: id}}
		var there map[image.Reference]bool
		if img.classic() {
			covered[id] = true
		} else if at := in.items(id); len(at) > 0 {
			item, there = named[at[0]], in.names(id, named)
		}
		if len(img.RepoTags) == 0 && len(there) == 0 {
			item.Name = image.Reference{}
			c.items = append(c.items, item)
		}
		for _, tag := range img.RepoTags {
			if item.Name = layout.ParseName(tag); !there[item.Name] {
				c.items = append(c.items, item)
			}
		}
	}
	gone := map[int]bool{}
	for id := range covered {
		for _, i := range in.items(id) {
			gone[i] = true
		}
	}
	for i, item := range named {
		if !gone[i] {
			c.items = append(c.items, item)
		}
	}
	return nil
}

// inLayout tells which of the layout's items are of which image. An archive may
// name one index a thousand times that has a thousand images: neither is kept, or
// gone through, for each of the other.
type inLayout struct {
	roots  map[image.Digest][]image.Digest // manifests and indexes, by the configs that they have
	byRoot map[image.Digest][]int          // items
	known  map[image.Digest][]int          // what items has returned
	called map[image.Digest]map[image.Reference]bool
}

// items returns those that are or have the image of a config, in their order.
func (l *inLayout) items(config image.Digest) []int {
	if at, ok := l.known[config]; ok {
		return at
	}
	var at []int
	for _, root := range l.roots[config] {
		at = append(at, l.byRoot[root]...)
	}
	slices.Sort(at)
	l.known[config] = at
	return at
}

// names returns what items calls an image.
func (l *inLayout) names(config image.Digest, named []layout.Item) map[image.Reference]bool {
	if names, ok := l.called[config]; ok {
		return names
	}
	names := map[image.Reference]bool{}
	for _, i := range l.items(config) {
		names[named[i].Name] = true
	}
	l.called[config] = names
	return names
}

// inLayout reads the documents of the layout's items, as far as they are there.
func (c *contents) inLayout(ctx context.Context, items []layout.Item) (*inLayout, error) {
	source := &layout.Source{Contents: c, Name: c.name}
	known := map[image.Digest][]image.Digest{}
	var of func(id image.Digest, deeper bool) ([]image.Digest, error)
	of = func(id image.Digest, deeper bool) ([]image.Digest, error) {
		if configs, ok := known[id]; ok {
			return configs, nil
		}
		known[id] = nil
		doc, err := source.Document(ctx, id)
		if err != nil {
			return nil, ctx.Err() // whoever wants this image will hear of it
		}
		if err := c.count(doc); err != nil {
			return nil, err
		}
		var configs []image.Digest
		if m, err := image.ParseManifest(doc); err == nil {
			configs = []image.Digest{m.Config.Digest}
		} else if x, err := image.ParseIndex(doc); err == nil && deeper {
			for _, child := range x.Manifests {
				more, err := of(child.Digest, false)
				if err != nil {
					return nil, err
				}
				configs = append(configs, more...)
			}
		}
		known[id] = configs
		return configs, nil
	}
	in := &inLayout{map[image.Digest][]image.Digest{}, map[image.Digest][]int{}, map[image.Digest][]int{}, map[image.Digest]map[image.Reference]bool{}}
	for i, item := range items {
		root := item.Root.Digest
		if in.byRoot[root] = append(in.byRoot[root], i); len(in.byRoot[root]) > 1 {
			continue
		}
		configs, err := of(root, true)
		if err != nil {
			return nil, err
		}
		for _, config := range image.Distinct(configs) {
			in.roots[config] = append(in.roots[config], root)
		}
	}
	return in, nil
}

// addImage notes where the config and the layers of an image lie, and returns the
// config's digest.
func (c *contents) addImage(ctx context.Context, img saved) (image.Digest, error) {
	doc, err := c.read(ctx, img.Config)
	if err != nil {
		if errors.Is(err, storage.ErrNotFound) {
			err = errDamaged(fmt.Sprintf("it lacks %.100q, which its %s names", img.Config, manifestFile))
		}
		return image.Digest{}, err
	}
	if err := c.count(doc); err != nil {
		return image.Digest{}, err
	}
	id := image.DigestOf(doc)
	if says, ok := digestIn(img.Config); ok && says != id {
		return id, errDamaged(fmt.Sprintf("the config %.100q is not what its name says", img.Config))
	}
	config, err := image.ParseConfig(doc)
	if err != nil {
		return id, errDamaged(fmt.Sprintf("the config %.100q is damaged: %v", img.Config, err))
	}
	if len(config.DiffIDs) != len(img.Layers) {
		return id, errDamaged(fmt.Sprintf("the image of the config %.100q has %d layers, and %d files of layers", img.Config, len(config.DiffIDs), len(img.Layers)))
	}
	c.files[id] = layout.Blob{Object: path.Clean(img.Config), Size: int64(len(doc))}
	for i, name := range img.Layers {
		if _, there := c.files[config.DiffIDs[i]]; there {
			continue
		}
		e, err := c.find(name)
		if errors.Is(err, storage.ErrNotFound) {
			continue // told when it is wanted
		}
		if err != nil {
			return id, err
		}
		head := make([]byte, min(codec.Magic, e.size))
		if _, err := io.ReadFull(c.open(ctx, e), head); err != nil {
			return id, err
		}
		c.files[config.DiffIDs[i]] = layout.Blob{Object: path.Clean(name), Size: e.size, Packed: codec.Compressed(head)}
	}
	return id, nil
}

// digestIn returns the digest that a file's name says it has: "<hex>.json",
// "blobs/sha256/<hex>", "sha256:<hex>".
func digestIn(name string) (image.Digest, bool) {
	base := strings.TrimPrefix(path.Base(name), "sha256:")
	d, err := image.ParseHex(strings.TrimSuffix(base, ".json"))
	return d, err == nil
}

// Items implements layout.Contents.
func (c *contents) Items(ctx context.Context) ([]layout.Item, error) { return c.items, ctx.Err() }

// Stat implements layout.Contents.
func (c *contents) Stat(ctx context.Context, id image.Digest) (layout.Blob, error) {
	if err := ctx.Err(); err != nil {
		return layout.Blob{}, err
	}
	name := blobName(id)
	e, err := c.find(name)
	if err == nil {
		return layout.Blob{Object: name, Size: e.size}, nil
	}
	if b, ok := c.files[id]; ok {
		return b, nil
	}
	var damage errDamaged
	if errors.As(err, &damage) {
		err = fault.Wrap(fault.Damaged, err, "%s is damaged", c.name)
	}
	return layout.Blob{}, err
}

// Open implements layout.Contents.
func (c *contents) Open(ctx context.Context, b layout.Blob) (io.ReadCloser, error) {
	e, err := c.find(b.Object)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(c.open(ctx, e)), nil
}

// blobName is where a layout has the bytes of a digest.
func blobName(id image.Digest) string { return ocispec.ImageBlobsDir + "/sha256/" + id.Hex() }
