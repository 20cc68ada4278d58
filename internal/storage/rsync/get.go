package rsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/dogestry/dogestry/internal/storage"
)

// Get implements storage.Store. rsync knows no ranges: what is not all of an object is
// errors.ErrUnsupported. The object is in the spool before this returns, and takes room
// there until the reader is closed.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := check(ctx, key); err != nil {
		return nil, err
	}
	if offset != 0 || length >= 0 {
		return nil, fmt.Errorf("%s: bytes from %d on, of %d: %w", key, offset, length, errors.ErrUnsupported)
	}
	dir, remove, err := s.spool.take()
	if err != nil {
		return nil, err
	}
	file, err := s.fetch(ctx, dir, key)
	if err != nil {
		remove()
		return nil, s.failure(ctx, err, "read", key)
	}
	return &reader{ctx: ctx, file: file, remove: remove}, nil
}

// fetch lets one object come to dir.
func (s *Store) fetch(ctx context.Context, dir, key string) (*os.File, error) {
	done, err := s.one(ctx, down)
	if err != nil {
		return nil, err
	}
	defer done()
	err = s.again(ctx, func(bool) error {
		// What came of it before the connection broke is what the next attempt builds on.
		var a announced
		err := s.run(ctx, run{
			way: down, local: dir, names: []string{s.at(key)}, line: a.line, most: a.most,
			options: []string{"--ignore-missing-args", "--ignore-times", "--partial", announce},
		})
		if err != nil && !onlyMissing(err) {
			return err
		}
		if !a.said.Load() { // it is gone: what came of it before is not all
			return s.spool.empty(dir)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	file, err := open(dir, s.at(key))
	if err == nil && file == nil {
		err = fmt.Errorf("%s: %w", s.name(key), storage.ErrNotFound)
	}
	return file, err
}

// reader is an object in the spool.
type reader struct {
	ctx    context.Context
	file   *os.File
	remove func()
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.file.Read(p)
}

func (r *reader) Close() error {
	err := r.file.Close()
	r.remove()
	return err
}

// smallRead is a question for the content of an object.
type smallRead struct {
	key  string
	most int64

	content []byte
	found   bool
	tooMuch bool
}

// ReadSmall implements storage.SmallReader. What is read at the same time comes in one run.
func (s *Store) ReadSmall(ctx context.Context, key string, most int64) ([]byte, error) {
	if err := check(ctx, key); err != nil {
		return nil, err
	}
	var r *smallRead
	err := s.again(ctx, func(alone bool) error {
		r = &smallRead{key: key, most: most}
		return s.reads.ask(ctx, r, alone)
	})
	switch {
	case err != nil:
		return nil, s.failure(ctx, err, "read", key)
	case r.tooMuch:
		return nil, fmt.Errorf("%s: %w: more than %d bytes", s.name(key), storage.ErrTooLarge, most)
	case !r.found:
		return nil, fmt.Errorf("%s: %w", s.name(key), storage.ErrNotFound)
	}
	return r.content, nil
}

// readAll answers questions for contents. Objects that are larger than all who ask want
// do not come; rsync says so.
func (s *Store) readAll(ctx context.Context, ask []*smallRead) error {
	dir, remove, err := s.spool.take()
	if err != nil {
		return err
	}
	defer remove()
	most := int64(0)
	names := make([]string, len(ask))
	for i, r := range ask {
		names[i] = s.at(r.key)
		most = max(most, r.most)
	}
	larger := map[string]bool{}
	err = s.run(ctx, run{
		way: down, local: dir, names: names,
		most:    func() int64 { return min(most, math.MaxInt64/together) * int64(len(ask)) },
		options: []string{"--ignore-missing-args", "--ignore-times", "--whole-file", "--max-size=" + strconv.FormatInt(most, 10) + "b", "--info=skip1"},
		line: func(line string) error {
			if name, ok := strings.CutSuffix(line, " is over max-size"); ok {
				larger[unescape(name)] = true
			}
			return nil
		},
	})
	if err != nil && !onlyMissing(err) {
		return err
	}
	for _, r := range ask {
		if r.tooMuch = larger[s.at(r.key)]; r.tooMuch {
			continue
		}
		file, err := open(dir, s.at(r.key))
		if err != nil {
			return err
		}
		if file == nil {
			continue
		}
		r.content, err = io.ReadAll(io.LimitReader(file, r.most+1))
		_ = file.Close()
		if err != nil {
			return spoolFailure(s.spool.place, err)
		}
		r.found, r.tooMuch = true, int64(len(r.content)) > r.most
	}
	return nil
}
