package rsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
)

// spoolName is what the directory of a running process begins with, in the spool's
// place. One that has no lock is a dead process's.
const spoolName = "dogestry-rsync-"

const spoolLock = "lock"

// spool is a directory for what rsync reads and writes here. It is there only while
// somebody uses it, so that nobody has to close a Store.
type spool struct {
	place string

	mu    sync.Mutex
	users int
	dir   string
	lock  *os.File
}

// take returns a new directory in the spool, and what removes it.
func (s *spool) take() (dir string, remove func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 {
		if err := s.begin(); err != nil {
			return "", nil, spoolFailure(s.place, err)
		}
	}
	s.users++
	dir, err = os.MkdirTemp(s.dir, "")
	var once sync.Once
	remove = func() { once.Do(func() { s.giveBack(dir) }) }
	if err != nil {
		s.mu.Unlock()
		remove()
		s.mu.Lock()
		return "", nil, spoolFailure(s.place, err)
	}
	return dir, remove, nil
}

// begin makes the directory. It gets its name once it is locked.
func (s *spool) begin() (err error) {
	if err := os.MkdirAll(s.place, 0o700); err != nil {
		return err
	}
	removeDead(s.place)
	begun, err := os.MkdirTemp(s.place, "."+spoolName)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(begun)
		}
	}()
	lock, err := os.OpenFile(filepath.Join(begun, spoolLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	lockFile(lock)
	s.dir = filepath.Join(s.place, strings.TrimPrefix(filepath.Base(begun), "."))
	if err := os.Rename(begun, s.dir); err != nil {
		_ = lock.Close()
		return err
	}
	s.lock = lock
	return nil
}

// giveBack removes dir, and the spool when nobody has anything in it.
func (s *spool) giveBack(dir string) {
	if dir != "" {
		_ = os.RemoveAll(dir)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users == 0 {
		_ = os.RemoveAll(s.dir)
		_ = s.lock.Close()
	}
}

// empty removes what is in a directory.
func (s *spool) empty(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return spoolFailure(s.place, err)
	}
	return nil
}

// removeDead removes what killed processes left in place.
func removeDead(place string) {
	found, err := os.ReadDir(place)
	if err != nil {
		return
	}
	for _, entry := range found {
		if !strings.HasPrefix(entry.Name(), spoolName) || !entry.IsDir() {
			continue
		}
		dir := filepath.Join(place, entry.Name())
		lock, err := os.OpenFile(filepath.Join(dir, spoolLock), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if lockFile(lock) {
			_ = os.RemoveAll(dir)
		}
		_ = lock.Close()
	}
}

// spoolBuffer is how much of a body is held in memory, in bytes.
const spoolBuffer = 256 << 10

// write puts all of body in a new file. Where body or ctx fails, the error wraps theirs.
func (s *spool) write(ctx context.Context, path string, body io.Reader) (size int64, err error) {
	// Anybody may read it where it comes to be: it has the rights of this file there, as
	// far as the server gives them. Here its directory is closed to others.
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return 0, spoolFailure(s.place, err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, spoolFailure(s.place, err)
	}
	defer file.Close()
	buffer := make([]byte, spoolBuffer)
	for {
		n, readErr := storage.ReadFull(ctx, body, buffer)
		if readErr == nil || readErr == io.EOF {
			if _, err := file.Write(buffer[:n]); err != nil {
				return 0, spoolFailure(s.place, err)
			}
			size += int64(n)
		}
		switch {
		case readErr == io.EOF && ctx.Err() == nil:
			if err := file.Close(); err != nil {
				return 0, spoolFailure(s.place, err)
			}
			return size, nil
		case readErr == io.EOF:
			return 0, ctx.Err()
		case readErr != nil:
			return 0, readErr
		}
	}
}

// spoolFailure says where there is no room on this machine.
func spoolFailure(place string, err error) error {
	var of *os.PathError
	if errors.As(err, &of) {
		err = of.Err
	}
	return fault.Wrap(fault.Other, err, "cannot keep what goes by rsync in %s", place).
		Advise("%s", spoolAdvice)
}

const spoolAdvice = "rsync takes no streams: each layer on its way lies on this machine's disk for that time. Set TMPDIR to a directory with room for that."

// link lets a file appear under another name, in directories that are made.
func link(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.Link(from, to); err == nil || errors.Is(err, os.ErrExist) {
		return err
	}
	b, err := os.ReadFile(from) // of a file system without links; it is small
	if err != nil {
		return err
	}
	file, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(b)
	return errors.Join(err, file.Close())
}

// open opens what rsync has put under key, below dir. Nil, where that is no file.
func open(dir, key string) (*os.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Lstat(filepath.FromSlash(key))
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil //nolint:nilerr // the server has sent no such file
	}
	file, err := root.Open(filepath.FromSlash(key))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return file, nil
}
