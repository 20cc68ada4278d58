package rsync

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// temporaryName is what rsync calls a file that is on its way: a dot, the object's
// name, and six letters or digits.
var temporaryName = regexp.MustCompile(`^\..+\.[A-Za-z0-9]{6}$`)

// Sweep implements storage.Sweeper: what broken-off uploads left, which the next push of
// the same layer would build on, and what a server that was killed left. Directories in
// which nothing is any more, since what was there was deleted, go too and are not counted.
func (s *Store) Sweep(ctx context.Context, prefix string, age time.Duration) (removed int, err error) {
	var all []entry
	directory := prefix[:strings.LastIndexByte(prefix, '/')+1]
	err = s.again(ctx, func(bool) error {
		all = nil
		return s.lookAll(ctx, []string{s.at(directory)}, []string{"--recursive"}, func(e entry) {
			if strings.HasPrefix(e.info.Key, prefix) {
				all = append(all, e)
			}
		})
	})
	if err != nil {
		return 0, s.failure(ctx, err, "list", "")
	}
	var now time.Time
	if age > 0 && len(all) > 0 {
		if now, err = s.now(ctx); err != nil {
			return 0, err
		}
	}
	old := func(e entry) bool { return age <= 0 || now.Sub(e.info.Modified) >= age }
	var files []string
	needed := map[string]bool{} // directories in which something stays
	for _, e := range all {
		switch {
		case e.directory && old(e):
		case !e.directory && leftOver(e.info.Key) && old(e):
			files = append(files, s.at(e.info.Key))
		default:
			for dir := e.info.Key; dir != "." && !needed[dir]; dir = path.Dir(dir) {
				needed[dir] = true
			}
		}
	}
	if err := s.deleteNames(ctx, files); err != nil {
		return 0, err
	}
	return len(files), s.deleteEmpty(ctx, all, needed)
}

// leftOver reports whether a name is one of what broken-off writes leave.
func leftOver(key string) bool {
	dir, name := path.Split(key)
	return path.Base(dir) == partialDir || temporaryName.MatchString(name)
}

// clear removes the directory key, where what was in it is gone. rsync leaves empty
// directories behind deleted objects: they would be in the way of one with their name.
func (s *Store) clear(ctx context.Context, key string) (gone bool) {
	var all []entry
	empty := true
	err := s.lookAll(ctx, []string{s.at(key)}, []string{"--recursive"}, func(e entry) {
		all, empty = append(all, e), empty && e.directory
	})
	return err == nil && empty && len(all) > 0 && s.deleteEmpty(ctx, all, nil) == nil
}

// deleteEmpty deletes directories that are not needed, the deepest first. rsync leaves
// those that are not empty, whatever was thought of them.
func (s *Store) deleteEmpty(ctx context.Context, all []entry, needed map[string]bool) error {
	byDepth := map[int][]string{}
	for _, e := range all {
		if e.directory && !needed[e.info.Key] && e.info.Key != "." {
			depth := strings.Count(e.info.Key, "/")
			byDepth[depth] = append(byDepth[depth], s.at(e.info.Key))
		}
	}
	for depth := slices.Max(append(depths(byDepth), 0)); depth >= 0; depth-- {
		if err := s.deleteNames(ctx, byDepth[depth]); err != nil {
			return err
		}
	}
	return nil
}

func depths(of map[int][]string) (all []int) {
	for depth := range of {
		all = append(all, depth)
	}
	return all
}

func (s *Store) deleteNames(ctx context.Context, names []string) error {
	for part := range slices.Chunk(names, 1000) {
		err := s.again(ctx, func(bool) error { return s.deleteAll(ctx, part) })
		if err != nil {
			return s.failure(ctx, err, "delete what is left over in", "")
		}
	}
	return nil
}

// now is what time it is for the server, by an object that is written for that: this
// machine's clock may be another. Its name is that of a check's (storage/probe).
func (s *Store) now(ctx context.Context) (time.Time, error) {
	key := fmt.Sprintf("run/check-%016x/now", rand.Uint64())
	if err := s.Put(ctx, key, strings.NewReader("")); err != nil {
		return time.Time{}, err
	}
	info, err := s.Stat(ctx, key)
	if err != nil {
		return time.Time{}, err
	}
	return info.Modified, s.Delete(ctx, key)
}
