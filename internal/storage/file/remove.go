package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/dogestry/dogestry/internal/storage"
)

// DeleteIf implements storage.Remover. It takes its turn with whoever else
// changes the object, see Swap: nobody puts another in its place between the last
// look and the removal. Where files cannot be locked its error wraps
// errors.ErrUnsupported.
func (s *Store) DeleteIf(ctx context.Context, key string, old []byte) error {
	if err := validKey(key); err != nil {
		return err
	}
	path := s.path(key)
	if err := ctx.Err(); err != nil {
		return &failure{path: path, cause: err}
	}
	if len(old) > storage.MaxSwap {
		return fmt.Errorf("%s: %d bytes are too many to compare", path, len(old))
	}
	elements, name := split(key)
	return s.removed(path, elements, s.removeIf(ctx, elements, name, old))
}

func (s *Store) removeIf(ctx context.Context, elements []string, name string, old []byte) error {
	d, err := s.descend(elements)
	if err != nil {
		return err
	}
	defer d.Close()
	// A look without the lock: where something else is there, nothing is written at all.
	if err := s.holdsStill(d, name, old); err != nil {
		return err
	}
	l, err := s.lock(ctx, d, name)
	if err != nil {
		return err
	}
	defer l.close()
	switch err := s.holdsStill(d, name, old); {
	case errors.Is(err, fs.ErrNotExist):
		return nil // as in remove
	case err != nil:
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := storage.Allowed(ctx); err != nil {
		return err
	}
	return d.Remove(name)
}

// holdsStill is expect for a removal: a directory, which is no object, holds nothing.
func (s *Store) holdsStill(d *os.Root, name string, old []byte) error {
	fi, err := s.lookup(d, name)
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return os.ErrNotExist
	}
	return s.expect(d, name, old)
}
