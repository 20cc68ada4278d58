// Package file is a directory as a storage.Store: one file per object, its path
// below the directory is its key. Other programs may read, copy and add files.
//
// An object appears by a hard link of a file that is complete and synced, or by a
// rename of it onto an object that is there (Put, Swap), so nobody, at no instant, sees half of one. While it is
// written it lies beside its place as .<name>.<16 hex digits>.tmp, locked with
// flock by the process that writes it; what a killed process left is unlocked,
// and the next Put into the same directory removes it (see also Store.Sweep).
//
// Nothing leaves the directory: keys are validated, all access goes through
// os.Root, and symbolic links inside are neither followed nor listed.
package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/dogestry/dogestry/internal/storage"
)

// Store is a directory. It implements storage.Store, Creator, Swapper, Remover, Sweeper and more, safe
// for concurrent use, also by other processes and Stores on the same directory.
// It starts no goroutines. A method returns soon after its context ends, except
// from within a system call (a final fsync, a hanging network mount) or a Read of the body.
//
// Whole file systems that fold case (most of macOS, Windows, FAT, many SMB
// mounts) are noticed; single folding directories inside one that does not fold are not.
type Store struct {
	root *os.Root
	name string // as the user wrote it, for messages

	foldMu sync.Mutex
	fold   folding

	// Replaced by tests only.
	sync    func(f *os.File) error                             // makes a file's bytes, or a directory's names, durable
	lstat   func(d *os.Root, name string) (fs.FileInfo, error) // how the file system looks names up
	created func(d *os.Root, name string)                      // called between a temporary file's creation and its lock
	listing func([]string) []string                            // for tests: what a reading of a directory finds
}

var (
	_ storage.Store   = (*Store)(nil)
	_ storage.Creator = (*Store)(nil)
	_ storage.Swapper = (*Store)(nil)
	_ storage.Remover = (*Store)(nil)
	_ storage.Sweeper = (*Store)(nil)

	_ storage.LaterLister = (*Store)(nil)

	_ storage.Follower = (*Store)(nil)
	_ storage.Toucher  = (*Store)(nil)
)

// Open opens a directory that is there; it creates nothing. dir itself may be a
// symbolic link. Its error wraps storage.ErrNotFound where nothing is at dir.
// The Store keeps to that very directory when it is renamed meanwhile.
// Whoever opens it calls Close.
func Open(dir string) (*Store, error) {
	dir = filepath.Clean(dir)
	fi, err := os.Stat(dir) // before OpenRoot, which would wait for a FIFO's writer
	if err != nil {
		return nil, readFailure(dir, err)
	}
	if !fi.IsDir() {
		return nil, &failure{path: dir, cause: syscall.ENOTDIR}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, readFailure(dir, err)
	}
	return &Store{root: root, name: dir, sync: (*os.File).Sync, lstat: (*os.Root).Lstat}, nil
}

// Create makes dir, with the rights that the umask leaves, unless it is there,
// and opens it. It does not make dir's parents: where they are missing its
// error wraps storage.ErrNotFound. Whoever calls it calls Close.
func Create(dir string) (*Store, error) { return create(dir, (*os.File).Sync) }

func create(dir string, sync func(*os.File) error) (*Store, error) {
	dir = filepath.Clean(dir)
	switch err := os.Mkdir(dir, 0o777); {
	case err == nil:
		if err := syncPath(filepath.Dir(dir), sync); err != nil {
			return nil, writeFailure(dir, err)
		}
	case errors.Is(err, fs.ErrNotExist):
		return nil, readFailure(dir, err)
	case !errors.Is(err, fs.ErrExist):
		// Some systems answer EACCES or EROFS before they look whether it is there.
		if s, openErr := Open(dir); openErr == nil {
			return s, nil
		}
		return nil, writeFailure(dir, err)
	}
	return Open(dir)
}

// Close gives back the one file descriptor that a Store holds. Calls that run
// finish, later ones fail; readers from Get stay usable.
func (s *Store) Close() error { return s.root.Close() }

// path returns where key lies, for messages.
func (s *Store) path(key string) string { return filepath.Join(s.name, filepath.FromSlash(key)) }

// validKey is storage.ValidKey, and refuses what Windows would take for a separator, a drive or a stream.
func validKey(key string) error {
	if runtime.GOOS == "windows" && strings.ContainsAny(key, `\:`) {
		return fmt.Errorf("%w %q: not possible on Windows", storage.ErrInvalidKey, key)
	}
	return storage.ValidKey(key)
}

// split returns key's directories and its last element.
func split(key string) (directories []string, name string) {
	elements := strings.Split(key, "/")
	last := len(elements) - 1
	return elements[:last], elements[last]
}

// failure is an error about a path: its text is the path and the system's own words.
type failure struct {
	path  string
	kind  error // one of package storage's, or nil
	cause error
}

func (e *failure) Error() string { return e.path + ": " + words(e.cause) }

func (e *failure) Unwrap() []error {
	if e.kind == nil {
		return []error{e.cause}
	}
	return []error{e.kind, e.cause}
}

// words returns err's text without the call and the relative path that package os puts before it.
func words(err error) string {
	switch e := err.(type) {
	case *fs.PathError:
		return words(e.Err)
	case *os.LinkError:
		return words(e.Err)
	case *os.SyscallError:
		return words(e.Err)
	}
	return err.Error()
}

// readFailure gives the error of a read at path its kind.
func readFailure(path string, err error) error {
	e := &failure{path: path, cause: err}
	switch {
	case isOneOf(err, fs.ErrNotExist, syscall.ENOTDIR, syscall.EISDIR, syscall.ENAMETOOLONG):
		e.kind = storage.ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		e.kind = storage.ErrPermission
	}
	return e
}

// writeFailure gives the error of a write at path its kind.
func writeFailure(path string, err error) error {
	e := &failure{path: path, cause: err}
	var fold *foldError
	switch {
	case errors.As(err, &fold), isOneOf(err, syscall.ENOTDIR, syscall.EISDIR):
		e.kind = storage.ErrConflict
	case isOneOf(err, syscall.ENOSPC, syscall.EDQUOT):
		e.kind = storage.ErrNoSpace
	case errors.Is(err, fs.ErrExist):
		e.kind = storage.ErrExists
	case isOneOf(err, fs.ErrPermission, syscall.EROFS):
		e.kind = storage.ErrPermission
	}
	return e
}

func isOneOf(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// bodyFailure is what Put returns where its body or context failed: the kinds above are about the store, not about them.
func bodyFailure(path string, err error) error { return fmt.Errorf("%s not written: %w", path, err) }
