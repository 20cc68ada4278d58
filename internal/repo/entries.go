package repo

import (
	"context"
	"iter"
	"strings"

	"github.com/dogestry/dogestry/internal/remote"
)

var _ remote.Lister = (*Repo)(nil)

// Entries lists images/. Keys that readers have to ignore are in no entry: those
// with an element that begins with a dot, those that end in a slash, and what is
// named by no id.
func (r *Repo) Entries(ctx context.Context) iter.Seq2[remote.Entry, error] {
	return func(yield func(remote.Entry, error) bool) {
		var e remote.Entry // the one that is being listed, if it has objects
		for info, err := range r.store.List(ctx, imagesPrefix) {
			if err != nil {
				yield(remote.Entry{}, r.failure(err, "cannot list %s", r.name))
				return
			}
			id, name, ok := parseEntryKey(info.Key)
			if !ok || ignored(name) {
				continue
			}
			if e.Objects > 0 && e.ID != id {
				if !yield(e, nil) {
					return
				}
				e = remote.Entry{}
			}
			e.ID = id
			e.Objects++
			e.Bytes += info.Size
			if info.Modified.After(e.Modified) {
				e.Modified = info.Modified
			}
			if len(e.Files) < remote.MaxEntryFiles {
				e.Files = append(e.Files, name)
			}
		}
		if e.Objects > 0 {
			yield(e, nil)
		}
	}
}

// ignored reports whether readers ignore a key because of a name in it.
func ignored(name string) bool {
	for element := range strings.SplitSeq(name, "/") {
		if element == "" || element[0] == '.' {
			return true
		}
	}
	return false
}
