package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/names"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/retention"
)

func (a *app) pruneCommand() *cobra.Command {
	var within string
	var yes, dryRun, untagged bool
	o := names.PruneOptions{}
	c := &cobra.Command{
		Use:   "prune [flags] REMOTE [REPOSITORY]...",
		Short: "Remove old tags, by rules that say which are kept",
		Long: `Remove the tags that no rule keeps, of the repositories named or of all. Each
repository is looked at by itself. Layers stay.

The age of a tag is that of its object in the remote: when it was written there,
by the remote's clock. In a copy of a remote, tags are as old as the copy.
--keep-within counts back from the newest tag of the repository, so one to which nobody
pushes keeps what it has. Tags that were written at the same instant are
equally new: --keep-last keeps them all, or none.

With --untagged tags stay, and what goes are manifests that were pushed through
` + "`dogestry serve`" + ` and that no tag of their repository needs any more: they would
stay for ever. --keep-within keeps those that came lately.

Without --yes nothing is removed: what would go is shown. Then "dogestry gc" frees
what nothing needs.`,
		Example: `  dogestry prune /srv/images --keep-last 10 --keep 'v*'
  dogestry prune s3://bucket/images --keep-within 30d myapp team/worker --yes
  dogestry prune s3://bucket/images --untagged --keep-within 1w`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if c.Flags().Changed("keep-last") && o.Rules.Last <= 0 {
				return fault.New(fault.Usage, "--keep-last %d keeps no tag", o.Rules.Last).Advise("Leave it out, or say how many.")
			}
			if c.Flags().Changed("keep-within") {
				if o.Rules.Within, err = retention.ParsePeriod(within); err != nil {
					return fault.New(fault.Usage, "--keep-within %s", err)
				}
			}
			if err := o.Rules.Check(); err != nil {
				return fault.New(fault.Usage, "--%s", err)
			}
			if untagged && (o.Rules.Last > 0 || len(o.Rules.Names) > 0) {
				return fault.New(fault.Usage, "--untagged leaves tags alone, and --keep-last and --keep are rules for tags").
					Advise("Remove tags first, then what they leave. --keep-within PERIOD counts for manifests, too.")
			}
			if o.Rules.Empty() && !untagged {
				return fault.New(fault.Usage, "no rule says which tags are kept: all would go").
					Advise("Say --keep-last N, --keep-within PERIOD or --keep PATTERN. `dogestry rm` removes tags by their names.")
			}
			if yes && dryRun {
				return fault.New(fault.Usage, "--yes and --dry-run contradict each other")
			}
			for _, arg := range args[1:] {
				repository, err := image.ParseRepository(arg)
				if err != nil {
					return fault.New(fault.Usage, "%s", err)
				}
				o.Repositories = append(o.Repositories, repository)
			}
			o.Name, o.DryRun = args[0], !yes
			if untagged {
				return a.pruneUntagged(c.Context(), names.UntaggedOptions{Name: o.Name, Within: o.Rules.Within, Repositories: o.Repositories, DryRun: o.DryRun})
			}
			return a.prune(c.Context(), o)
		},
	}
	c.Flags().IntVar(&o.Rules.Last, "keep-last", 0, "keep the newest `N` tags of each repository")
	c.Flags().StringVar(&within, "keep-within", "", "keep tags written within this `PERIOD` before the newest: 12h, 30d, 2w, 1w3d12h")
	c.Flags().StringArrayVar(&o.Rules.Names, "keep", nil, "keep tags that match this `PATTERN`, such as 'v*'; may be given again")
	c.Flags().BoolVar(&untagged, "untagged", false, "remove manifests that no tag needs, and no tags")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "remove what no rule keeps")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be removed, and remove nothing: so it is without --yes")
	return c
}

func (a *app) prune(ctx context.Context, o names.PruneOptions) error {
	rows, err := pruning(ctx, a, o.Name, func(from *repo.Repo) ([]names.Pruned, error) { return names.Prune(ctx, from, o) })
	if err != nil {
		return err
	}
	return a.printPruned(o, rows)
}

// pruning opens a remote to remove something in it, and says so while that goes on.
func pruning[T any](ctx context.Context, a *app, name string, prune func(from *repo.Repo) (T, error)) (rows T, err error) {
	if err := checkRemote(name); err != nil {
		return rows, err
	}
	display, hide := a.show()
	defer hide()
	display.Status("reading " + name)
	from, err := a.openRemote(ctx, name, toChange, codec.LZ4)
	if err != nil {
		return rows, err
	}
	return prune(from)
}
