package ssh

import (
	"context"
	"errors"
	"path"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
)

// Sweep implements storage.Sweeper: it removes the temporary files of this package whose
// content is older than age, by the clock there, and the directories that are empty then.
// A running write changes its file all the time, but cannot be told from a dead one:
// age has to be longer than a write may pause.
func (s *Store) Sweep(ctx context.Context, prefix string, age time.Duration) (removed int, err error) {
	now, err := s.clock(ctx)
	if err != nil {
		return 0, s.failed(ctx, "", err)
	}
	err = s.try(ctx, func(c *session) error {
		n, err := s.sweep(ctx, c, "", prefix, now.Add(-age))
		removed += n
		return err
	})
	return removed, s.failed(ctx, "", err)
}

// clock asks what time it is there, by a file.
func (s *Store) clock(ctx context.Context) (now time.Time, err error) {
	err = s.try(ctx, func(c *session) error {
		file, name, err := s.temporary(ctx, c, "clock")
		if err != nil {
			return s.reason(ctx, c, err)
		}
		defer s.abandon(ctx, c, name, "clock")
		return errors.Join(c.do(ctx, func() error {
			fi, err := file.Stat()
			if err == nil {
				now = fi.ModTime()
			}
			return err
		}), c.do(ctx, file.Close))
	})
	return now, err
}

// sweep sweeps in and below directory what belongs to keys that begin with prefix.
func (s *Store) sweep(ctx context.Context, c *session, directory, prefix string, before time.Time) (removed int, err error) {
	entries, err := s.read(ctx, c, s.path(directory))
	if absent(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for _, fi := range entries {
		name := fi.Name()
		key := path.Join(directory, strings.TrimPrefix(name, "."))
		switch {
		case fi.IsDir() && storage.ValidKey(key) == nil && name[0] != '.':
			if !strings.HasPrefix(key+"/", prefix) && !strings.HasPrefix(prefix, key+"/") {
				continue
			}
			n, err := s.sweep(ctx, c, key, prefix, before)
			removed += n
			if err != nil {
				return removed, err
			}
			if n > 0 {
				s.prune(ctx, c, path.Join(key, "x")) // only what is empty
			}
		case fi.Mode().IsRegular() && isTemporary(name) && strings.HasPrefix(key, prefix) && !fi.ModTime().After(before):
			err := c.do(ctx, func() error { return c.client.Remove(s.path(path.Join(directory, name))) })
			if err == nil {
				removed++
			} else if !isAnswer(err) {
				return removed, err
			} // what may not be removed stays
		}
	}
	return removed, nil
}
