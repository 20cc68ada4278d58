package ssh

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/dogestry/dogestry/internal/storage"
)

// directoriesAhead bounds how many directories are read before their turn: each costs
// several round trips.
const directoriesAhead = 16

// List implements storage.Store. It holds the names of some directories in memory, and
// leaves out what no key can name, what is no regular file, and what disappears meanwhile.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		directory, start := "", prefix
		if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
			directory, start = prefix[:i], prefix[i+1:]
			if storage.ValidKey(directory) != nil {
				return // nothing can be there
			}
		}
		reading, cancel := context.WithCancel(ctx)
		defer cancel()
		l := &lister{ctx: ctx, reading: reading, store: s, yield: yield}
		l.walk(l.read(directory, start), directory)
	}
}

type lister struct {
	ctx     context.Context
	reading context.Context // ends with the loop, too
	store   *Store
	yield   func(storage.Info, error) bool
}

// listing is a directory that is being read.
type listing struct {
	entries []fs.FileInfo // in the order of their keys
	err     error
	done    chan struct{}
}

// read begins to read a directory for names that begin with start.
func (l *lister) read(directory, start string) *listing {
	r := &listing{done: make(chan struct{})}
	l.store.afterwards(func() {
		defer close(r.done)
		r.entries, r.err = l.store.list(l.reading, directory, start)
	})
	return r
}

// fail yields err, unless it says that key is not there, and reports whether to go on.
func (l *lister) fail(key string, err error) bool {
	if absent(err) && l.ctx.Err() == nil {
		return true
	}
	l.yield(storage.Info{}, l.store.failed(l.ctx, key, err))
	return false
}

// walk yields the objects in directory, which is being read, and below it. It reports
// whether to go on.
func (l *lister) walk(of *listing, directory string) bool {
	select {
	case <-of.done:
	case <-l.ctx.Done():
	}
	if err := l.ctx.Err(); err != nil {
		l.yield(storage.Info{}, fmt.Errorf("%s: %w", l.store.name(directory), err))
		return false
	}
	if of.err != nil {
		return l.fail(directory, of.err)
	}
	below := map[string]*listing{}
	next := 0 // the first entry of which it is not known yet whether it is to be read
	for _, fi := range of.entries {
		for ; next < len(of.entries) && len(below) < directoriesAhead; next++ {
			if name := of.entries[next].Name(); of.entries[next].IsDir() {
				below[name] = l.read(path.Join(directory, name), "")
			}
		}
		if err := l.ctx.Err(); err != nil {
			l.yield(storage.Info{}, fmt.Errorf("%s: %w", l.store.name(directory), err))
			return false
		}
		key := path.Join(directory, fi.Name())
		if fi.IsDir() {
			listing := below[fi.Name()]
			delete(below, fi.Name())
			if !l.walk(listing, key) {
				return false
			}
		} else if !l.yield(info(key, fi), nil) {
			return false
		}
	}
	return true
}

// wholeReading is how many bytes of names a server's system gives out at once for sure.
// Of a directory that has more, a reading can miss a name that is renamed over.
const wholeReading = 16 << 10

// relistings bounds how often such a directory is read again.
const relistings = 8

// list reads a directory: what can be objects, or hold some, and begins with start, in the order of
// their keys.
func (s *Store) list(ctx context.Context, directory, start string) ([]fs.FileInfo, error) {
	found := map[string]fs.FileInfo{}
	for range relistings {
		var entries []fs.FileInfo
		if err := s.try(ctx, func(c *session) (err error) {
			entries, err = s.read(ctx, c, s.path(directory))
			return err
		}); err != nil {
			return nil, err
		}
		more, size := false, 0
		for _, fi := range entries {
			name := fi.Name()
			if size += len(name) + 24; !strings.HasPrefix(name, start) || storage.ValidKey(path.Join(directory, name)) != nil || !fi.IsDir() && !fi.Mode().IsRegular() {
				continue
			}
			if _, known := found[name]; !known && !fi.IsDir() {
				more = true
			}
			found[name] = fi
		}
		if size < wholeReading || !more {
			break
		}
	}
	all := make([]fs.FileInfo, 0, len(found))
	for _, fi := range found {
		all = append(all, fi)
	}
	order := func(fi fs.FileInfo) string {
		if fi.IsDir() {
			return fi.Name() + "/" // "a-b" comes before "a/b"
		}
		return fi.Name()
	}
	slices.SortFunc(all, func(a, b fs.FileInfo) int { return strings.Compare(order(a), order(b)) })
	return all, nil
}
