package rsync

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dogestry/dogestry/internal/storage"
)

// lookup is a question for what is known of one object.
type lookup struct {
	key   string
	info  storage.Info
	found bool
}

// Stat implements storage.Store. What is asked at the same time goes in one run. Times are whole seconds.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	if err := check(ctx, key); err != nil {
		return storage.Info{}, err
	}
	var l *lookup
	err := s.again(ctx, func(alone bool) error {
		l = &lookup{key: key}
		return s.stats.ask(ctx, l, alone)
	})
	if err == nil && !l.found {
		return storage.Info{}, fmt.Errorf("%s: %w", s.name(key), storage.ErrNotFound)
	}
	return l.info, s.failure(ctx, err, "look for", key)
}

func (s *Store) statAll(ctx context.Context, ask []*lookup) error {
	names := make([]string, len(ask))
	for i, l := range ask {
		names[i] = s.at(l.key)
	}
	found := map[string]storage.Info{}
	err := s.look(ctx, names, nil, func(e entry) {
		if !e.directory {
			found[e.info.Key] = e.info
		}
	})
	if err != nil {
		return err
	}
	for _, l := range ask {
		l.info, l.found = found[l.key]
	}
	return nil
}

// listing is a question for what is below a directory.
type listing struct {
	prefix string // empty, or ending with a slash
	infos  []storage.Info
}

// List implements storage.Store. All of it is there before the first is yielded, some
// 200 bytes a key. What is listed at the same time goes in one run.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		infos, err := s.list(ctx, prefix)
		if err == nil {
			err = ctx.Err()
		}
		for i := 0; i < len(infos) && err == nil; i++ {
			if !yield(infos[i], nil) {
				return
			}
			err = ctx.Err()
		}
		if err != nil {
			yield(storage.Info{}, s.failure(ctx, err, "list", strings.TrimSuffix(prefix, "/")))
		}
	}
}

func (s *Store) list(ctx context.Context, prefix string) ([]storage.Info, error) {
	slash := strings.LastIndexByte(prefix, '/') + 1
	directory, rest := prefix[:slash], prefix[slash:]
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if directory != "" && storage.ValidKey(directory[:slash-1]) != nil || rest != "" && storage.ValidKey(rest) != nil {
		return nil, nil // no key begins so
	}
	var l *listing
	err := s.again(ctx, func(alone bool) error {
		l = &listing{prefix: directory}
		if rest == "" {
			return s.lists.ask(ctx, l, alone)
		}
		return s.listPart(ctx, l, rest)
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(l.infos, func(a, b storage.Info) int { return strings.Compare(a.Key, b.Key) })
	return slices.CompactFunc(l.infos, func(a, b storage.Info) bool { return a.Key == b.Key }), nil
}

func (s *Store) listAll(ctx context.Context, ask []*listing) error {
	names := make([]string, len(ask))
	by := map[string][]*listing{}
	for i, l := range ask {
		names[i] = s.at(l.prefix)
		l.infos = nil
		by[l.prefix] = append(by[l.prefix], l)
	}
	return s.look(ctx, names, []string{"--recursive"}, func(e entry) {
		if e.directory {
			return
		}
		// A key is in the listing of each directory above it that is asked for.
		for end := 0; end >= 0; {
			for _, l := range by[e.info.Key[:end]] {
				l.infos = append(l.infos, e.info)
			}
			next := strings.IndexByte(e.info.Key[end:], '/')
			if next < 0 {
				return
			}
			end += next + 1
		}
	})
}

// listPart lists what begins with rest in a directory, and nothing beside it.
func (s *Store) listPart(ctx context.Context, l *listing, rest string) error {
	dir, remove, err := s.spool.take()
	if err != nil {
		return err
	}
	defer remove()
	above := "/" + quote(s.at(l.prefix))
	options := []string{"--recursive"}
	for _, rule := range [][2]string{{"include", above + quote(rest) + "*"}, {"exclude", above + "*"}} {
		file := filepath.Join(dir, rule[0])
		if err := os.WriteFile(file, []byte(rule[1]+"\x00"), 0o600); err != nil {
			return spoolFailure(s.spool.place, err)
		}
		options = append(options, "--"+rule[0]+"-from="+file)
	}
	l.infos = nil
	return s.look(ctx, []string{s.at(l.prefix)}, options, func(e entry) {
		if !e.directory && strings.HasPrefix(e.info.Key, l.prefix+rest) {
			l.infos = append(l.infos, e.info)
		}
	})
}

// quote writes a text as rsync's patterns have it.
func quote(text string) string {
	var b bytes.Buffer
	for i := range len(text) {
		if strings.IndexByte(`\*?[`, text[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(text[i])
	}
	return b.String()
}
