package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"time"
)

// Names of temporary files: a dot, the object's name, 16 hex digits.
const (
	temporarySuffix = ".tmp"
	randomDigits    = 16
	maxName         = 255 // bytes, on every file system that matters
	maxStem         = maxName - len(".") - len(".") - randomDigits - len(temporarySuffix)
)

// abandoned is how old a temporary file must be to count as left over where
// files cannot be locked (Windows, some network mounts).
const abandoned = 24 * time.Hour

func temporaryName(name string) string {
	return fmt.Sprintf(".%s.%0*x%s", name[:min(len(name), maxStem)], randomDigits, rand.Uint64(), temporarySuffix)
}

// isTemporary reports whether name is one that temporaryName makes. Other
// programs' temporary files are none of our business.
func isTemporary(name string) bool {
	stem, ok := strings.CutSuffix(name, temporarySuffix)
	if !ok || len(stem) < len("..")+randomDigits || stem[0] != '.' || stem[len(stem)-randomDigits-1] != '.' {
		return false
	}
	return strings.Trim(stem[len(stem)-randomDigits:], "0123456789abcdef") == ""
}

// temporary is a file on its way to becoming an object: open, empty at first,
// and locked as long as it is open.
type temporary struct {
	file *os.File
	dir  *os.Root
	name string // in dir
}

// temporary makes the directories that elements name and a temporary file for
// name in the last of them. It removes there what dead writers left.
// The caller calls close.
func (s *Store) temporary(elements []string, name string) (*temporary, error) {
	var err error
	for attempt := range attempts {
		var d *os.Root
		d, err = s.makeDirectories(elements)
		if err == nil {
			if attempt == 0 {
				sweep(d)
			}
			var t *temporary
			if t, err = s.lockedFile(d, name); err == nil {
				return t, nil
			}
			_ = d.Close()
		}
		var fold *foldError
		if !errors.Is(err, fs.ErrNotExist) || errors.As(err, &fold) {
			return nil, err
		}
		// A Delete removed the directory, or a sweeper the file before it was locked.
	}
	return nil, err
}

// lockedFile creates a temporary file in d and locks it. ErrNotExist where d, or the file before its lock, was removed.
func (s *Store) lockedFile(d *os.Root, name string) (_ *temporary, err error) {
	t := &temporary{dir: d, name: temporaryName(name)}
	if t.file, err = d.OpenFile(t.name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = t.file.Close()
			_ = d.Remove(t.name)
		}
	}()
	if s.created != nil {
		s.created(d, t.name)
	}
	if tryLock(t.file) == lockBusy {
		return nil, fs.ErrNotExist // a sweeper has it, and is about to remove it
	}
	// Whoever locked it before us has removed it. Looking it up also tells, before any byte is written, whether case folds here.
	linked, err := s.lookup(d, t.name)
	if err != nil {
		return nil, err
	}
	own, err := t.file.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(linked, own) {
		return nil, fs.ErrNotExist
	}
	return t, nil
}

// unlink removes the temporary name, if the file still has it. Should that
// fail, a later Put removes it: the file will not be locked any more.
func (t *temporary) unlink() {
	if t.name != "" {
		_ = t.dir.Remove(t.name)
		t.name = ""
	}
}

// close removes the file, unless it was renamed to its place, and gives up the lock after that.
func (t *temporary) close() {
	t.unlink()
	_ = t.file.Close()
	_ = t.dir.Close()
}

// sweep removes d's temporary files whose writers are dead, and returns how
// many. What it may not remove stays: nobody's work depends on it.
func sweep(d *os.Root) (removed int) {
	f, err := d.Open(".")
	if err != nil {
		return 0
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(256)
		for _, name := range names {
			if isTemporary(name) && sweepFile(d, name) {
				removed++
			}
		}
		if err != nil {
			return removed
		}
	}
}

func sweepFile(d *os.Root, name string) bool {
	fi, err := d.Lstat(name)
	if err != nil || !fi.Mode().IsRegular() {
		return false
	}
	f, err := d.OpenFile(name, os.O_RDWR, 0) // NFS locks only what is open for writing
	if err != nil {
		return false
	}
	defer f.Close()
	switch tryLock(f) {
	case lockBusy:
		return false
	case lockUnsupported:
		if time.Since(fi.ModTime()) < abandoned {
			return false
		}
	}
	// Its writer is dead, or has not locked it yet and will notice, or has
	// published it meanwhile, and then this name is gone.
	return d.Remove(name) == nil
}

// Sweep removes what killed processes left in the whole directory, temporary
// files and empty directories, beside running writers, and returns how many
// files that were. Put does so only where it writes, so an upload that nobody
// takes up again stays until then.
func (s *Store) Sweep(ctx context.Context) (removed int, err error) {
	d, err := s.root.OpenRoot(".")
	if err != nil {
		return 0, readFailure(s.name, err)
	}
	defer d.Close()
	return s.sweepTree(ctx, d, s.name)
}

func (s *Store) sweepTree(ctx context.Context, d *os.Root, path string) (removed int, err error) {
	f, err := d.Open(".")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // its last object was just deleted
	}
	if err != nil {
		return 0, readFailure(path, err)
	}
	defer f.Close()
	removed = sweep(d)
	for {
		entries, err := f.ReadDir(256)
		for _, entry := range entries {
			if ctx.Err() != nil {
				return removed, &failure{path: path, cause: ctx.Err()}
			}
			if !entry.IsDir() || strings.HasPrefix(entry.Name(), ".") {
				continue
			}
			child, err := d.OpenRoot(entry.Name())
			if err != nil {
				continue // gone, or not ours to read
			}
			n, err := s.sweepTree(ctx, child, path+string(os.PathSeparator)+entry.Name())
			_ = child.Close()
			removed += n
			if err != nil {
				return removed, err
			}
			_ = removeDirectory(d, entry.Name()) // only if it is empty
		}
		if err == io.EOF || errors.Is(err, fs.ErrNotExist) {
			return removed, nil
		}
		if err != nil {
			return removed, readFailure(path, err)
		}
	}
}
