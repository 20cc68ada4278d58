package catalog

import (
	"context"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Space is how much of a remote something takes, in bytes as stored. It is that
// of layers: documents, tags and markers, some kilobytes an image, do not count.
type Space struct {
	Own    int64 `json:"own"`    // what nothing else uses
	Shared int64 `json:"shared"` // what something else uses too
	Total  int64 `json:"total"`  // both
}

// Usage is what the tags of a remote take.
type Usage struct {
	Repositories []RepositoryUsage `json:"repositories"` // in order of their names
	Tags         int               `json:"tagCount"`
	Damaged      int               `json:"damaged"` // of them; what they take is not known, and not counted
	Space                          // of all; own is what one tag alone uses
}

// RepositoryUsage is what the tags of a repository take. What several of them
// share, and no other repository, is its own.
type RepositoryUsage struct {
	Repository string `json:"repository"`
	Space
	Tags []TagUsage `json:"tags"`
}

// TagUsage is what a tag takes: another tag of the same image shares all of it.
type TagUsage struct {
	Tag string   `json:"tag"`
	ID  image.ID `json:"id"`
	Space
	Damage string `json:"damage,omitempty"`
}

// user says by whom an object is used.
type user struct {
	stored     int64
	tags       int
	repository string // the one that does; "" where there are several
}

// Usage returns what the tags of a remote take, and share. Damage of one image is
// told in its row. A layer counts once wherever it is used: also one that images
// know by its diffID, and others by the digest of its compressed form. It asks as
// much of the remote as List.
func (c *Catalog) Usage(ctx context.Context) (*Usage, error) {
	rows, layers, err := c.list(ctx, "")
	if err != nil {
		return nil, err
	}
	users := map[string]*user{} // by the object that holds a layer
	for _, row := range rows {
		for object, stored := range objects(row, layers) {
			u := users[object]
			if u == nil {
				u = &user{stored: stored, repository: row.Reference.Repository}
				users[object] = u
			} else if u.repository != row.Reference.Repository {
				u.repository = ""
			}
			u.tags++
		}
	}
	all := &Usage{Repositories: []RepositoryUsage{}, Tags: len(rows)}
	for _, u := range users {
		all.add(u.stored, u.tags == 1)
	}
	for start := 0; start < len(rows); {
		r := RepositoryUsage{Repository: rows[start].Reference.Repository}
		counted := map[string]bool{}
		for ; start < len(rows) && rows[start].Reference.Repository == r.Repository; start++ {
			row := rows[start]
			t := TagUsage{Tag: row.Reference.Tag, ID: row.ID, Damage: row.Damage}
			if t.Damage != "" {
				all.Damaged++
			}
			for object := range objects(row, layers) {
				u := users[object]
				t.add(u.stored, u.tags == 1)
				if !counted[object] {
					counted[object] = true
					r.add(u.stored, u.repository == r.Repository)
				}
			}
			r.Tags = append(r.Tags, t)
		}
		all.Repositories = append(all.Repositories, r)
	}
	return all, nil
}

func (s *Space) add(stored int64, own bool) {
	s.Total += stored
	if own {
		s.Own += stored
	} else {
		s.Shared += stored
	}
}

// objects returns what holds the layers of an image, and how large that is. Of one
// that is damaged it is not known.
func objects(row Image, layers map[image.Digest]remote.Layer) map[string]int64 {
	stored := make(map[string]int64, len(row.layers))
	if row.Damage != "" {
		return stored
	}
	for _, d := range row.layers {
		l := layers[d]
		name := l.Object
		if name == "" { // a remote that does not say where it lies
			name = d.String()
		}
		stored[name] = l.Stored
	}
	return stored
}
