package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
)

// List implements storage.Store where the server lists directories as JSON. It holds the
// names of one directory in memory for each level, of 64 MiB of lists at most. Elsewhere
// its error wraps errors.ErrUnsupported.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		directory, start := "", prefix
		if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
			directory, start = prefix[:i], prefix[i+1:]
			if storage.ValidKey(directory) != nil {
				return // nothing can be there
			}
		}
		if err := s.canList(ctx); err != nil {
			yield(storage.Info{}, err)
			return
		}
		s.walk(ctx, directory, start, s.mostListed, yield)
	}
}

// canList asks the server once whether it gives lists, for a directory that is there: an
// answer of 404 says nothing otherwise.
func (s *Store) canList(ctx context.Context) error {
	s.listing.Lock()
	defer s.listing.Unlock()
	if s.lists == nil {
		_, _, err := s.directory(ctx, "", s.mostListed)
		var not *unlisted
		var answer *status
		can := err == nil
		switch {
		case errors.As(err, &answer) && answer.code != http.StatusUnauthorized: // of a directory that is not to be listed
		case err != nil && !errors.As(err, &not):
			return s.failure(ctx, "", err)
		}
		s.lists = &can
	}
	if !*s.lists {
		return fault.Wrap(fault.Refused, errors.ErrUnsupported, "%s does not list what is there", s.o.url()).
			Advise("Images can be pulled, inspected and verified by their names. A list needs a server that gives one as JSON, " +
				"such as nginx with `autoindex on; autoindex_format json;` or Caddy with `file_server browse`; see docs/web.md.")
	}
	return nil
}

// walk yields what is in a directory and begins with start, and all below. It reports
// whether to go on. Its list and those of directories below may have most bytes together.
func (s *Store) walk(ctx context.Context, directory, start string, most int, yield func(storage.Info, error) bool) bool {
	entries, size, err := s.directory(ctx, directory, most)
	var answer *status
	if errors.As(err, &answer) && answer.code == http.StatusNotFound {
		return true
	}
	if err != nil {
		yield(storage.Info{}, s.failure(ctx, directory, err))
		return false
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			yield(storage.Info{}, fmt.Errorf("%s: %w", s.name(directory), err))
			return false
		}
		key := path.Join(directory, e.name)
		switch {
		case !strings.HasPrefix(e.name, start):
		case e.directory:
			if !s.walk(ctx, key, "", most-size, yield) {
				return false
			}
		case !yield(storage.Info{Key: key, Size: e.size, Modified: e.modified}, nil):
			return false
		}
	}
	return true
}

// entry is a name in a directory.
type entry struct {
	name      string
	directory bool
	size      int64
	modified  time.Time
}

// unlisted says that an answer is no list.
type unlisted struct{ why string }

func (e *unlisted) Error() string { return "the server gives no list: " + e.why }

// maxListing bounds the lists of a directory and of those above it, in bytes.
const maxListing = 64 << 20

// directory asks for what is in one, in the order of keys, and says how long the list is.
func (s *Store) directory(ctx context.Context, key string, most int) (entries []entry, size int, err error) {
	if key != "" {
		key += "/"
	}
	ctx, cancel := context.WithCancelCause(ctx)
	answer, err := s.ask(ctx, http.MethodGet, s.at(key), http.Header{"Accept": {"application/json"}})
	if err != nil {
		cancel(nil)
		return nil, 0, err
	}
	body := &stalls{answer.Body, cancel, ctx, s.o.Stall}
	defer body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, 0, &status{answer.StatusCode}
	}
	if kind, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, 0, &unlisted{fmt.Sprintf("it is %.60q", answer.Header.Get("Content-Type"))}
	}
	b, err := io.ReadAll(io.LimitReader(body, int64(most)+1))
	if err != nil {
		return nil, 0, err
	}
	if len(b) > most {
		return nil, 0, &unlisted{"it is too long"}
	}
	entries, err = parseListing(b, strings.TrimSuffix(key, "/"))
	return entries, len(b), err
}

// parseListing reads the list that nginx (ngx_http_autoindex_module, format json) and Caddy
// (file_server browse, Accept: application/json) give of a directory. What can be no object, and
// holds none, is left out.
func parseListing(b []byte, directory string) ([]entry, error) {
	var listed []struct {
		Name string `json:"name"`
		Size int64  `json:"size"`

		Type  string `json:"type"`  // nginx: file, directory or other
		MTime string `json:"mtime"` // nginx: as Last-Modified

		IsDir   *bool     `json:"is_dir"`     // Caddy
		Mod     time.Time `json:"mod_time"`   // Caddy
		Symlink bool      `json:"is_symlink"` // Caddy
	}
	if err := json.Unmarshal(b, &listed); err != nil {
		return nil, &unlisted{"its JSON is another"}
	}
	entries := make([]entry, 0, len(listed))
	for _, l := range listed {
		e := entry{name: strings.TrimSuffix(l.Name, "/"), size: l.Size, modified: l.Mod}
		switch {
		case l.IsDir != nil:
			e.directory = *l.IsDir
		case l.Type == "directory":
			e.directory = true
		case l.Type != "file" && l.Type != "other":
			return nil, &unlisted{"its JSON is another"}
		}
		if t, err := http.ParseTime(l.MTime); err == nil {
			e.modified = t
		}
		e.modified = e.modified.Truncate(time.Second) // as Last-Modified has it
		if l.Type == "other" || e.size < 0 || strings.Contains(e.name, "/") || storage.ValidKey(path.Join(directory, e.name)) != nil || e.name == "" {
			continue
		}
		entries = append(entries, e)
	}
	order := func(e entry) string {
		if e.directory {
			return e.name + "/" // "a-b" comes before "a/b"
		}
		return e.name
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(order(a), order(b)) })
	return slices.CompactFunc(entries, func(a, b entry) bool { return order(a) == order(b) }), nil
}
