package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
)

// Swap implements storage.Swapper. Swaps of one key take turns by a locked file
// beside it. It is a file, and not the directory that is locked, because
// network file systems carry the locks of files to their server and keep those
// of directories to themselves. Where files cannot be locked the error wraps errors.ErrUnsupported.
//
// What Put and Delete do to an object that is there takes its turn too, so nothing
// they have done is overwritten, unless it is another program's, or one of theirs
// where they may not lock.
func (s *Store) Swap(ctx context.Context, key string, old, new []byte) error {
	if err := validKey(key); err != nil {
		return err
	}
	path := s.path(key)
	if err := ctx.Err(); err != nil {
		return bodyFailure(path, err)
	}
	if len(new) > storage.MaxSwap {
		return fmt.Errorf("%s: %d bytes are too many to swap", path, len(new))
	}
	elements, name := split(key)
	d, err := s.descend(elements)
	if err != nil {
		return swapFailure(path, err)
	}
	defer d.Close()
	// A look without the lock: who has lost already writes nothing at all.
	if err := s.expect(d, name, old); err != nil {
		return swapFailure(path, err)
	}
	l, err := s.lock(ctx, d, name)
	if err != nil {
		return swapFailure(path, err)
	}
	err = s.swapLocked(ctx, d, name, old, new)
	l.close()
	if errors.Is(err, fs.ErrNotExist) {
		s.prune(elements) // whoever removed the object may have found our lock in its directory
	}
	return swapFailure(path, err)
}

func (s *Store) swapLocked(ctx context.Context, d *os.Root, name string, old, new []byte) error {
	if err := s.expect(d, name, old); err != nil {
		return err
	}
	err := s.replaceLocked(ctx, d, name, new, func() error { return s.expect(d, name, old) })
	if err != nil {
		return err
	}
	if err := s.syncDirectory(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// replaceLocked gives an object whose lock is held another content, if still, asked
// at the last moment, has nothing against it. The name is not durable yet.
func (s *Store) replaceLocked(ctx context.Context, d *os.Root, name string, content []byte, still func() error) error {
	t, err := s.swapFile(d, name)
	if err != nil {
		return err
	}
	defer t.close()
	if _, err := t.file.Write(content); err != nil {
		return err
	}
	if err := s.sync(t.file); err != nil {
		return err
	}
	if err := still(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := storage.Allowed(ctx); err != nil {
		return err
	}
	if err := d.Rename(t.name, name); err != nil {
		return err
	}
	t.name = ""
	return nil
}

// swapFile is lockedFile for as long as sweepers are quicker.
func (s *Store) swapFile(d *os.Root, name string) (*temporary, error) {
	var err error
	for range attempts {
		var own *os.Root
		if own, err = d.OpenRoot("."); err != nil { // a temporary closes its directory
			return nil, err
		}
		var t *temporary
		if t, err = s.lockedFile(own, name); err == nil {
			return t, nil
		}
		_ = own.Close()
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return nil, err
}

// expect returns storage.ErrChanged unless the object d/name has this very content.
func (s *Store) expect(d *os.Root, name string, content []byte) error {
	fi, err := s.lookup(d, name)
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() || fi.Size() != int64(len(content)) {
		return storage.ErrChanged
	}
	f, err := d.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := io.ReadAll(io.LimitReader(f, int64(len(content))+1))
	if err == nil && !bytes.Equal(got, content) {
		err = storage.ErrChanged
	}
	return err
}

// swapFailure is writeFailure where no object at path means that it has changed.
func swapFailure(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case isOneOf(err, fs.ErrNotExist, syscall.ENOTDIR, syscall.ENAMETOOLONG):
		return &failure{path: path, cause: storage.ErrChanged}
	case isOneOf(err, context.Canceled, context.DeadlineExceeded):
		return bodyFailure(path, err)
	}
	return writeFailure(path, err)
}

// turn waits for the lock of name, for what changes an object whatever it
// holds. The caller calls release. Its errors are the end of the context, and
// ErrNotExist where the directory is gone. Where there can be no lock, it goes ahead:
// an object must be replaced, and room made on a full disk, on every file system.
func (s *Store) turn(ctx context.Context, d *os.Root, name string) (release func(), err error) {
	l, err := s.lock(ctx, d, name)
	switch {
	case err == nil:
		return l.close, nil
	case isOneOf(err, context.Canceled, context.DeadlineExceeded, fs.ErrNotExist):
		return nil, err
	}
	return func() {}, nil
}

// lockName is the temporary file that whoever changes the object name locks. No writer uses the
// number; what a killed process left of it is swept like any other.
func lockName(name string) string { return numberedName(name, 0) }

// lockWait is the longest pause between two looks whether a lock is free.
const lockWait = 20 * time.Millisecond

// lock waits for the lock of name, and takes it. Whoever has it removes the
// file before giving it up: so a lock counts only while its file has the name.
// ErrNotExist where the directory is gone.
func (s *Store) lock(ctx context.Context, d *os.Root, name string) (*temporary, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, lockWait) {
		f, err := openLock(d, lockName(name))
		if err != nil {
			return nil, err
		}
		switch tryLock(f) {
		case lockTaken:
			fi, err := d.Lstat(lockName(name))
			if err == nil && isFile(fi, f) {
				own, err := d.OpenRoot(".")
				if err != nil {
					_ = f.Close()
					return nil, err
				}
				return &temporary{file: f, dir: own, name: lockName(name)}, nil
			}
			_ = f.Close() // whoever had it has removed it
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			continue
		case lockUnsupported:
			_ = f.Close()
			_ = d.Remove(lockName(name)) // nobody can hold it
			return nil, noLocks{}
		}
		_ = f.Close()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}

// openLock opens the lock file, for writing where it may: NFS locks only such files.
func openLock(d *os.Root, name string) (*os.File, error) {
	f, err := d.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if errors.Is(err, fs.ErrPermission) {
		if readable, readErr := d.Open(name); readErr == nil {
			return readable, nil // another user's
		}
	}
	return f, err
}

// noLocks is the error of a swap where files cannot be locked.
type noLocks struct{}

func (noLocks) Error() string {
	return "files cannot be locked here, which a compare-and-swap, or compare-and-delete, needs"
}

func (noLocks) Is(target error) bool { return target == errors.ErrUnsupported }
