package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/names"
	"github.com/dogestry/dogestry/internal/retention"
)

func (a *app) pruneCommand() *cobra.Command {
	var within string
	var yes, dryRun bool
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

Without --yes nothing is removed: what would go is shown.`,
		Example: `  dogestry prune /srv/images --keep-last 10 --keep 'v*'
  dogestry prune s3://bucket/images --keep-within 30d myapp team/worker --yes`,
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
			if o.Rules.Empty() {
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
			return a.prune(c.Context(), o)
		},
	}
	c.Flags().IntVar(&o.Rules.Last, "keep-last", 0, "keep the newest `N` tags of each repository")
	c.Flags().StringVar(&within, "keep-within", "", "keep tags written within this `PERIOD` before the newest: 12h, 30d, 2w, 1w3d12h")
	c.Flags().StringArrayVar(&o.Rules.Names, "keep", nil, "keep tags that match this `PATTERN`, such as 'v*'; may be given again")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "remove the tags that no rule keeps")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be removed, and remove nothing: so it is without --yes")
	return c
}

func (a *app) prune(ctx context.Context, o names.PruneOptions) error {
	if err := checkRemote(o.Name); err != nil {
		return err
	}
	display, hide := a.show()
	defer hide()
	display.Status("reading " + o.Name)
	from, err := a.openRemote(ctx, o.Name, toChange, codec.LZ4)
	if err != nil {
		return err
	}
	rows, err := names.Prune(ctx, from, o)
	hide()
	if err != nil {
		return err
	}
	return a.printPruned(o, rows)
}
