package file

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// Directories come with the first object in them and go with the last one. A
// Put may therefore find that the directory it just opened is gone; it makes
// it again, attempts times at most, so that a removed root is an error and no endless loop.
const attempts = 100

// enter opens the directory d/name. ENOTDIR where something else is there, also
// a symbolic link: os.Root would follow it as long as it stays inside.
func (s *Store) enter(d *os.Root, name string) (*os.Root, error) {
	fi, err := s.lookup(d, name)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, syscall.ENOTDIR
	}
	return d.OpenRoot(name)
}

// descend opens the directory that elements name. The caller closes it.
func (s *Store) descend(elements []string) (*os.Root, error) {
	d, err := s.root.OpenRoot(".")
	for _, element := range elements {
		if err != nil {
			return nil, err
		}
		var child *os.Root
		child, err = s.enter(d, element)
		_ = d.Close()
		d = child
	}
	return d, err
}

// makeDirectories is descend that makes what is missing. The names of all the
// directories are durable when it returns. ErrNotExist means that one of them
// was removed meanwhile: try again.
func (s *Store) makeDirectories(elements []string) (*os.Root, error) {
	d, err := s.root.OpenRoot(".")
	if err != nil {
		return nil, err
	}
	var parent *os.Root // of d; nil where d is the root
	defer func() {
		if parent != nil {
			_ = parent.Close()
		}
	}()
	for _, element := range elements {
		child, err := s.enter(d, element)
		var fold *foldError
		if errors.Is(err, fs.ErrNotExist) && !errors.As(err, &fold) {
			if err = s.settle(d, parent); err == nil {
				err = d.Mkdir(element, 0o777)
			}
			if err == nil || errors.Is(err, fs.ErrExist) {
				child, err = s.enter(d, element)
			}
		}
		if err != nil {
			_ = d.Close()
			return nil, err
		}
		if parent != nil {
			_ = parent.Close()
		}
		parent, d = d, child
	}
	if err := s.settle(d, parent); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// settle makes the name of d in its parent durable, before anything is made in
// d, unless something is in d already: whoever made that has seen to it. So a
// directory costs one fsync in its life, and a crash cannot lose an object
// together with a directory that another process had made and not yet synced.
func (s *Store) settle(d, parent *os.Root) error {
	if parent == nil {
		return nil
	}
	f, err := d.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(64)
		for _, name := range names {
			if !strings.HasPrefix(name, ".") {
				return nil
			}
		}
		if err == io.EOF {
			return s.syncDirectory(parent)
		}
		if err != nil {
			return err
		}
	}
}

// syncDirectory makes the names in d durable.
func (s *Store) syncDirectory(d *os.Root) error {
	f, err := d.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return syncNames(f, s.sync)
}

func syncPath(dir string, sync func(*os.File) error) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return syncNames(f, sync)
}

// vacate removes the directory d/name where no object is below it, so that an
// object can take its place: keys know nothing of empty directories. It reports whether it did.
func (s *Store) vacate(d *os.Root, name string) bool {
	child, err := s.enter(d, name)
	if err != nil {
		return false
	}
	defer child.Close()
	sweep(child)
	entries, err := readAll(child)
	if err != nil {
		return false
	}
	for _, entry := range entries {
		if !entry.IsDir() || !s.vacate(child, entry.Name()) {
			return false
		}
	}
	return removeDirectory(d, name) == nil
}

// prune removes the directory that elements name, and those above it, as long
// as they hold nothing. It returns how many of them remain.
func (s *Store) prune(elements []string) int {
	for n := len(elements); n > 0; n-- {
		d, err := s.descend(elements[:n-1])
		if errors.Is(err, fs.ErrNotExist) {
			continue // somebody else prunes here too
		}
		if err != nil {
			return n
		}
		err = removeDirectory(d, elements[n-1])
		if err != nil && !errors.Is(err, fs.ErrNotExist) && s.onlyLeftovers(d, elements[n-1]) {
			err = removeDirectory(d, elements[n-1])
		}
		_ = d.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return n
		}
	}
	return 0
}

// onlyLeftovers reports whether d/name holds a handful of temporary files and
// nothing else, and removes those whose writers are dead.
func (s *Store) onlyLeftovers(d *os.Root, name string) bool {
	child, err := s.enter(d, name)
	if err != nil {
		return false
	}
	defer child.Close()
	f, err := child.Open(".")
	if err != nil {
		return false
	}
	defer f.Close()
	const handful = 16
	names, err := f.Readdirnames(handful)
	if err != nil && err != io.EOF || len(names) == handful {
		return false
	}
	for _, name := range names {
		if !isTemporary(name) {
			return false
		}
	}
	return sweep(child) > 0
}

// readAll returns what is in d, in no order.
func readAll(d *os.Root) ([]fs.DirEntry, error) {
	f, err := d.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}
