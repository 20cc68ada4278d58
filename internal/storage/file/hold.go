package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/dogestry/dogestry/internal/storage"
)

var _ storage.Holder = (*Store)(nil)

// Hold implements storage.Holder by a lock on the object's file (flock(2)), which
// network file systems carry to their server. It is not made durable: what a
// crash of the machine leaves, nobody holds.
func (s *Store) Hold(ctx context.Context, key string, body []byte) (storage.Hold, error) {
	if err := validKey(key); err != nil {
		return nil, err
	}
	path := s.path(key)
	if err := ctx.Err(); err != nil {
		return nil, bodyFailure(path, err)
	}
	elements, name := split(key)
	t, err := s.temporary(elements, name) // locked
	if err != nil {
		return nil, writeFailure(path, err)
	}
	if err := s.holdFile(ctx, t, name, body); err != nil {
		t.close()
		return nil, err
	}
	return &heldObject{store: s, key: key, file: t}, nil
}

func (s *Store) holdFile(ctx context.Context, t *temporary, name string, body []byte) error {
	if tryLock(t.file) == lockUnsupported {
		return fmt.Errorf("files cannot be locked in %s: %w", s.name, errors.ErrUnsupported)
	}
	bodyErr, err := fill(ctx, t.file, bytes.NewReader(body))
	if bodyErr != nil {
		return bodyFailure(s.path(name), bodyErr)
	}
	if err == nil {
		err = s.replace(ctx, t.dir, t, name)
	}
	if err != nil {
		return writeFailure(s.path(name), err)
	}
	return nil
}

// heldObject is an object whose file is open, and so locked.
type heldObject struct {
	store *Store
	key   string
	file  *temporary // nil once released
}

// Renew implements storage.Hold. The time is that of the file system.
func (h *heldObject) Renew(ctx context.Context) error {
	path := h.store.path(h.key)
	if err := ctx.Err(); err != nil {
		return &failure{path: path, cause: err}
	}
	if h.file == nil || !h.has() {
		return readFailure(path, fs.ErrNotExist)
	}
	if err := touch(h.file.file); err != nil {
		return writeFailure(path, err)
	}
	return nil
}

// has reports whether the file still has its name.
func (h *heldObject) has() bool {
	_, name := split(h.key)
	fi, err := h.store.lookup(h.file.dir, name)
	return err == nil && isFile(fi, h.file.file)
}

// Release implements storage.Hold. Directories that held nothing else go too.
func (h *heldObject) Release(context.Context) error {
	if h.file == nil {
		return nil
	}
	var err error
	elements, name := split(h.key)
	if h.has() {
		err = h.file.dir.Remove(name)
	}
	h.file.close()
	h.file = nil
	h.store.prune(elements)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return writeFailure(h.store.path(h.key), err)
}

// IsHeld implements storage.Holder.
func (s *Store) IsHeld(ctx context.Context, key string) (bool, error) {
	if err := validKey(key); err != nil {
		return false, err
	}
	if err := ctx.Err(); err != nil {
		return false, &failure{path: s.path(key), cause: err}
	}
	f, err := s.open(key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, readFailure(s.path(key), err)
	}
	defer f.Close()
	return tryShare(f) == lockBusy, nil
}
