package cli

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// completionTime is how long a shell waits for names of images that it could complete.
const completionTime = 2 * time.Second

// completeArgs gives commands what shells complete: names of remotes, and of what is in
// them. A shell completes names of files where the two have nothing.
func (a *app) completeArgs(c *cobra.Command) {
	places := remoteArgs(c)
	if f := c.Flags().Lookup("engine"); f != nil {
		err := c.RegisterFlagCompletionFunc("engine", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			set, err := a.configuration()
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var groups []string
			for name := range set.Engines {
				groups = append(groups, name)
			}
			slices.Sort(groups)
			return groups, cobra.ShellCompDirectiveNoFileComp
		})
		if err != nil {
			panic(err) // it is there
		}
	}
	if len(places) == 0 || c.ValidArgsFunction != nil {
		return
	}
	c.ValidArgsFunction = func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		switch {
		case slices.Contains(places, len(args)):
			names, _ := a.completeNames(c, args, begun)
			return names, cobra.ShellCompDirectiveDefault
		case c.Name() == "push" || c.Name() == "import" || len(args) < 1: // images of the engine, and files
			return nil, cobra.ShellCompDirectiveDefault
		}
		return a.completeImages(c, args), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeNames is what a shell is told of the names of remotes.
func (a *app) completeNames(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	set, err := a.configuration()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, name := range set.Names() {
		names = append(names, name+"\t"+set.Remotes[name].URL.Value)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeImages returns what images of the remote are called that the first argument
// names; nothing where that takes too long.
func (a *app) completeImages(c *cobra.Command, args []string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), completionTime)
	defer cancel()
	a.errOut, a.quiet, a.completing = io.Discard, true, true
	args = slices.Clone(args)
	if a.prepare(c, args) != nil || checkRemote(args[0]) != nil {
		return nil
	}
	in, err := a.openImages(ctx, args[0], toRead, "")
	if err != nil {
		return nil
	}
	words := argWords(c)
	repositories := words[min(len(args), len(words)-1)] == "REPOSITORY"
	var names []string
	for tag, err := range in.References(ctx, "") {
		if err != nil {
			break
		}
		if repositories {
			names = append(names, tag.Reference.Repository)
		} else {
			names = append(names, tag.Reference.String())
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
