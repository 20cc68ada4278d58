package dockerarchive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/dogestry/dogestry/internal/lockfile"
)

// temporary is a file beside the place of an archive, named "." and the archive's
// name, 16 hex digits and ".tmp". It is locked (flock) while it is written: so the
// next Writer knows what killed ones left, and removes it.
type temporary struct {
	dir    *os.Root
	file   *os.File
	name   string // in dir
	target string
}

const maxStem = 200 // bytes of the archive's name: with the rest fewer than 255

func newTemporary(path string) (_ *temporary, err error) {
	t := &temporary{target: filepath.Base(path)}
	if t.dir, err = os.OpenRoot(filepath.Dir(path)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = t.close()
		}
	}()
	stem := t.target[:min(len(t.target), maxStem)]
	sweep(t.dir, stem)
	name := fmt.Sprintf(".%s.%016x.tmp", stem, rand.Uint64())
	if t.file, err = t.dir.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666); err != nil {
		return nil, err
	}
	t.name = name
	_ = lockfile.Try(t.file) // where there are no locks, what killed Writers leave stays
	return t, nil
}

// sweep removes what killed Writers of the archive left. A new one, not locked yet,
// may go too: its Commit fails then, which it may.
func sweep(dir *os.Root, stem string) {
	names, err := fs.Glob(dir.FS(), ".*.tmp")
	if err != nil {
		return
	}
	ours := regexp.MustCompile(`^\.` + regexp.QuoteMeta(stem) + `\.[0-9a-f]{16}\.tmp$`)
	for _, name := range names {
		info, err := dir.Lstat(name)
		if err != nil || !ours.MatchString(name) || !info.Mode().IsRegular() {
			continue
		}
		f, err := dir.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if lockfile.Try(f) == nil {
			_ = dir.Remove(name)
		}
		_ = f.Close()
	}
}

// publish makes the file durable and gives it its name, if nothing has that (else
// fs.ErrExist).
func (t *temporary) publish(ctx context.Context) error {
	if err := t.file.Sync(); err != nil {
		return writeError(err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := t.dir.Link(t.name, t.target)
	switch {
	case err == nil:
		if t.dir.Remove(t.name) == nil {
			t.name = ""
		}
	case errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrNotExist):
		return err
	default: // a file system without links
		if _, err := t.dir.Lstat(t.target); err == nil {
			return fs.ErrExist
		}
		if err := t.dir.Rename(t.name, t.target); err != nil {
			return writeError(err)
		}
		t.name = ""
	}
	d, err := t.dir.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// close removes the file, unless it has its name.
func (t *temporary) close() error {
	if t.name != "" {
		_ = t.dir.Remove(t.name)
		t.name = ""
	}
	if t.file != nil {
		_ = t.file.Close()
		t.file = nil
	}
	return t.dir.Close()
}
