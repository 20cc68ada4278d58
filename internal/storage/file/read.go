package file

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/dogestry/dogestry/internal/storage"
)

// Get implements storage.Store. An object replaced while it is read gives its
// old bytes to the end. The reader holds one file descriptor.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := validKey(key); err != nil {
		return nil, err
	}
	path := s.path(key)
	if offset < 0 {
		return nil, fmt.Errorf("%s: negative offset %d", path, offset)
	}
	if err := ctx.Err(); err != nil {
		return nil, &failure{path: path, cause: err}
	}
	f, err := s.open(key)
	if err != nil {
		return nil, readFailure(path, err)
	}
	if offset > 0 {
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			_ = f.Close()
			return nil, readFailure(path, err)
		}
	}
	return &reader{ctx: ctx, file: f, path: path, left: length}, nil
}

func (s *Store) open(key string) (*os.File, error) {
	elements, name := split(key)
	d, err := s.descend(elements)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	fi, err := s.lookup(d, name)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fs.ErrNotExist
	}
	return d.Open(name)
}

// reader reads a file until its end, or left bytes where that is not negative.
type reader struct {
	ctx  context.Context
	file *os.File
	path string
	left int64
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, &failure{path: r.path, cause: err}
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	if r.left > 0 && int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.file.Read(p)
	if r.left > 0 {
		r.left -= int64(n)
	}
	if err != nil && err != io.EOF {
		err = &failure{path: r.path, cause: err}
	}
	return n, err
}

func (r *reader) Close() error { return r.file.Close() }

// Stat implements storage.Store.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	if err := validKey(key); err != nil {
		return storage.Info{}, err
	}
	path := s.path(key)
	if err := ctx.Err(); err != nil {
		return storage.Info{}, &failure{path: path, cause: err}
	}
	elements, name := split(key)
	d, err := s.descend(elements)
	if err != nil {
		return storage.Info{}, readFailure(path, err)
	}
	defer d.Close()
	fi, err := s.lookup(d, name)
	if err == nil && !fi.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return storage.Info{}, readFailure(path, err)
	}
	return info(key, fi), nil
}

// info is what is known of an object. Its time is the younger of the content's
// and the name's: a copy that kept the old times (cp -p, rsync -t) is new here.
func info(key string, fi fs.FileInfo) storage.Info {
	modified := fi.ModTime()
	if changed := changeTime(fi); changed.After(modified) {
		modified = changed
	}
	return storage.Info{Key: key, Size: fi.Size(), Modified: modified}
}

// Touch implements storage.Toucher. It sets the file's times to those of the file
// system's clock; where that is not possible the error wraps errors.ErrUnsupported.
func (s *Store) Touch(ctx context.Context, key string) error {
	if err := validKey(key); err != nil {
		return err
	}
	path := s.path(key)
	if err := ctx.Err(); err != nil {
		return &failure{path: path, cause: err}
	}
	f, err := s.open(key)
	if err != nil {
		return readFailure(path, err)
	}
	defer f.Close()
	if err := touch(f); err != nil {
		return writeFailure(path, err)
	}
	return nil
}
