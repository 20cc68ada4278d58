package rsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/dogestry/dogestry/internal/storage"
)

// upload is an object that lies in a directory of the spool.
type upload struct {
	name string // below the module, and below the directory
	dir  string
}

// partialDir is where, beside the object that it is to be, the server keeps what has
// come of one whose transfer broke off. Its name begins with a dot: it is no key.
const partialDir = ".rsync-partial"

// Put implements storage.Store. What is put at the same time goes in one run; what is
// larger goes alone, and continues where an attempt before broke off.
func (s *Store) Put(ctx context.Context, key string, body io.Reader) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	dir, remove, err := s.spool.take()
	if err != nil {
		return err
	}
	defer remove()
	u := &upload{name: s.at(key), dir: dir}
	size, err := s.spool.write(ctx, filepath.Join(dir, filepath.FromSlash(u.name)), body)
	if err != nil {
		return fmt.Errorf("%s not written: %w", s.name(key), err)
	}
	put := s.putSmall
	if size > smallMost {
		put = s.putLarge
	}
	err = put(ctx, u)
	var f *failed
	if errors.As(err, &f) && f.inTheWay() && s.clear(ctx, key) {
		err = put(ctx, u)
	}
	return s.failure(ctx, err, "write", key)
}

func (s *Store) putSmall(ctx context.Context, u *upload) error {
	return s.again(ctx, func(alone bool) error {
		if err := storage.Allowed(ctx); err != nil {
			return fmt.Errorf("%s%s not written: %w", s.o.module(), u.name, err)
		}
		return s.puts.ask(ctx, u, alone)
	})
}

func (s *Store) putLarge(ctx context.Context, u *upload) error {
	done, err := s.one(ctx, up)
	if err != nil {
		return err
	}
	defer done()
	return s.again(ctx, func(bool) error {
		if err := storage.Allowed(ctx); err != nil {
			return fmt.Errorf("%s%s not written: %w", s.o.module(), u.name, err)
		}
		options := s.putOptions()
		if !s.noPartial.Load() {
			options = append(options, "--partial-dir="+partialDir)
		}
		// Without --whole-file: it builds on what is in partialDir.
		return s.run(ctx, run{way: up, local: u.dir, names: []string{u.name}, options: append(options, "--no-whole-file")})
	})
}

// putOptions are those of every upload. An object gets the server's time (no --times),
// also when it is written again as it was (--ignore-times).
func (s *Store) putOptions() []string {
	options := []string{"--ignore-times"}
	if !s.noSync.Load() {
		options = append(options, "--fsync")
	}
	return options
}

// putAll writes small objects. rsync writes each beside its name, and renames it.
func (s *Store) putAll(ctx context.Context, ask []*upload) error {
	dir, remove, err := s.spool.take()
	if err != nil {
		return err
	}
	defer remove()
	names := make([]string, len(ask))
	for i, u := range ask {
		names[i] = u.name
		if len(ask) == 1 {
			dir = u.dir
			break
		}
		if err := link(filepath.Join(u.dir, filepath.FromSlash(u.name)), filepath.Join(dir, filepath.FromSlash(u.name))); err != nil {
			return fmt.Errorf("%s: %w", u.name, err) // one key twice, or one below another: each alone
		}
	}
	return s.run(ctx, run{way: up, local: dir, names: names, options: append(s.putOptions(), "--whole-file")})
}

// Delete implements storage.Store. rsync is asked to delete just this name
// (--delete-missing-args), by a list in which nothing else is: a directory that is not
// empty stays. What is deleted at the same time goes in one run.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	err := s.again(ctx, func(alone bool) error {
		if err := storage.Allowed(ctx); err != nil {
			return fmt.Errorf("%s not deleted: %w", s.name(key), err)
		}
		return s.deletes.ask(ctx, s.at(key), alone)
	})
	return s.failure(ctx, err, "delete", key)
}

// deleteAll deletes what is under names, from a source that is empty: were there a
// directory in it, it could take the place of an object with its name.
func (s *Store) deleteAll(ctx context.Context, names []string) error {
	empty, remove, err := s.spool.take()
	if err != nil {
		return err
	}
	defer remove()
	err = s.run(ctx, run{way: up, local: empty, names: names, options: []string{"--delete-missing-args"}})
	var f *failed
	if errors.As(err, &f) && (f.code == codeVanished || f.code == codePartial && !f.says("failed")) { // directories above are not in the source, either
		return nil
	}
	return err
}
