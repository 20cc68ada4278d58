package file

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// abandoned is how old a temporary file must be to count as left over where
// files cannot be locked (Windows, some network mounts).
const abandoned = 24 * time.Hour

// sweep removes d's temporary files whose writers are dead, and returns how
// many. What it may not remove stays: nobody's work depends on it.
func sweep(d *os.Root) (removed int) { return sweepSome(d, "", 0) }

// sweepSome is sweep for the files of objects whose names begin with start, unless they are younger than age.
func sweepSome(d *os.Root, start string, age time.Duration) (removed int) {
	f, err := d.Open(".")
	if err != nil {
		return 0
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(256)
		for _, name := range names {
			if isTemporary(name) && strings.HasPrefix(name[1:], start) && sweepFile(d, name, age) {
				removed++
			}
		}
		if err != nil {
			return removed
		}
	}
}

func sweepFile(d *os.Root, name string, age time.Duration) bool {
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
		age = max(age, abandoned)
	}
	if age > 0 && time.Since(fi.ModTime()) < age {
		return false
	}
	// Its writer is dead, or has not locked it yet and will notice, or has
	// published it meanwhile, and then this name is gone. A lock's name may be
	// another file's by now, which somebody holds; while we hold the one that has the name, nobody else removes it.
	if fi, err = d.Lstat(name); err != nil || !isFile(fi, f) {
		return false
	}
	return d.Remove(name) == nil
}

// settled is how long ago the last change in an empty directory must be for
// Sweep to remove it: a Put may have made it just now, and sync it before it makes a file there.
const settled = time.Minute

func isSettled(directory fs.DirEntry) bool {
	fi, err := directory.Info()
	return err == nil && time.Since(fi.ModTime()) > settled
}

// Sweep implements storage.Sweeper: beside running processes it removes what
// killed ones left, temporary files and empty directories, and returns how many
// files that were. Put does so only where it writes, so an upload that nobody
// takes up again stays until then. A file that a process holds stays however
// old it is, as do, where files cannot be locked, those of the last 24 hours.
func (s *Store) Sweep(ctx context.Context, prefix string, age time.Duration) (removed int, err error) {
	d, err := s.root.OpenRoot(".")
	if err != nil {
		return 0, readFailure(s.name, err)
	}
	defer d.Close()
	return s.sweepTree(ctx, d, "", prefix, age)
}

// sweepTree sweeps below d, whose objects' keys begin with above, those that begin with prefix.
func (s *Store) sweepTree(ctx context.Context, d *os.Root, above, prefix string, age time.Duration) (removed int, err error) {
	path := s.path(above)
	f, err := d.Open(".")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // its last object was just deleted
	}
	if err != nil {
		return 0, readFailure(path, err)
	}
	defer f.Close()
	start, inside := strings.CutPrefix(prefix, above) // else all that is here begins with prefix
	if !inside {
		start = ""
	}
	if !strings.Contains(start, "/") {
		removed = sweepSome(d, start, age)
	}
	for {
		entries, err := f.ReadDir(256)
		for _, entry := range entries {
			if ctx.Err() != nil {
				return removed, &failure{path: path, cause: ctx.Err()}
			}
			name := entry.Name()
			within := strings.HasPrefix(name+"/", start)
			if !entry.IsDir() || strings.HasPrefix(name, ".") || !within && !strings.HasPrefix(start, name+"/") {
				continue
			}
			child, err := d.OpenRoot(name)
			if err != nil {
				continue // gone, or not ours to read
			}
			n, err := s.sweepTree(ctx, child, above+name+"/", prefix, age)
			_ = child.Close()
			removed += n
			if err != nil {
				return removed, err
			}
			if within && (n > 0 || isSettled(entry)) {
				_ = removeDirectory(d, name) // only if it is empty
			}
		}
		if err == io.EOF || errors.Is(err, fs.ErrNotExist) {
			return removed, nil
		}
		if err != nil {
			return removed, readFailure(path, err)
		}
	}
}
