package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/dogestry/dogestry/internal/storage"
)

var _ storage.Updater = (*Store)(nil)

// Update implements storage.Updater, under the lock that Swap, Put and Delete
// take. Where files cannot be locked, nothing keeps others away, as with Put.
// Other programs know nothing of the lock.
func (s *Store) Update(ctx context.Context, key string, most int64, change func(old []byte) ([]byte, error)) error {
	if err := validKey(key); err != nil {
		return err
	}
	path := s.path(key)
	if err := ctx.Err(); err != nil {
		return bodyFailure(path, err)
	}
	elements, name := split(key)
	d, err := s.makeDirectories(elements)
	if err != nil {
		return writeFailure(path, err)
	}
	defer d.Close()
	release, err := s.turn(ctx, d, name)
	if err != nil {
		return updateFailure(path, err)
	}
	defer release()
	old, err := s.content(d, name, most)
	if errors.Is(err, storage.ErrTooLarge) {
		return fmt.Errorf("%s: %w: more than %d bytes", path, err, most)
	}
	if err != nil {
		return writeFailure(path, err)
	}
	content, err := change(old)
	if err != nil || old != nil && bytes.Equal(content, old) {
		return err
	}
	err = s.replaceLocked(ctx, d, name, content, func() error { return nil })
	if err == nil {
		err = s.syncDirectory(d)
	}
	return updateFailure(path, err)
}

// errNoFile says that what has an object's name is none.
var errNoFile = errors.New("it is no regular file")

// content reads an object; nil where there is none.
func (s *Store) content(d *os.Root, name string, most int64) ([]byte, error) {
	fi, err := s.lookup(d, name)
	var fold *foldError
	switch {
	case errors.Is(err, fs.ErrNotExist) && !errors.As(err, &fold):
		return nil, nil
	case err != nil:
		return nil, err
	case !fi.Mode().IsRegular():
		return nil, errNoFile
	}
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = storage.ErrTooLarge
	}
	return b, err
}

func updateFailure(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case isOneOf(err, context.Canceled, context.DeadlineExceeded):
		return bodyFailure(path, err)
	}
	return writeFailure(path, err)
}
