package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/probe"
)

func (a *app) checkCommand() *cobra.Command {
	var sweep bool
	var olderThan time.Duration
	c := &cobra.Command{
		Use:   "check [flags] REMOTE",
		Short: "Find out what a remote can and cannot do",
		Long: `Find out what a remote can and cannot do, by trying: objects of up to 20 MB, some
40 MB in all, are written below a random name in run/ there, read back, and
removed at the end, also after an interrupt. Nothing else in the remote changes.

The exit code is 0 where push and pull will work. What else will not is in the
table: a remote without compare-and-swap, say, is good for all but what needs it.`,
		Example: `  dogestry check /srv/images
  dogestry check ./images --sweep --older-than 1h`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("older-than") && !sweep {
				return fault.New(fault.Usage, "--older-than says what --sweep removes, and that is missing")
			}
			if olderThan < 0 {
				return fault.New(fault.Usage, "--older-than %s is negative", olderThan)
			}
			return a.check(c.Context(), args[0], sweep, olderThan)
		},
	}
	c.Flags().BoolVar(&sweep, "sweep", false, "also remove what killed pushes left behind: temporary files, open uploads")
	c.Flags().DurationVar(&olderThan, "older-than", 24*time.Hour, "how old that must be, such as 90m or 24h")
	return c
}

func (a *app) check(ctx context.Context, name string, sweep bool, olderThan time.Duration) error {
	var both [2]storage.Store
	mode := toChange
	if isWeb(name) {
		mode = toRead
	}
	for i := range both {
		var err error
		if both[i], err = a.openStore(ctx, name, mode); err != nil {
			return err
		}
	}
	display, hide := a.show()
	defer hide()
	start := time.Now()
	results, err := probe.Run(ctx, both[0], both[1], probe.Options{
		Begin: func(check string) { display.Status("checking " + name + ": " + check) },
	})
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		err = fault.Wrap(fault.Other, err, "cannot remove from %s what the check wrote", name)
	}
	if bad := verdict(name, results); bad != nil {
		err = bad
	}
	swept := 0
	if sweep && err == nil {
		display.Status("removing what killed pushes left in " + name)
		swept, err = sweepLeftovers(ctx, name, both[0], olderThan)
	}
	hide()
	if a.json {
		return a.printDocument(checkDocument(name, results, sweep, swept, time.Since(start), err), err)
	}
	printChecks(a.out, results)
	if sweep && err == nil {
		fmt.Fprintf(a.out, "\nremoved %d left-overs that were older than %s\n", swept, olderThan)
	}
	return err
}

// sweepLeftovers removes what killed processes left: of writes, of checks, and uploads to
// a served registry to which nothing is added any more.
func sweepLeftovers(ctx context.Context, name string, store storage.Store, age time.Duration) (removed int, err error) {
	removed, err = probe.Sweep(ctx, store, age)
	if err != nil {
		return removed, fault.Wrap(kindOf(err), err, "cannot remove what killed pushes left in %s", name)
	}
	in, err := repo.Open(ctx, store, repo.Options{Name: name})
	if err != nil {
		return removed, err
	}
	uploads, err := in.SweepUploads(ctx, age)
	return removed + uploads, err
}

// verdict returns why push and pull do not work, or nil.
func verdict(name string, results []probe.Result) error {
	if isWeb(name) && results[0].Status != probe.Failed {
		return webIsReadOnly(name)
	}
	var bad []probe.Result
	works := map[string]bool{}
	for _, r := range results {
		works[r.Name] = r.Status == probe.OK
		if r.Bad() {
			bad = append(bad, r)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	f := fault.New(kindOf(bad[0].Err), "%s is not fit for push and pull: %s: %s", name, bad[0].Name, bad[0].Detail)
	switch {
	case works["read"] && !works["write"] && errors.Is(bad[0].Err, storage.ErrPermission):
		f.Message = fmt.Sprintf("%s can be listed and read, and not written: %s", name, bad[0].Detail)
		f.Advise("It is good for list, inspect and pull. To push, get permission to write there.")
	case len(bad) > 1:
		f.Advise("It is the first of %d such failures, see the table.", len(bad))
	}
	return f
}

// kindOf returns the exit code for a store's error.
func kindOf(err error) fault.Kind {
	if errors.Is(err, storage.ErrPermission) {
		return fault.Refused
	}
	return fault.KindOf(err)
}
