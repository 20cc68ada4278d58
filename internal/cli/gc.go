package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/repo"
)

func (a *app) gcCommand() *cobra.Command {
	var o repo.CollectOptions
	c := &cobra.Command{
		Use:   "gc [flags] REMOTE",
		Short: "Free what no image in a remote needs",
		Long: `Free what no image in a remote needs: layers and documents that no tag reaches
and that are older than a day. It runs beside pushes and pulls. Where anything
cannot be read that a tag needs, nothing is deleted.

It needs a store that can compare and swap, see "dogestry check". On others add
--single-writer, once nobody else writes there.`,
		Example: `  dogestry gc /srv/images --dry-run
  dogestry gc s3://bucket/images`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if o.Grace < 0 {
				return fault.New(fault.Usage, "--grace %s is negative", o.Grace)
			}
			return a.gc(c.Context(), args[0], o)
		},
	}
	c.Flags().BoolVar(&o.DryRun, "dry-run", false, "say what would be freed, and change nothing")
	c.Flags().BoolVar(&o.SingleWriter, "single-writer", false, "nobody else writes to the remote meanwhile: do without leases")
	graceFlag(c, &o.Grace)
	return c
}

// graceFlag adds a hidden flag.
func graceFlag(c *cobra.Command, grace *time.Duration) {
	c.Flags().DurationVar(grace, "grace", repo.Grace, "for tests: the age from which on what nothing needs is garbage")
	if err := c.Flags().MarkHidden("grace"); err != nil {
		panic(err) // it is there
	}
}

func (a *app) gc(ctx context.Context, name string, o repo.CollectOptions) error {
	if err := checkRemote(name); err != nil {
		return err
	}
	display, hide := a.show()
	defer hide()
	display.Status("opening " + name)
	in, err := a.openRemote(ctx, name, toChange, codec.LZ4)
	if err != nil {
		return err
	}
	o.Status = display.Status
	start := time.Now()
	done, err := in.Collect(ctx, o)
	hide()
	err = a.orSignal(err)
	if a.json {
		return a.printDocument(struct {
			Remote string `json:"remote"`
			*repo.Collection
			Seconds float64  `json:"seconds"`
			Error   *failure `json:"error,omitempty"`
		}{name, done, time.Since(start).Seconds(), failureOf(err)}, err)
	}
	a.printCollection(done, err)
	return err
}

// printCollection says what was freed on stdout, and the rest on stderr.
func (a *app) printCollection(c *repo.Collection, err error) {
	if err != nil && c.Freed.Count == 0 {
		return // the error says it all
	}
	verb := "freed"
	if c.DryRun {
		verb = "would free"
	}
	fmt.Fprintf(a.out, "%s %s of %s\n", verb, heap(c.Freed), heap(c.Entries))
	if a.quiet {
		return
	}
	for _, rest := range []struct {
		heap repo.Heap
		why  string
	}{
		{c.Young, "not needed by a tag, and younger than a day: they wait"},
		{c.Leased, "needed by pushes that are running"},
		{c.Left, "left for the next run"},
	} {
		if rest.heap.Count > 0 {
			fmt.Fprintf(a.errOut, "%s: %s\n", heap(rest.heap), rest.why)
		}
	}
}

func heap(h repo.Heap) string {
	if h.Count == 1 {
		return "1 entry, " + bytes(h.Stored)
	}
	return fmt.Sprintf("%d entries, %s", h.Count, bytes(h.Stored))
}
