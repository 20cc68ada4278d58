package names

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/retention"
)

// Belonging is a remote in which manifests belong to repositories, tagged or not.
type Belonging interface {
	remote.Source
	remote.Memberships
	remote.Members
}

// Member is a manifest of a repository that PruneUntagged has looked at.
type Member struct {
	Repository string
	Manifest   image.Digest
	Written    time.Time // since when it belongs to it, by the remote's clock
	KeptBy     []string  // what needs it, and the rules that keep it
	Fate       Fate
	Err        error // why it failed
}

// UntaggedOptions say what PruneUntagged is to do.
type UntaggedOptions struct {
	Name         string        // the remote as the user named it
	Within       time.Duration // as that of retention.Rules, which counts tags and manifests alike; 0 is no rule
	Repositories []string      // all where there are none
	DryRun       bool          // nothing is removed: manifests that would be have the fate Goes
}

// PruneUntagged takes manifests out of their repositories which belong to them and
// are of no use to a tag of them: none names the manifest, nor an index that names
// it, and no index that is kept does. What refers to something is not looked at: it
// lives as long as that. It returns all others, in order: by repository, the
// youngest first. Its error is that nothing could be looked at; what a tag needs
// and cannot be read is one, since nobody knows what that needs. Names are kept in memory.
//
// What goes is judged twice, with the removal right behind: what is tagged meanwhile stays.
func PruneUntagged(ctx context.Context, from Belonging, o UntaggedOptions) ([]Member, error) {
	rows, err := o.judge(ctx, from)
	if err != nil || o.DryRun || !slices.ContainsFunc(rows, Member.goes) {
		return rows, err
	}
	again, err := o.judge(ctx, from)
	if err != nil {
		return rows, err
	}
	still := map[memberKey]time.Time{}
	for _, m := range again {
		if m.goes() {
			still[m.key()] = m.Written
		}
	}
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i := range rows {
		m := &rows[i]
		if !m.goes() {
			continue
		}
		if written, ok := still[m.key()]; !ok || !written.Equal(m.Written) {
			m.Fate = Stays
			continue
		}
		g.Go(func() error {
			m.Fate = Removed
			if m.Err = ctx.Err(); m.Err == nil {
				m.Err = from.Remove(ctx, m.Repository, m.Manifest)
			}
			if m.Err != nil {
				m.Fate = Failed
			}
			return nil
		})
	}
	_ = g.Wait() // each error is kept
	return rows, nil
}

func (m Member) goes() bool { return m.Fate == Goes }

type memberKey struct {
	repository string
	manifest   image.Digest
}

func (m Member) key() memberKey { return memberKey{m.Repository, m.Manifest} }

// judge lists the manifests, and then the tags: what is tagged in between is seen.
func (o UntaggedOptions) judge(ctx context.Context, from Belonging) (rows []Member, err error) {
	repositories := slices.Compact(slices.Sorted(slices.Values(o.Repositories)))
	if len(repositories) == 0 {
		repositories = []string{""}
	}
	for _, repository := range repositories {
		for m, err := range from.Members(ctx, repository) {
			if err != nil {
				return nil, err
			}
			if !m.Subject.IsZero() {
				continue
			}
			if m.Modified.IsZero() && o.Within > 0 {
				return nil, fault.New(fault.Refused, "%s does not tell when its manifests were written", o.Name).
					Advise("Leave --keep-within out, or remove them by their digests: dogestry rm %s REPOSITORY@sha256:…", o.Name)
			}
			rows = append(rows, Member{Repository: m.Repository, Manifest: m.Manifest, Written: m.Modified})
		}
	}
	slices.SortFunc(rows, func(a, b Member) int {
		if a.Repository != b.Repository {
			return image.Reference{Repository: a.Repository}.Compare(image.Reference{Repository: b.Repository})
		}
		if !a.Written.Equal(b.Written) {
			return b.Written.Compare(a.Written)
		}
		return slices.Compare(a.Manifest[:], b.Manifest[:])
	})
	for start := 0; start < len(rows); {
		end := start + 1
		for end < len(rows) && rows[end].Repository == rows[start].Repository {
			end++
		}
		if err := o.keep(ctx, from, rows[start:end]); err != nil {
			return nil, err
		}
		start = end
	}
	return rows, ctx.Err()
}

// keep says of the manifests of one repository what keeps them.
func (o UntaggedOptions) keep(ctx context.Context, from Belonging, rows []Member) error {
	repository := rows[0].Repository
	var refs []image.Reference
	times := make([]retention.Tag, 0, len(rows)) // of the manifests, and then of the tags
	for _, m := range rows {
		times = append(times, retention.Tag{Written: m.Written})
	}
	for tag, err := range from.References(ctx, repository) {
		if err != nil {
			return err
		}
		refs = append(refs, tag.Reference)
		times = append(times, retention.Tag{Written: tag.Modified})
	}
	needed, err := neededBy(ctx, from, refs)
	if err != nil {
		return err
	}
	rules := retention.Rules{Within: o.Within}.Keep(times)
	parts := map[image.Digest]image.Digest{} // of indexes that a rule alone keeps
	for i, m := range rows {
		if len(rules[i]) == 0 || needed[m.Manifest] != "" {
			continue
		}
		children, err := manifestsOf(ctx, from, image.Reference{Repository: repository, Digest: m.Manifest}, m.Manifest)
		if err != nil {
			return err
		}
		for _, id := range children {
			parts[id] = m.Manifest
		}
	}
	for i := range rows {
		m := &rows[i]
		if tag := needed[m.Manifest]; tag != "" {
			m.KeptBy = append(m.KeptBy, "tag "+tag)
		}
		m.KeptBy = append(m.KeptBy, rules[i]...)
		if index, ok := parts[m.Manifest]; ok && index != m.Manifest {
			m.KeptBy = append(m.KeptBy, "index "+index.Short())
		}
		if m.Fate = Kept; len(m.KeptBy) == 0 {
			m.Fate = Goes
		}
	}
	return nil
}

// neededBy returns the manifests that tags need, and for each a tag that does.
func neededBy(ctx context.Context, from remote.Source, refs []image.Reference) (map[image.Digest]string, error) {
	named, err := resolve(ctx, from, refs, func(image.Reference) bool { return false })
	if err != nil {
		return nil, err
	}
	byID := map[image.ID]image.Reference{}
	for _, n := range slices.Backward(named) { // so the first name counts
		if !n.ID.IsZero() { // else it is damaged, and names nothing
			byID[n.ID] = n.Reference
		}
	}
	var mu sync.Mutex
	needed := map[image.Digest]string{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for id, ref := range byID {
		g.Go(func() error {
			all, err := manifestsOf(gctx, from, ref, id)
			mu.Lock()
			defer mu.Unlock()
			for _, m := range all {
				if needed[m] == "" || ref.Tag < needed[m] {
					needed[m] = ref.Tag
				}
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return needed, ctx.Err()
}

// manifestsOf returns the manifests and indexes that an image has: itself, those that
// an index names, and that which follows from a config.
func manifestsOf(ctx context.Context, from remote.Source, ref image.Reference, id image.ID) ([]image.Digest, error) {
	all := []image.Digest{id}
	doc, err := from.Document(ctx, id)
	if err != nil {
		if o, ok := from.(remote.Originals); ok && fault.Is(err, fault.Damaged) {
			if _, failed := o.Original(ctx, id); failed == nil {
				return nil, nil // of format 1.0, which has no manifests
			}
		}
		return nil, unreadable(ref, err)
	}
	kind, err := image.KindOf(doc)
	switch {
	case err != nil:
		return nil, unreadable(ref, fault.Wrap(fault.Damaged, err, "%s is no image", id.Short()))
	case kind == image.ConfigKind:
		manifest, err := remote.ManifestOf(ctx, from, id)
		if err != nil {
			return nil, unreadable(ref, err)
		}
		all = append(all, image.DigestOf(manifest))
	case kind == image.IndexKind:
		index, err := image.ParseIndex(doc)
		if err != nil {
			return nil, unreadable(ref, fault.Wrap(fault.Damaged, err, "%s is no index", id.Short()))
		}
		for _, child := range index.Manifests {
			all = append(all, child.Digest)
		}
	}
	return all, nil
}

// unreadable says of what is needed that nobody knows what it needs.
func unreadable(ref image.Reference, err error) error {
	if fault.Interrupted(err) {
		return err
	}
	return fault.Wrap(fault.KindOf(err), err, "nobody knows which manifests %s needs", ref).
		Advise("Nothing was removed. See `dogestry verify`; push the image again, or remove it.")
}
