package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/names"
)

func (a *app) rmCommand() *cobra.Command {
	var yes, dryRun bool
	c := &cobra.Command{
		Use:   "rm [flags] REMOTE IMAGE[:TAG|@DIGEST]...",
		Short: "Remove tags from a remote",
		Long: `Remove tags from a remote. Layers and documents stay: other images may need them.

IMAGE@sha256:… takes a manifest out of its repository, which keeps what was pushed
through "dogestry serve", tagged or not. One that a tag needs stays.

IMAGE may be a pattern: * stands for any characters within one part of a name, ?
for one, [a-z] for one of these. They match no "/", so myapp:* is every tag of myapp,
and team/*:old-* the old ones of all that lies in team. What a pattern matches is
shown, and asked about, unless --yes is given.

A tag that somebody moves meanwhile stays.`,
		Example: `  dogestry rm /srv/images myapp:20131210
  dogestry rm ./images 'myapp:2013*' --dry-run
  dogestry rm s3://bucket/images 'team/*:pr-*' --yes`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkRemote(args[0]); err != nil {
				return err
			}
			var patterns []names.Pattern
			var members []image.Reference
			for _, arg := range args[1:] {
				if ref, err := image.ParseReference(arg); err == nil && !ref.Digest.IsZero() && ref.Tag == "" {
					members = append(members, ref)
					continue
				}
				p, err := names.ParsePattern(arg)
				if err != nil {
					return fault.New(fault.Usage, "%s", err).
						Advise("Name tags: repository:tag, or a pattern such as 'myapp:2013*'. `dogestry list %s` shows which tag names which image.", args[0])
				}
				patterns = append(patterns, p)
			}
			return a.rm(c.Context(), args[0], patterns, members, yes, dryRun)
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask before removing what a pattern matches")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be removed, and remove nothing")
	return c
}

func (a *app) rm(ctx context.Context, name string, patterns []names.Pattern, members []image.Reference, yes, dryRun bool) error {
	first := slices.IndexFunc(patterns, func(p names.Pattern) bool { return !p.Plain() })
	ask := first >= 0 && !yes && !dryRun
	if ask && !a.canAsk() {
		return fault.New(fault.Usage, "%s is a pattern, and nobody is at a terminal to say whether what it matches may go", patterns[first]).
			Advise("Look at it with --dry-run, then remove it with --yes.")
	}
	display, hide := a.show()
	defer hide()
	display.Status("reading " + name)
	from, err := a.openImages(ctx, name, toChange, "")
	if err != nil {
		return err
	}
	found, err := names.Find(ctx, from, name, patterns)
	if err != nil {
		return err
	}
	r := removal{Remote: name, Tags: found, DryRun: dryRun}
	if r.Members, err = names.FindMembers(ctx, from, name, members); err != nil {
		return err
	}
	if ask {
		hide()
		for _, t := range found {
			fmt.Fprintln(a.errOut, "  "+tagLine(t))
		}
		if ok, err := a.confirm(ctx, fmt.Sprintf("remove %s from %s?", count(len(found), "tag"), name)); err != nil || !ok {
			return orElse(err, fault.New(fault.Other, "nothing was removed"))
		}
		display, hide = a.show()
		defer hide()
	}
	r.errs = make([]error, len(r.Tags)+len(r.Members))
	if dryRun {
		copy(r.errs[len(r.Tags):], names.WouldRemoveMembers(ctx, from, r.Members, r.Tags))
	} else {
		display.Status("removing tags from " + name)
		r.errs = append(names.Remove(ctx, from, r.Tags), names.RemoveMembers(ctx, from, r.Members)...)
	}
	hide()
	return a.printRemoval(r)
}

// orElse returns err, and other where that is nil.
func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}
