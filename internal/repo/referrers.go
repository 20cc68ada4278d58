package repo

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/image"
)

// referrer is an object below referrers/.
type referrer struct {
	id    image.Digest
	key   string
	young bool // just written: its subject may be on its way
}

// referrers marks what refers to what lives, and what that needs. What refers to
// something that is spared, or is too young to go, is spared too: a tag may come to
// name that without a word of its referrers. So is what was just said to refer to
// something, however old it is itself. A referrer may be another one's
// subject; each is followed once, whatever names what.
func (m *reach) referrers(ctx context.Context) error {
	of := map[image.Digest][]referrer{}
	for info, err := range m.repo.store.List(ctx, referrersPrefix) {
		if err != nil {
			return m.repo.failure(err, "cannot list %s", m.repo.name)
		}
		if subject, id, ok := parseReferrer(info.Key); ok {
			of[subject] = append(of[subject], referrer{id, info.Key, m.young != nil && m.young(info.Modified)})
		}
	}
	for {
		live, kept := m.living(of)
		if len(live)+len(kept) == 0 {
			return ctx.Err()
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(lookups)
		for _, r := range live {
			g.Go(func() error { return m.neededByMember(m.follow(gctx, r.id), r.key) })
		}
		for _, r := range kept {
			g.Go(func() error { return m.spare(gctx, r.id) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
}

// living takes those out of a map of subjects that are to be marked now, and returns
// those that are to be spared and are not.
func (m *reach) living(of map[image.Digest][]referrer) (live, kept []referrer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for subject, list := range of {
		if m.marked[subject] {
			live = append(live, list...)
			delete(of, subject)
			continue
		}
		stays := m.spared[subject] || m.stays != nil && m.stays(subject)
		for _, r := range list {
			if (stays || r.young) && !m.spared[r.id] {
				kept = append(kept, r)
			}
		}
	}
	return live, kept
}
