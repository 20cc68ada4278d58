// Package names gives images that a remote holds other names, and takes names
// away: one by one, by patterns, and by age. It moves no bytes of images, and deletes
// none: those that nothing names any more are garbage collection's.
package names

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// atOnce bounds how many tags are read, or removed, at once. It is for remotes
// far away, where a request takes 20 to 40 ms and nothing of the machine.
const atOnce = 64

// Pattern stands for tags: for one by its name, or for all whose repository and
// tag match, each by itself, as path.Match has it: * and ? and [a-z] match no "/".
type Pattern struct {
	plain image.Reference // of one tag; zero for a pattern

	repository, tag string
}

// ParsePattern reads a name as image.ParseReference does, without a digest, or
// "repository:tag" with * ? [a-z] in it. A pattern has to say which tags it means.
func ParsePattern(s string) (Pattern, error) {
	ref, err := image.ParseReference(s)
	switch {
	case err == nil && !ref.Digest.IsZero():
		return Pattern{}, fmt.Errorf("%s is an image by its digest, which no tag is", s)
	case err == nil:
		return Pattern{plain: ref}, nil
	case !strings.ContainsAny(s, `*?[\`):
		return Pattern{}, err
	}
	p := Pattern{repository: s}
	if colon := strings.LastIndexByte(s, ':'); colon > strings.LastIndexByte(s, '/') {
		p.repository, p.tag = s[:colon], s[colon+1:]
	}
	if p.repository == "" || p.tag == "" {
		return Pattern{}, fmt.Errorf("%q does not say which tags: %s:* stands for all", s, strings.TrimSuffix(s, ":"))
	}
	for _, part := range []string{p.repository, p.tag} {
		if _, err := path.Match(part, ""); err != nil {
			return Pattern{}, fmt.Errorf("%q is no pattern: a [ without its ], or a \\ at the end", s)
		}
	}
	return p, nil
}

// Plain reports whether p stands for one tag by its name.
func (p Pattern) Plain() bool { return p.plain.Tag != "" }

// Match reports whether p stands for ref.
func (p Pattern) Match(ref image.Reference) bool {
	if p.Plain() {
		return ref == p.plain
	}
	repository, err1 := path.Match(p.repository, ref.Repository)
	tag, err2 := path.Match(p.tag, ref.Tag)
	return repository && tag && err1 == nil && err2 == nil
}

func (p Pattern) String() string {
	if p.Plain() {
		return p.plain.String()
	}
	return p.repository + ":" + p.tag
}

// Named is a tag and what it names.
type Named struct {
	Reference image.Reference `json:"reference"`
	ID        image.ID        `json:"id"`               // empty where the tag is damaged
	Damage    string          `json:"damage,omitempty"` // why it names nothing
}

// Find returns the tags that patterns stand for, each once, in order. Its error is
// a NotFound fault for the first pattern that stands for none. Name is the remote as
// the user named it. It reads those tags, and keeps their names in memory.
func Find(ctx context.Context, from remote.Source, name string, patterns []Pattern) ([]Named, error) {
	var refs []image.Reference
	matched := make([]bool, len(patterns))
	for i, p := range patterns {
		if p.Plain() {
			refs, matched[i] = append(refs, p.plain), true
		}
	}
	for _, repository := range listed(patterns) {
		for tag, err := range from.References(ctx, repository) {
			if err != nil {
				return nil, err
			}
			for i, p := range patterns {
				if !p.Plain() && p.Match(tag.Reference) {
					refs, matched[i] = append(refs, tag.Reference), true
				}
			}
		}
	}
	if i := slices.Index(matched, false); i >= 0 {
		return nil, fault.New(fault.NotFound, "no tag in %s matches %s", name, patterns[i]).
			Advise("* matches within one part of a name, and no /. See `dogestry list %s`.", name)
	}
	slices.SortFunc(refs, image.Reference.Compare)
	refs = slices.Compact(refs)
	found, err := resolve(ctx, from, refs, func(ref image.Reference) bool {
		return slices.ContainsFunc(patterns, func(p Pattern) bool { return p.plain == ref })
	})
	if err == nil && len(found) == 0 && len(patterns) > 0 {
		err = fault.New(fault.NotFound, "what matched %s in %s is gone by now", patterns[0], name)
	}
	return found, err
}

// listed returns the repositories of which patterns have to see all tags, "" alone for
// all of them: some remotes list those of a repository and not their repositories.
func listed(patterns []Pattern) []string {
	var all []string
	for _, p := range patterns {
		switch {
		case p.Plain():
		case strings.ContainsAny(p.repository, `*?[\`):
			return []string{""}
		default:
			all = append(all, p.repository)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// resolve reads tags, several at once. One that is damaged names nothing. One
// that is gone is left out, or is the error where must says so.
func resolve(ctx context.Context, from remote.Source, refs []image.Reference, must func(image.Reference) bool) ([]Named, error) {
	found := make([]Named, len(refs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, ref := range refs {
		g.Go(func() error {
			id, err := from.Resolve(gctx, ref)
			switch {
			case fault.Is(err, fault.NotFound) && !must(ref):
				return gctx.Err()
			case fault.Is(err, fault.Damaged):
				found[i] = Named{Reference: ref, Damage: err.Error()}
				return nil
			}
			found[i] = Named{Reference: ref, ID: id}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(n Named) bool { return n.Reference.Tag == "" }), ctx.Err()
}

// Remove takes tags away, several at once, each while it names what it did when it
// was found. It returns an error for each, nil where the tag is gone; a tag that
// was not tried because ctx ended has that of ctx.
func Remove(ctx context.Context, from remote.Source, tags []Named) []error {
	errs := make([]error, len(tags))
	untagger, ok := from.(remote.Untagger)
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, tag := range tags {
		if !ok {
			errs[i] = fault.Wrap(fault.Refused, errors.ErrUnsupported, "cannot remove %s: tags cannot be removed from this kind of remote", tag.Reference)
			continue
		}
		g.Go(func() error {
			if errs[i] = ctx.Err(); errs[i] == nil {
				errs[i] = untagger.Untag(ctx, tag.Reference, tag.ID)
			}
			return nil
		})
	}
	_ = g.Wait() // each error is kept
	return errs
}
