package ssh

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/pkg/sftp"
)

// Directories come with the first object in them and go with the last one. A Put may
// find that one which it just made is gone; it makes it again, so often at most.
const retries = 100

// temporary makes an empty file beside where key is to be, and the directories above it.
func (s *Store) temporary(ctx context.Context, c *session, key string) (file *sftp.File, name string, err error) {
	dir, base := path.Split(s.path(key))
	for range retries {
		name = dir + temporaryName(base)
		err = c.do(ctx, func() (err error) {
			file, err = c.client.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
			return err
		})
		if err == nil {
			if err = s.foldsNot(ctx, c, name); err != nil {
				s.afterwards(func() { _ = file.Close() })
				s.abandon(ctx, c, name, key)
			}
			return file, name, err
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, "", err
		}
		if err := s.makeDirectory(ctx, c, path.Dir(s.path(key))); err != nil {
			return nil, "", err
		}
	}
	return nil, "", err
}

// foldsNot looks, once, whether the file system tells a temporary file's name from the
// same in capitals. Where it does not, keys could meet that are two.
func (s *Store) foldsNot(ctx context.Context, c *session, temporary string) error {
	if s.cased.Load() {
		return nil
	}
	dir, base := path.Split(temporary)
	switch _, err := s.lstat(ctx, c, dir+strings.TrimSuffix(base, temporarySuffix)+strings.ToUpper(temporarySuffix)); {
	case err == nil:
		return errFolds
	case !absent(err):
		return err
	}
	s.cased.Store(true)
	return nil
}

// makeDirectory makes a directory and those above it that are missing, their names durable.
// Directories that others make at the same time are as good.
func (s *Store) makeDirectory(ctx context.Context, c *session, name string) error {
	if name == path.Clean(s.o.Dir) {
		return fs.ErrNotExist // somebody has removed it: a typo must not bring it back
	}
	for range retries {
		err := c.do(ctx, func() error { return c.client.Mkdir(name) })
		switch {
		case err == nil:
			s.syncDirectory(ctx, c, path.Dir(name))
			return nil
		case errors.Is(err, fs.ErrNotExist):
			if err := s.makeDirectory(ctx, c, path.Dir(name)); err != nil {
				return err
			}
			continue
		case !isAnswer(err):
			return err
		}
		switch fi, look := s.lstat(ctx, c, name); {
		case look == nil && fi.IsDir():
			return nil
		case look == nil:
			return errInTheWay
		case !absent(look):
			return look
		case !isCode(err, codeFailure):
			return err // of permission, say
		case s.reason(ctx, c, err) != err:
			return err
		}
		// It has come and gone meanwhile.
	}
	return errInTheWay
}

// syncDirectory asks for the names in a directory to be made durable. Servers that do
// not open directories as files have no way to ask.
func (s *Store) syncDirectory(ctx context.Context, c *session, name string) {
	if _, can := c.client.HasExtension("fsync@openssh.com"); !can {
		return
	}
	_ = c.do(ctx, func() error {
		d, err := c.client.Open(name)
		if err != nil {
			return err
		}
		err = d.Sync()
		s.afterwards(func() { _ = d.Close() })
		return err
	})
}

// vacate removes a directory where no object is below it, so that an object can take its
// place: keys know nothing of empty directories. It reports whether it did.
func (s *Store) vacate(ctx context.Context, c *session, name string) bool {
	entries, err := s.read(ctx, c, name)
	if err != nil {
		return absent(err)
	}
	for _, entry := range entries {
		if !entry.IsDir() || !s.vacate(ctx, c, path.Join(name, entry.Name())) {
			return false
		}
	}
	err = c.do(ctx, func() error { return c.client.RemoveDirectory(name) })
	return err == nil || absent(err)
}

// prune removes the directories above key as long as they hold nothing, and makes
// durable what is left.
func (s *Store) prune(ctx context.Context, c *session, key string) {
	dir := path.Dir(key)
	for ; dir != "."; dir = path.Dir(dir) {
		err := c.do(ctx, func() error { return c.client.RemoveDirectory(s.path(dir)) })
		if err != nil && !absent(err) {
			break
		}
	}
	if dir == "." {
		dir = ""
	}
	s.syncDirectory(ctx, c, s.path(dir))
}

// read returns what is in a directory, in no order.
func (s *Store) read(ctx context.Context, c *session, name string) (entries []fs.FileInfo, err error) {
	err = c.do(ctx, func() (err error) {
		entries, err = c.client.ReadDirContext(ctx, name)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	})
	return entries, err
}
