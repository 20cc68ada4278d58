// Package ssh is a directory behind ssh as a storage.Store: one file per object, as in
// package file. The system's ssh program carries the connection, so its configuration,
// agent, known hosts and jump hosts count; the far side needs sshd with its sftp subsystem
// (draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL for its extensions).
//
// An object appears by a rename of a file that is complete, so nobody sees half of one.
// While it is written it lies beside its place as .<name>.<16 hex digits>.part, which
// package file leaves alone. What a killed process leaves is removed by Sweep.
package ssh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pkg/sftp"

	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/throttle"
)

// Store is a directory behind ssh. It implements storage.Store, Creator and Sweeper, safe
// for concurrent use, also by other processes, there and elsewhere. It cannot compare and
// swap: the protocol has no locks.
//
// An object's time is that of its file's content, in whole seconds. Whoever opens it calls Close.
type Store struct {
	o         Options
	limits    throttle.Limits
	pool      pool
	contacted atomic.Bool    // somebody has answered
	cased     atomic.Bool    // the file system was found to tell upper from lower case
	later     sync.WaitGroup // requests for whose answers nobody waits
}

var (
	_ storage.Store   = (*Store)(nil)
	_ storage.Creator = (*Store)(nil)
	_ storage.Sweeper = (*Store)(nil)
)

// Open connects, and opens a directory that is there. Its error wraps
// storage.ErrNotFound where there is none; that of a connection is a fault with its advice.
func Open(ctx context.Context, o Options) (*Store, error) {
	return open(ctx, o, func(s *Store, c *session) error { return s.look(ctx, c) })
}

// Create is Open that makes the directory, unless it is there, but not its parents.
func Create(ctx context.Context, o Options) (*Store, error) {
	return open(ctx, o, func(s *Store, c *session) error {
		err := s.look(ctx, c)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		err = c.do(ctx, func() error { return c.client.Mkdir(o.Dir) })
		if err == nil {
			s.syncDirectory(ctx, c, path.Dir(o.Dir))
			return nil
		}
		if s.look(ctx, c) == nil { // somebody else was quicker
			return nil
		}
		return err
	})
}

func open(ctx context.Context, o Options, find func(*Store, *session) error) (*Store, error) {
	if err := o.Seal.Program(program); err != nil {
		return nil, err
	}
	s := &Store{o: o, limits: throttle.New(o.UploadLimit, o.DownloadLimit), pool: pool{most: connections}}
	err := s.try(ctx, func(c *session) error { return find(s, c) })
	if err == nil {
		return s, nil
	}
	err = s.failed(ctx, "", err)
	return nil, errors.Join(err, s.Close())
}

// look returns nil where the directory is one.
func (s *Store) look(ctx context.Context, c *session) error {
	var fi fs.FileInfo
	err := c.do(ctx, func() (err error) {
		fi, err = c.client.Stat(s.o.Dir)
		return err
	})
	if err == nil && !fi.IsDir() {
		return errors.New("it is no directory")
	}
	return err
}

// Close ends the connections. Calls that run fail then. It waits some seconds for a server
// that says nothing.
func (s *Store) Close() error {
	answered := make(chan struct{})
	go func() {
		s.later.Wait()
		close(answered)
	}()
	silent := false
	select {
	case <-answered:
	case <-time.After(patience):
		silent = true
	}
	s.pool.mu.Lock()
	live := s.pool.live
	s.pool.live = nil
	s.pool.mu.Unlock()
	for _, c := range live {
		if silent {
			c.fail()
			c.process.kill()
		}
	}
	<-answered
	var all sync.WaitGroup
	for _, c := range live {
		all.Go(c.close)
	}
	all.Wait()
	return nil
}

// afterwards makes requests for whose answers nobody waits.
func (s *Store) afterwards(requests func()) { s.later.Go(requests) }

// path is where key lies there.
func (s *Store) path(key string) string { return path.Join(s.o.Dir, key) }

// name is an object as a user would name it, for messages.
func (s *Store) name(key string) string {
	if key == "" {
		return s.o.url()
	}
	return s.o.url() + "/" + key
}

// Stat implements storage.Store.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	if err := storage.ValidKey(key); err != nil {
		return storage.Info{}, err
	}
	var fi fs.FileInfo
	err := s.try(ctx, func(c *session) (err error) {
		fi, err = s.lstat(ctx, c, s.path(key))
		return err
	})
	if err == nil && !fi.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return storage.Info{}, s.failed(ctx, key, err)
	}
	return info(key, fi), nil
}

func (s *Store) lstat(ctx context.Context, c *session, name string) (fi fs.FileInfo, err error) {
	err = c.do(ctx, func() (err error) {
		fi, err = c.client.Lstat(name)
		return err
	})
	return fi, err
}

func info(key string, fi fs.FileInfo) storage.Info {
	return storage.Info{Key: key, Size: fi.Size(), Modified: fi.ModTime()}
}

// Delete implements storage.Store. Directories that held nothing else go too.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := storage.ValidKey(key); err != nil {
		return err
	}
	err := s.try(ctx, func(c *session) error {
		if err := storage.Allowed(ctx); err != nil {
			return &refused{err}
		}
		err := c.do(ctx, func() error { return c.client.Remove(s.path(key)) })
		if err == nil || absent(err) {
			if err == nil {
				s.prune(ctx, c, key)
			}
			return nil
		}
		if fi, look := s.lstat(ctx, c, s.path(key)); look == nil && fi.IsDir() || absent(look) {
			return nil // no object, or not any more
		}
		return s.reason(ctx, c, err)
	})
	var not *refused
	if errors.As(err, &not) {
		return s.unwritten(key, not.cause)
	}
	return s.failed(ctx, key, err)
}

// refused is the error of a guard.
type refused struct{ cause error }

func (r *refused) Error() string { return fmt.Sprint(r.cause) }

// reason finds out why a change failed of which the server says no more than that.
func (s *Store) reason(ctx context.Context, c *session, err error) error {
	if !isCode(err, codeFailure) {
		return err
	}
	if _, known := c.client.HasExtension("statvfs@openssh.com"); !known {
		return err
	}
	const readOnly = 1 // PROTOCOL, SSH_FXE_STATVFS_ST_RDONLY
	var vfs *sftp.StatVFS
	asked := c.do(ctx, func() (err error) {
		vfs, err = c.client.StatVFS(s.o.Dir)
		return err
	})
	switch {
	case asked != nil:
		return err
	case vfs.Flag&readOnly != 0:
		return errReadOnly
	case vfs.Bavail*vfs.Frsize < pieceSize || vfs.Files > 0 && vfs.Favail == 0:
		return errFull
	}
	return err
}
