package file

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/dogestry/dogestry/internal/storage"
)

// Bytes at once: small objects, the many, do not pay for the large ones' buffer.
const (
	smallBuffer = 32 << 10
	largeBuffer = 1 << 20
	// After so many bytes the system is told to begin writing them to the disk,
	// so that the fsync at the end waits for the last few only.
	writebackEvery = 8 << 20
)

// Put implements storage.Store. The object's file is new: it has the rights
// that the umask leaves, and replaces, without following it, what lies at its place.
func (s *Store) Put(ctx context.Context, key string, body io.Reader) error {
	return s.write(ctx, key, body, s.replace, nil)
}

// PutFollowed implements storage.Follower.
func (s *Store) PutFollowed(ctx context.Context, key string, body io.Reader, begun func(storage.Growing)) error {
	return s.write(ctx, key, body, s.replace, begun)
}

// Create implements storage.Creator, by a hard link. Its error wraps
// errors.ErrUnsupported on a file system without them (FAT), and
// storage.ErrExists also where a symbolic link is in the way.
func (s *Store) Create(ctx context.Context, key string, body io.Reader) error {
	return s.write(ctx, key, body, s.link, nil)
}

// write brings body into a temporary file and lets publish give it its name.
// publish is called once before the body is read, with a nil temporary, to find
// out early what cannot work. begun, unless it is nil, is as for PutFollowed.
func (s *Store) write(ctx context.Context, key string, body io.Reader, publish func(context.Context, *os.Root, *temporary, string) error, begun func(storage.Growing)) error {
	if err := validKey(key); err != nil {
		return err
	}
	path := s.path(key)
	if err := ctx.Err(); err != nil {
		return bodyFailure(path, err)
	}
	elements, name := split(key)
	t, err := s.temporary(elements, name)
	if err != nil {
		s.prune(elements)
		return writeFailure(path, err)
	}
	published := false
	defer func() {
		t.close()
		if !published {
			s.prune(elements)
		}
	}()
	if err := publish(ctx, t.dir, nil, name); err != nil {
		return writeFailure(path, err)
	}
	if begun != nil {
		growing, err := t.dir.Open(t.name)
		if err != nil {
			return writeFailure(path, err)
		}
		begun(growing)
	}
	bodyErr, err := fill(ctx, t.file, body)
	if bodyErr != nil {
		return bodyFailure(path, bodyErr)
	}
	if err == nil {
		err = s.sync(t.file)
	}
	if err != nil {
		return writeFailure(path, err)
	}
	if err := ctx.Err(); err != nil {
		return bodyFailure(path, err)
	}
	if err := storage.Allowed(ctx); err != nil {
		return bodyFailure(path, err)
	}
	if err := publish(ctx, t.dir, t, name); err != nil {
		if ctxErr := ctx.Err(); ctxErr != nil && errors.Is(err, ctxErr) {
			return bodyFailure(path, err)
		}
		return writeFailure(path, err)
	}
	published = true
	if err := s.syncDirectory(t.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return writeFailure(path, err)
	}
	return nil // where the directory is gone, so is the object: it has been deleted already
}

// fill copies body to f. It looks at ctx before each Read and after the last
// one. bodyErr is body's error or that of ctx.
func fill(ctx context.Context, f *os.File, body io.Reader) (bodyErr, writeErr error) {
	var (
		buffer  = make([]byte, smallBuffer)
		written int64
		begun   int64 // up to here the system was told to write
	)
	for {
		n, bodyErr := storage.ReadFull(ctx, body, buffer)
		if bodyErr != nil && bodyErr != io.EOF {
			return bodyErr, nil
		}
		if _, err := f.Write(buffer[:n]); err != nil {
			return nil, err
		}
		written += int64(n)
		if bodyErr == io.EOF {
			return nil, nil
		}
		if written >= largeBuffer && len(buffer) < largeBuffer {
			buffer = make([]byte, largeBuffer)
		}
		if written-begun >= writebackEvery {
			beginWriteback(f, begun, written-begun)
			begun = written
		}
	}
}

// replace gives t the name, whatever object has it now. With a nil t it only finds out whether it could.
//
// A new name comes by a link, which replaces nothing; a rename takes its turn with
// whoever else changes the object. So what a Swap or DeleteIf has seen stays until it is done.
func (s *Store) replace(ctx context.Context, d *os.Root, t *temporary, name string) error {
	release, ours := func() {}, false // the lock of name
	defer func() { release() }()
	var err error
	for range attempts {
		var fi fs.FileInfo
		fi, err = s.lookup(d, name)
		var fold *foldError
		absent := errors.Is(err, fs.ErrNotExist)
		switch {
		case errors.As(err, &fold), err != nil && !absent:
			return err
		case err == nil && fi.IsDir():
			if !s.vacate(d, name) {
				return syscall.EISDIR
			}
		}
		if t == nil {
			return nil
		}
		if absent {
			// Nor can a link replace what another process creates now as "Name" for "name", where case is ignored.
			switch err = d.Link(t.name, name); {
			case err == nil:
				t.unlink()
				return nil
			case errors.Is(err, fs.ErrExist):
				continue
			}
			// There are no hard links here (FAT); accept the race.
		} else if !ours && !fi.IsDir() {
			if release, err = s.turn(ctx, d, name); err != nil {
				release = func() {}
				return err
			}
			ours = true
			continue // and look again
		}
		if err = d.Rename(t.name, name); err == nil {
			t.name = ""
			return nil
		}
		if !isOneOf(err, fs.ErrExist, syscall.EISDIR) {
			return err
		}
		// A directory came into being meanwhile.
	}
	return err
}

// link gives t the name unless it is taken. With a nil t it only finds out whether it could.
func (s *Store) link(_ context.Context, d *os.Root, t *temporary, name string) error {
	var err error
	for range attempts {
		var fi fs.FileInfo
		fi, err = s.lookup(d, name)
		var fold *foldError
		switch {
		case errors.As(err, &fold):
			return err
		case err == nil && !fi.IsDir():
			return syscall.EEXIST
		case err == nil && !s.vacate(d, name):
			return syscall.EISDIR
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
		if t == nil {
			return nil
		}
		if err = d.Link(t.name, name); err == nil {
			t.unlink()
			return nil
		}
		if isOneOf(err, errors.ErrUnsupported, syscall.EPERM) {
			return noLinks{err}
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return err
}

// noLinks is the error of a link where the file system has none: EPERM, which is not about permission.
type noLinks struct{ cause error }

func (e noLinks) Error() string {
	return "this file system has no hard links, which a create-if-absent needs (" + words(e.cause) + ")"
}

func (e noLinks) Is(target error) bool { return target == errors.ErrUnsupported }

// Delete implements storage.Store. Directories that held nothing else go too.
// A nil error means durable: an order of deletions survives a crash.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := validKey(key); err != nil {
		return err
	}
	path := s.path(key)
	if err := ctx.Err(); err != nil {
		return &failure{path: path, cause: err}
	}
	if err := storage.Allowed(ctx); err != nil {
		return bodyFailure(path, err)
	}
	elements, name := split(key)
	return s.removed(path, elements, s.remove(ctx, elements, name))
}

// removed is the end of a removal whose error is err: the directories go that
// held nothing else, and what was done becomes durable. That nothing was there is no error.
func (s *Store) removed(path string, elements []string, err error) error {
	if err == nil {
		err = s.syncNearest(elements[:s.prune(elements)])
	}
	switch {
	case err == nil || isOneOf(err, fs.ErrNotExist, syscall.ENOTDIR, syscall.ENAMETOOLONG):
		return nil
	case isOneOf(err, context.Canceled, context.DeadlineExceeded, storage.ErrChanged):
		return &failure{path: path, cause: err}
	}
	return writeFailure(path, err)
}

// remove unlinks the object. ErrNotExist where there is none; none any more is
// no error: whoever removed it may have found our lock in its directory, and left that to us.
func (s *Store) remove(ctx context.Context, elements []string, name string) error {
	d, err := s.descend(elements)
	if err != nil {
		return err
	}
	defer d.Close()
	fi, err := s.lookup(d, name)
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fs.ErrNotExist
	}
	release, err := s.turn(ctx, d, name)
	if err != nil {
		return err
	}
	defer release()
	if err := d.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncNearest makes the names in the directory durable, or, where it has been
// removed meanwhile, that it has.
func (s *Store) syncNearest(elements []string) error {
	for {
		d, err := s.descend(elements)
		if err == nil {
			err = s.syncDirectory(d)
			_ = d.Close()
			return err
		}
		if len(elements) == 0 || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		elements = elements[:len(elements)-1]
	}
}
