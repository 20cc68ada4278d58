package engine

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"

	"github.com/dogestry/dogestry/internal/engine/contentstore"
	"github.com/dogestry/dogestry/internal/engine/layerstore"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// StoreUse says whether layers are read from the engine's own directory, rather
// than by an export.
type StoreUse string

// The values of a StoreUse.
const (
	StoreAuto    StoreUse = "auto"    // where it can be read
	StoreOff     StoreUse = "off"     // never
	StoreRequire StoreUse = "require" // else fail
)

// Stored is an image in the engine's own store. It is safe for concurrent use
// and holds nothing open. Its bytes are not verified.
type Stored struct {
	Required bool // there is to be no export instead

	store ownStore
}

// ownStore is what Stored reads: a classic store, or containerd's.
type ownStore interface {
	Document(id image.Digest) ([]byte, error)
	Layer(ctx context.Context, id image.Digest) (layer io.ReadCloser, size int64, err error)
}

// Stored finds an image in the engine's own store. It returns nil where that
// cannot be read or is not to be, and a fault where it is required to be.
func (c *Client) Stored(img Image) (*Stored, error) {
	var store ownStore
	var where string
	root, err := c.storeRoot()
	switch {
	case err != nil:
	case c.kind == Containerd:
		store, where, err = openContent(root, img)
	default:
		store, where, err = openLayers(root, c.driver, img)
	}
	if err != nil {
		c.log.Info("layers come from an export: the engine's own store is not read", "why", err)
		if c.storeUse == StoreRequire {
			return nil, fault.New(fault.Refused, "cannot read the own store of the engine at %s: %s", c.host, err).
				Advise("Run as root on the engine's machine, or leave --engine-store require out.")
		}
		return nil, nil
	}
	c.log.Info("layers come from the engine's own store", "root", where, "driver", c.driver)
	return &Stored{Required: c.storeUse == StoreRequire, store: store}, nil
}

// storeRoot returns where the engine's own store may be read.
func (c *Client) storeRoot() (string, error) {
	switch {
	case c.storeUse == StoreOff:
		return "", errors.New("it is turned off")
	case c.ownRoot != "":
		return c.ownRoot, nil
	case c.dataRoot == "":
		return "", errors.New("the engine is not on this machine")
	}
	return c.dataRoot, nil
}

// Document returns the image's config, and in a containerd image store any
// document.
func (s *Stored) Document(id image.Digest) ([]byte, error) { return s.store.Document(id) }

// Layer opens one of the image's layers as the engine names it, of size bytes.
// The caller closes it.
func (s *Stored) Layer(ctx context.Context, id image.Digest) (layer io.ReadCloser, size int64, err error) {
	return s.store.Layer(ctx, id)
}

// classicStore is an image in a classic store, which knows stacks of layers.
type classicStore struct {
	store  *layerstore.Store
	stacks map[image.DiffID]image.ChainID
}

func openLayers(root, driver string, img Image) (ownStore, string, error) {
	store, err := layerstore.Open(root, driver)
	if err != nil {
		return nil, "", err
	}
	s := &classicStore{store: store, stacks: map[image.DiffID]image.ChainID{}}
	for i, stack := range image.ChainIDs(img.DiffIDs) {
		if _, known := s.stacks[img.DiffIDs[i]]; !known {
			s.stacks[img.DiffIDs[i]] = stack
		}
	}
	return s, root, nil
}

func (s *classicStore) Document(id image.Digest) ([]byte, error) { return s.store.Config(id) }

func (s *classicStore) Layer(ctx context.Context, id image.DiffID) (tar io.ReadCloser, size int64, err error) {
	stack, ok := s.stacks[id]
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	return s.store.Layer(ctx, stack)
}

// contentStore is the content store of an engine's containerd.
type contentStore struct{ *contentstore.Store }

func openContent(root string, img Image) (ownStore, string, error) {
	store, err := contentstore.Open(root, img.ID)
	if err != nil {
		return nil, "", err
	}
	return contentStore{store}, store.Dir(), nil
}

func (s contentStore) Document(id image.Digest) ([]byte, error) {
	blob, size, err := s.Blob(id)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	if size > image.MaxDocument {
		return nil, image.ErrTooLarge
	}
	return image.ReadDocument(blob, id)
}

func (s contentStore) Layer(_ context.Context, id image.Digest) (layer io.ReadCloser, size int64, err error) {
	return s.Blob(id)
}

// ParseStoreUse reads the value of a flag.
func ParseStoreUse(s string) (StoreUse, error) {
	switch use := StoreUse(s); use {
	case StoreAuto, StoreOff, StoreRequire:
		return use, nil
	}
	return "", fault.New(fault.Usage, "%q is none of %s", s, strings.Join([]string{string(StoreAuto), string(StoreOff), string(StoreRequire)}, ", "))
}
