package rsync

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
)

// entry is a line of a listing.
type entry struct {
	info      storage.Info // the key of a directory has no slash at its end
	directory bool
	hidden    bool // a name in it begins with a dot: it is no key
}

// look lists names, without what is no key.
func (s *Store) look(ctx context.Context, names, options []string, each func(entry)) error {
	return s.lookAll(ctx, names, options, func(e entry) {
		if !e.hidden {
			each(e)
		}
	})
}

// lookAll lists names, of what is below the prefix. Names that are not there are no error.
func (s *Store) lookAll(ctx context.Context, names, options []string, each func(entry)) error {
	for i := range names {
		if names[i] == "" {
			names[i] = "/" // all of the module
		}
	}
	below := ""
	if s.o.Prefix != "" {
		below = s.o.Prefix + "/"
	}
	err := s.run(ctx, run{
		way: look, names: names, options: append([]string{"--list-only", "--ignore-missing-args"}, options...),
		line: func(line string) error {
			e, ok, err := parseLine(line)
			if err != nil || !ok {
				return err
			}
			var under bool
			if e.info.Key, under = strings.CutPrefix(e.info.Key, below); !under {
				return nil
			}
			e.hidden = storage.ValidKey(e.info.Key) != nil
			each(e)
			return nil
		},
	})
	if onlyMissing(err) {
		return nil
	}
	return err
}

// parseLine reads a line of --list-only: rights, size, date, time and name, of which
// only the name may have spaces. It reports false for what is neither file nor directory.
func parseLine(line string) (e entry, ok bool, err error) {
	rights, rest, _ := strings.Cut(line, " ")
	size, rest, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
	const clock = "2006/01/02 15:04:05"
	if len(rights) < 10 || len(rest) < len(clock)+2 || rest[len(clock)] != ' ' {
		return e, false, nil // not of the listing
	}
	if rights[0] != '-' && rights[0] != 'd' {
		return e, false, nil
	}
	e.directory = rights[0] == 'd'
	n, sizeErr := strconv.ParseInt(strings.ReplaceAll(size, ",", ""), 10, 64)
	modified, timeErr := time.Parse(clock, rest[:len(clock)])
	if sizeErr != nil || timeErr != nil || n < 0 {
		return e, false, fmt.Errorf("rsync's listing has a line that makes no sense: %.200q", line)
	}
	e.info = storage.Info{Key: unescape(rest[len(clock)+1:]), Size: n, Modified: modified}
	return e, true, nil
}

// unescape turns \#ooo into the byte that it stands for, as rsync writes those that
// cannot be printed, and a backslash that looks like the beginning of one.
func unescape(name string) string {
	if !strings.Contains(name, `\#`) {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if strings.HasPrefix(name[i:], `\#`) && len(name) >= i+5 {
			if n, err := strconv.ParseUint(name[i+2:i+5], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 4
				continue
			}
		}
		b.WriteByte(name[i])
	}
	return b.String()
}
