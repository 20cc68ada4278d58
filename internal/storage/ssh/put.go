package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
)

// Names of temporary files: a dot, the object's name, 16 hex digits. Package file has
// others, whose locks say whether their writer lives; these it takes for another program's.
const (
	temporarySuffix = ".part"
	randomDigits    = 16
	maxStem         = 255 - len(".") - len(".") - randomDigits - len(temporarySuffix)
)

func temporaryName(name string) string {
	return fmt.Sprintf(".%s.%0*x%s", name[:min(len(name), maxStem)], randomDigits, rand.Uint64(), temporarySuffix)
}

// isTemporary reports whether name is one that temporaryName makes.
func isTemporary(name string) bool {
	stem, ok := strings.CutSuffix(name, temporarySuffix)
	if !ok || len(stem) < len("..")+randomDigits || stem[0] != '.' || stem[len(stem)-randomDigits-1] != '.' {
		return false
	}
	return strings.Trim(stem[len(stem)-randomDigits:], "0123456789abcdef") == ""
}

// Put implements storage.Store. Durable means that the server was asked to write the file
// and its name to its disk, where it has fsync@openssh.com. A body of up to 256 KiB is
// sent again where the connection breaks. It holds 2 MiB and a little.
func (s *Store) Put(ctx context.Context, key string, body io.Reader) error {
	return s.write(ctx, key, body, false)
}

// Create implements storage.Creator, by a hard link. Its error wraps
// errors.ErrUnsupported where the server has none.
func (s *Store) Create(ctx context.Context, key string, body io.Reader) error {
	return s.write(ctx, key, body, true)
}

func (s *Store) write(ctx context.Context, key string, body io.Reader, create bool) error {
	if err := storage.ValidKey(key); err != nil {
		return err
	}
	first := make([]byte, pieceSize)
	n, bodyErr := storage.ReadFull(ctx, body, first)
	if bodyErr != nil && bodyErr != io.EOF {
		return s.unwritten(key, bodyErr)
	}
	u := &upload{store: s, key: key, first: first[:n], create: create}
	var err error
	if bodyErr == io.EOF {
		err = s.try(ctx, u.attempt(ctx))
	} else {
		u.rest = body
		c, release, connectErr := s.session(ctx, true)
		if err = connectErr; err == nil {
			err = u.attempt(ctx)(c)
			release()
		}
	}
	var not *refused
	switch {
	case u.bodyErr != nil:
		return s.unwritten(key, u.bodyErr)
	case ctx.Err() != nil:
		return s.unwritten(key, storage.Ended(ctx, nil))
	case errors.As(err, &not):
		return s.unwritten(key, not.cause)
	}
	return s.failed(ctx, key, err)
}

// upload is an object on its way.
type upload struct {
	store  *Store
	key    string
	first  []byte
	rest   io.Reader // nil where first is all
	create bool      // where no object is, only

	bodyErr error // why rest, or the context, ended before its end
	linked  bool  // the request that creates was sent
}

// attempt returns what writes the object on a connection, and leaves nothing else there.
func (u *upload) attempt(ctx context.Context) func(*session) error {
	return func(c *session) (err error) {
		s := u.store
		if u.linked { // and the answer was lost: another try could find itself
			return fault.New(fault.Other, "%s: the connection broke before the last answer: the object may be there now", s.name(u.key)).
				Advise("Run the same command again.")
		}
		if err := u.possible(ctx, c); err != nil {
			return err
		}
		file, temporary, err := s.temporary(ctx, c, u.key)
		if err != nil {
			return s.reason(ctx, c, err)
		}
		defer func() {
			if err != nil {
				s.abandon(ctx, c, temporary, u.key)
			}
		}()
		err = u.fill(ctx, c, file)
		if err == nil && u.bodyErr == nil {
			err = s.settle(ctx, c, file)
		}
		closed := c.do(ctx, file.Close)
		if err == nil && u.bodyErr == nil {
			err = closed
		}
		switch {
		case u.bodyErr != nil:
			return u.bodyErr
		case err != nil:
			return s.reason(ctx, c, err)
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if err := storage.Allowed(ctx); err != nil {
			return &refused{err}
		}
		if err := u.publish(ctx, c, temporary); err != nil {
			return s.reason(ctx, c, err)
		}
		s.syncDirectory(ctx, c, path.Dir(s.path(u.key)))
		return nil
	}
}

// possible finds out early what cannot work.
func (u *upload) possible(ctx context.Context, c *session) error {
	if _, can := c.client.HasExtension("posix-rename@openssh.com"); !can {
		return errNoReplace
	}
	if !u.create {
		return nil
	}
	if _, can := c.client.HasExtension("hardlink@openssh.com"); !can {
		return errNoLink
	}
	fi, err := u.store.lstat(ctx, c, u.store.path(u.key))
	switch {
	case err == nil && !fi.IsDir():
		return errTaken
	case err == nil, absent(err):
		return nil
	}
	return err
}

// publish gives the temporary file its name: in place of whatever object has it now, or only
// where none has.
func (u *upload) publish(ctx context.Context, c *session, temporary string) error {
	s, name := u.store, u.store.path(u.key)
	for range retries {
		err := c.do(ctx, func() error {
			if u.create {
				u.linked = true
				return c.client.Link(temporary, name)
			}
			return c.client.PosixRename(temporary, name)
		})
		if err == nil && u.create {
			err = c.do(ctx, func() error { return c.client.Remove(temporary) })
		}
		if err == nil || !isAnswer(err) {
			return err
		}
		u.linked = false
		fi, look := s.lstat(ctx, c, name)
		switch {
		case look == nil && fi.IsDir():
			if !s.vacate(ctx, c, name) {
				return errInTheWay
			}
		case look == nil && u.create:
			return errTaken
		case look != nil && !absent(look):
			return look
		case !absent(look) || !u.create: // else what was in the way has gone since
			return err
		}
	}
	return errInTheWay
}

// fill sends the body, several pieces at once, and sets bodyErr where that fails.
func (u *upload) fill(ctx context.Context, c *session, file *sftp.File) error {
	if u.rest == nil {
		if len(u.first) == 0 {
			return nil
		}
		return c.do(ctx, func() error { return ignoreCount(file.WriteAt(u.first, 0)) })
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(ahead)
	buffers := sync.Pool{New: func() any { b := make([]byte, pieceSize); return &b }}
	var at int64
	send := func(buffer *[]byte, n int) {
		from := at
		at += int64(n)
		group.Go(func() error {
			defer buffers.Put(buffer)
			// Not gctx: one that fails ends no connection.
			return c.do(ctx, func() error { return ignoreCount(file.WriteAt((*buffer)[:n], from)) })
		})
	}
	send(&u.first, len(u.first))
	for gctx.Err() == nil {
		buffer := buffers.Get().(*[]byte)
		n, err := storage.ReadFull(ctx, u.rest, *buffer)
		if err != nil && err != io.EOF {
			u.bodyErr = err
			break
		}
		if n > 0 {
			send(buffer, n)
		}
		if err == io.EOF {
			break
		}
	}
	err := group.Wait()
	if err == nil && u.bodyErr == nil {
		err = ctx.Err()
	}
	return err
}

func ignoreCount(_ int, err error) error { return err }

// settle makes the bytes of a file durable, where the server can.
func (s *Store) settle(ctx context.Context, c *session, file *sftp.File) error {
	if _, can := c.client.HasExtension("fsync@openssh.com"); !can {
		return nil
	}
	return c.do(ctx, file.Sync)
}

// cleanupTime is for removing a temporary file, also after the context has ended.
const cleanupTime = 10 * time.Second

// abandon removes a temporary file, on another connection where this one broke.
func (s *Store) abandon(ctx context.Context, c *session, temporary, key string) {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	remove := func(c *session) error {
		err := c.do(late, func() error { return c.client.Remove(temporary) })
		if err == nil {
			s.prune(late, c, key)
		}
		return err
	}
	err := error(&lost{session: c})
	if c.works() {
		err = remove(c)
	}
	if errors.As(err, new(*lost)) {
		var release func()
		if c, release, err = s.session(late, false); err == nil {
			err = remove(c)
			release()
		}
	}
	if err != nil && !absent(err) {
		s.o.notify("a temporary file stays in " + s.o.url() + ": dogestry check --sweep removes it once it is old")
		s.o.log().Debug("a temporary file stays", "path", temporary, "error", err)
	}
}
