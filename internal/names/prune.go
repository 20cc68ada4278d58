package names

import (
	"context"
	"slices"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/retention"
)

// Fate is what becomes of a tag that Prune has looked at.
type Fate string

// The fates.
const (
	Kept    Fate = "kept"    // by a rule
	Goes    Fate = "goes"    // no rule keeps it; nothing was done yet
	Removed Fate = "removed" // no rule keeps it
	Stays   Fate = "stays"   // no rule kept it, and it was written anew, or removed, meanwhile
	Failed  Fate = "failed"  // no rule keeps it, and it could not be removed
)

// Pruned is a tag that Prune has looked at.
type Pruned struct {
	Reference image.Reference
	Written   time.Time
	KeptBy    []string // the rules that keep it
	Fate      Fate
	ID        image.ID // of one that was to go: what it names
	Err       error    // why it failed
}

// PruneOptions say what Prune is to do.
type PruneOptions struct {
	Name         string // the remote as the user named it
	Rules        retention.Rules
	Repositories []string // all where there are none
	DryRun       bool     // nothing is removed: tags that would be have the fate Goes
}

// Prune removes the tags that no rule keeps. Rules count for each repository by
// itself, and go by when a tag was written, by the remote's clock. It returns all
// tags of the repositories, in order: by repository, the newest first. Its error is
// that nothing could be looked at, or a NotFound fault for a repository without
// tags; removals that fail are told in their rows. Names are kept in memory.
//
// What goes is judged twice: by a list before the tags are read, and by another one
// after it. So a tag that is written at any moment meanwhile stays: it has another
// time in the second list, or names another image than what was read.
func Prune(ctx context.Context, from remote.Source, o PruneOptions) ([]Pruned, error) {
	rows, versions, err := judge(ctx, from, o)
	if err != nil {
		return nil, err
	}
	for _, repository := range o.Repositories {
		if !slices.ContainsFunc(rows, func(p Pruned) bool { return p.Reference.Repository == repository }) {
			return nil, fault.New(fault.NotFound, "no repository %s in %s", repository, o.Name).Advise("See `dogestry list %s`.", o.Name)
		}
	}
	if o.DryRun {
		return rows, nil
	}
	return rows, o.remove(ctx, from, rows, versions)
}

// remove removes the rows that go, and says in each what became of it.
func (o PruneOptions) remove(ctx context.Context, from remote.Source, rows []Pruned, versions map[image.Reference]string) error {
	var refs []image.Reference
	for _, p := range rows {
		if p.Fate == Goes {
			refs = append(refs, p.Reference)
		}
	}
	if len(refs) == 0 {
		return nil
	}
	named, err := resolve(ctx, from, refs, func(image.Reference) bool { return false })
	if err != nil {
		return err
	}
	again, newVersions, err := judge(ctx, from, o)
	if err != nil {
		return err
	}
	later := make(map[image.Reference]Pruned, len(again))
	for _, p := range again {
		later[p.Reference] = p
	}
	row := make(map[image.Reference]*Pruned, len(rows))
	for i := range rows {
		p := &rows[i]
		if p.Fate != Goes {
			continue
		}
		row[p.Reference] = p
		p.Fate = Stays
	}
	named = slices.DeleteFunc(named, func(n Named) bool {
		before, after := row[n.Reference], later[n.Reference]
		return after.Fate != Goes || !after.Written.Equal(before.Written) || newVersions[n.Reference] != versions[n.Reference]
	})
	for i, err := range Remove(ctx, from, named) {
		p := row[named[i].Reference]
		switch p.ID = named[i].ID; {
		case err == nil:
			p.Fate = Removed
		case fault.Is(err, fault.Refused) && movedSince(ctx, from, named[i]):
			// Somebody was quicker: the tag is new.
		default:
			p.Fate, p.Err = Failed, err
		}
	}
	return nil
}

// movedSince reports whether a tag names something else than it did.
func movedSince(ctx context.Context, from remote.Source, tag Named) bool {
	id, err := from.Resolve(ctx, tag.Reference)
	return err == nil && id != tag.ID
}

// judge lists the tags and lets the rules decide. Versions are those of the tags.
func judge(ctx context.Context, from remote.Source, o PruneOptions) (rows []Pruned, versions map[image.Reference]string, err error) {
	versions = map[image.Reference]string{}
	repositories := slices.Compact(slices.Sorted(slices.Values(o.Repositories)))
	if len(repositories) == 0 {
		repositories = []string{""}
	}
	for _, repository := range repositories {
		for tag, err := range from.References(ctx, repository) {
			if err != nil {
				return nil, nil, err
			}
			if tag.Modified.IsZero() && o.Rules.ByTime() {
				return nil, nil, fault.New(fault.Refused, "%s does not tell when its tags were written", o.Name).
					Advise("Only --keep PATTERN can be used there.")
			}
			rows = append(rows, Pruned{Reference: tag.Reference, Written: tag.Modified})
			versions[tag.Reference] = tag.Version
		}
	}
	slices.SortFunc(rows, func(a, b Pruned) int {
		if a.Reference.Repository == b.Reference.Repository && !a.Written.Equal(b.Written) {
			return b.Written.Compare(a.Written)
		}
		return a.Reference.Compare(b.Reference)
	})
	for start := 0; start < len(rows); {
		end := start
		var tags []retention.Tag
		for ; end < len(rows) && rows[end].Reference.Repository == rows[start].Reference.Repository; end++ {
			tags = append(tags, retention.Tag{Name: rows[end].Reference.Tag, Written: rows[end].Written})
		}
		for i, by := range o.Rules.Keep(tags) {
			rows[start+i].KeptBy, rows[start+i].Fate = by, Kept
			if len(by) == 0 {
				rows[start+i].Fate = Goes
			}
		}
		start = end
	}
	return rows, versions, ctx.Err()
}
