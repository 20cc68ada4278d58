package file

import (
	"context"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
)

// List implements storage.Store. It holds the names of one directory in memory
// for each level, and leaves out what no key can name, what is no regular file,
// and what disappears meanwhile.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return s.ListAfter(ctx, prefix, "")
}

// ListAfter implements storage.LaterLister: of what is before, names are read and no more.
func (s *Store) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		directory, start := "", prefix
		var elements []string
		if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
			directory, start = prefix[:i], prefix[i+1:]
			if storage.ValidKey(directory) != nil {
				return // nothing can be there
			}
			elements = strings.Split(directory, "/")
		}
		l := &lister{ctx: ctx, store: s, after: after, yield: yield}
		d, err := s.descend(elements)
		if err != nil {
			l.fail(directory, err)
			return
		}
		defer d.Close()
		l.walk(d, directory, start)
	}
}

type lister struct {
	ctx   context.Context
	store *Store
	after string
	yield func(storage.Info, error) bool
}

// fail yields err, unless it says that key is not there, and reports whether to go on.
func (l *lister) fail(key string, err error) bool {
	if isOneOf(err, fs.ErrNotExist, syscall.ENOTDIR, syscall.ENAMETOOLONG) {
		return true
	}
	l.yield(storage.Info{}, readFailure(l.store.path(key), err))
	return false
}

// walk yields the objects in d, whose key is directory, and below it, whose
// names there begin with start. It reports whether to go on.
func (l *lister) walk(d *os.Root, directory, start string) bool {
	if err := l.ctx.Err(); err != nil {
		l.yield(storage.Info{}, &failure{path: l.store.path(directory), cause: err})
		return false
	}
	names, err := l.names(d, start)
	if err != nil {
		return l.fail(directory, err)
	}
	for _, name := range names {
		if err := l.ctx.Err(); err != nil {
			l.yield(storage.Info{}, &failure{path: l.store.path(directory), cause: err})
			return false
		}
		name, isDirectory := strings.CutSuffix(name, "/")
		key := name
		if directory != "" {
			key = directory + "/" + name
		}
		if storage.ValidKey(key) != nil || l.isBefore(key, isDirectory) {
			continue
		}
		next := l.object
		if isDirectory {
			next = l.directory
		}
		if !next(d, name, key) {
			return false
		}
	}
	return true
}

// isBefore reports whether an object, or all that can be in a directory, is not behind after.
func (l *lister) isBefore(key string, isDirectory bool) bool {
	if isDirectory {
		return key+"/" <= l.after && !strings.HasPrefix(l.after, key+"/")
	}
	return key <= l.after
}

func (l *lister) object(d *os.Root, name, key string) bool {
	fi, err := d.Lstat(name)
	if err != nil {
		return l.fail(key, err)
	}
	if !fi.Mode().IsRegular() {
		return true
	}
	return l.yield(info(key, fi), nil)
}

func (l *lister) directory(d *os.Root, name, key string) bool {
	fi, err := d.Lstat(name)
	if err != nil {
		return l.fail(key, err)
	}
	if !fi.IsDir() {
		return true
	}
	child, err := d.OpenRoot(name)
	if err != nil {
		return l.fail(key, err)
	}
	defer child.Close()
	return l.walk(child, key, "")
}

// relistings bounds how often a directory is read again that keeps changing.
const relistings = 8

// justNow is for how long a directory counts as changing: more than the grain of
// any file system's times, which FAT has of two seconds.
const justNow = 2 * time.Second

// names returns what in d begins with start, directories with a slash behind
// them, in byte order: that is the order of the keys ("a-b" comes before "a/b").
// A reading of a directory can miss a name that is renamed over meanwhile. So one
// that has just changed is read again, until that finds nothing more.
func (l *lister) names(d *os.Root, start string) ([]string, error) {
	var names []string
	for range relistings {
		found, err := l.namesOnce(d, start)
		if err != nil {
			return nil, err
		}
		all := slices.Compact(slices.Sorted(slices.Values(append(found, names...))))
		more := len(all) > len(names)
		names = all
		if !more || !l.justChanged(d) {
			break
		}
	}
	return names, nil
}

// justChanged reports whether names in d have changed a moment ago, by the clock of
// the file system or of this machine, which may differ.
func (l *lister) justChanged(d *os.Root) bool {
	fi, err := d.Stat(".")
	return err == nil && time.Since(fi.ModTime()) < justNow
}

func (l *lister) namesOnce(d *os.Root, start string) ([]string, error) {
	f, err := d.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for {
		entries, err := f.ReadDir(512)
		for _, entry := range entries {
			name := entry.Name()
			if strings.HasPrefix(name, ".") || !strings.HasPrefix(name, start) {
				continue
			}
			switch {
			case entry.IsDir():
				names = append(names, name+"/")
			case entry.Type().IsRegular():
				names = append(names, name)
			}
		}
		if err == io.EOF {
			if l.store.listing != nil {
				names = l.store.listing(names)
			}
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		if err := l.ctx.Err(); err != nil {
			return nil, err
		}
	}
}
