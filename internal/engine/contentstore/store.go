// Package contentstore reads blobs straight from the directory of containerd's
// content store, where an engine with the containerd image store keeps documents
// and layers: a file each, as it came, named by its digest
// (https://github.com/containerd/containerd/blob/main/docs/content-flow.md).
//
// It never writes and takes no lock. What it returns is not verified, and
// containerd may delete it meanwhile: whoever uses it proves the digests, and
// asks the engine itself where something does not fit.
package contentstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/dogestry/dogestry/internal/image"
)

// plugin is the directory that containerd gives to its content store, below its root.
const plugin = "io.containerd.content.v1.content"

// system is the root of a containerd that an engine did not start itself.
const system = "/var/lib/containerd"

// systemSockets are where such a containerd listens.
var systemSockets = []string{"/run/containerd/containerd.sock", "/var/run/containerd/containerd.sock"}

// Store is the content store of one containerd. It is safe for concurrent use
// and holds nothing open.
type Store struct{ dir string }

// Open finds the content store that has a blob: that of the containerd which an
// engine with this data root starts (GET /info, DockerRootDir), or the system's.
func Open(dataRoot string, id image.Digest) (*Store, error) {
	var all error
	for _, root := range []string{filepath.Join(dataRoot, "containerd", "daemon"), system} {
		s := &Store{dir: blobsIn(root)}
		blob, _, err := s.Blob(id)
		if err == nil {
			return s, blob.Close()
		}
		if !errors.Is(err, fs.ErrNotExist) || all == nil {
			all = err
		}
	}
	return nil, all
}

// OpenOf finds the content store of the containerd at a socket, which an engine
// with this data root uses (GET /info, Containerd.Address). Its error says that
// the store cannot be looked into.
func OpenOf(dataRoot, socket string) (*Store, error) {
	root := filepath.Join(dataRoot, "containerd", "daemon")
	if slices.Contains(systemSockets, socket) {
		root = system
	}
	s := &Store{dir: blobsIn(root)}
	d, err := os.Open(s.dir) // a stat does not tell whether its names may be read
	if err != nil {
		return nil, err
	}
	return s, d.Close()
}

func blobsIn(root string) string { return filepath.Join(root, plugin, "blobs", "sha256") }

// Has reports whether a blob is there.
func (s *Store) Has(id image.Digest) (bool, error) {
	info, err := os.Lstat(filepath.Join(s.dir, id.Hex()))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Mode().IsRegular(), err
}

// Dir is where the blobs lie.
func (s *Store) Dir() string { return s.dir }

// Blob opens a blob of size bytes. The caller closes it.
func (s *Store) Blob(id image.Digest) (blob io.ReadCloser, size int64, err error) {
	f, size, err := s.open(id)
	if err != nil {
		return nil, 0, err // not a nil file in an interface
	}
	return f, size, nil
}

// Tar is a blob that is a tar, to be read at any offset. It is safe for concurrent
// use; the caller closes it.
type Tar struct {
	*io.SectionReader
	io.Closer
}

// Tar opens a blob that is a tar. Any other is an errors.ErrUnsupported: what is
// compressed cannot be read at an offset.
func (s *Store) Tar(id image.Digest) (*Tar, error) {
	f, size, err := s.open(id)
	if err != nil {
		return nil, err
	}
	// POSIX and GNU have this mark in the first header (pax, "ustar Interchange Format").
	const mark, at = "ustar", 257
	head := make([]byte, len(mark))
	if _, err := f.ReadAt(head, at); err != nil && err != io.EOF {
		f.Close()
		return nil, err
	}
	if string(head) != mark {
		f.Close()
		return nil, fmt.Errorf("blob %s is no plain tar: %w", id.Short(), errors.ErrUnsupported)
	}
	return &Tar{io.NewSectionReader(f, 0, size), f}, nil
}

func (s *Store) open(id image.Digest) (blob *os.File, size int64, err error) {
	// Not to wait for a FIFO.
	f, err := os.OpenFile(filepath.Join(s.dir, id.Hex()), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", f.Name())
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}
