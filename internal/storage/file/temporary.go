package file

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
)

// Names of temporary files: a dot, the object's name, 16 hex digits.
const (
	temporarySuffix = ".tmp"
	randomDigits    = 16
	maxName         = 255 // bytes, on every file system that matters
	maxStem         = maxName - len(".") - len(".") - randomDigits - len(temporarySuffix)
)

func temporaryName(name string) string { return numberedName(name, rand.Uint64()) }

func numberedName(name string, number uint64) string {
	return fmt.Sprintf(".%s.%0*x%s", name[:min(len(name), maxStem)], randomDigits, number, temporarySuffix)
}

// isTemporary reports whether name is one that numberedName makes. Other
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
	if !isFile(linked, t.file) {
		return nil, fs.ErrNotExist
	}
	return t, nil
}

// isFile reports whether fi is about f, and not about another file that has its name now.
func isFile(fi fs.FileInfo, f *os.File) bool {
	own, err := f.Stat()
	return err == nil && os.SameFile(fi, own)
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
