package verify

import (
	"context"
	"errors"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// members learns which manifests belong to repositories, tagged or not, and which
// refer to others, of all repositories. A referrer is proved whether or not its
// subject lives.
func (r *run) members(ctx context.Context) error {
	return r.eachMember(ctx, func(ref image.Reference) {
		m := r.images[ref.Digest]
		if m == nil {
			m = &img{id: ref.Digest}
			r.images[m.id] = m
			r.order = append(r.order, m)
		}
		m.members = append(m.members, ref)
	})
}

// eachMember lists memberships as references by digest, of a remote that has such things.
func (r *run) eachMember(ctx context.Context, tell func(image.Reference)) error {
	from, ok := r.from.(remote.Members)
	if !ok {
		return ctx.Err()
	}
	for m, err := range from.Members(ctx, "") {
		if errors.Is(err, errors.ErrUnsupported) {
			break
		}
		if err != nil {
			return err
		}
		tell(image.Reference{Repository: m.Repository, Digest: m.Manifest})
	}
	return ctx.Err()
}

// names are what a person calls the image: its tags, else the repositories that it
// belongs to, by its digest.
func (m *img) names() []image.Reference {
	if len(m.tags) > 0 {
		return m.tags
	}
	return m.members
}

// belong returns which of the images belong to a repository now.
func (r *run) belong(ctx context.Context) (map[image.ID]bool, error) {
	now := map[image.ID]bool{}
	err := r.eachMember(ctx, func(ref image.Reference) { now[ref.Digest] = true })
	return now, err
}
