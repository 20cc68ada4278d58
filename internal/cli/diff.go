package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/transfer"
)

func (a *app) diffCommand() *cobra.Command {
	var files bool
	var o transfer.Options
	c := &cobra.Command{
		Use:   "diff [flags] REMOTE IMAGE[:TAG] IMAGE[:TAG]",
		Short: "Show what a host that has one image must fetch for another",
		Long: `Show what a host that has the first image must fetch for the second: which layers
are new, and how much of each is in no layer of the first, in bytes and files. That is
what a pull fetches where it can read the engine's own layers (see --delta of
` + "`dogestry pull`" + `); others fetch new layers whole. No layers are read for it, but what is
in them, as their chunk indexes tell.`,
		Example: `  dogestry diff s3://bucket/images myapp:20131210 myapp:20131211
  dogestry diff ./images myapp:1 myapp:2 --files`,
		Args: cobra.ExactArgs(3),
		RunE: func(c *cobra.Command, args []string) error {
			from, err := parseReference(args[1])
			if err != nil {
				return err
			}
			to, err := parseReference(args[2])
			if err != nil {
				return err
			}
			if err := checkRemote(args[0]); err != nil {
				return err
			}
			display, hide := a.show()
			defer hide()
			display.Status("reading " + args[0])
			in, closeIn, err := a.openToRead(c.Context(), args[0], cacheFlags{}, display.Status)
			if err != nil {
				return err
			}
			defer closeIn() //nolint:errcheck // nothing was written
			o.Progress, o.Log = display, a.log()
			found, err := transfer.Compare(c.Context(), in, from, to, files || a.json, o)
			hide()
			if err != nil {
				return err
			}
			if a.json {
				a.printJSON(found)
				return nil
			}
			return a.printComparison(found, files)
		},
	}
	c.Flags().Var((*platformValue)(&o.Platform), "platform", "of images for several, this `OS/ARCH[/VARIANT]` (default: all that REMOTE has)")
	c.Flags().BoolVar(&files, "files", false, "name the files of which something is fetched")
	return c
}

func (a *app) printComparison(found *transfer.Comparison, files bool) error {
	t := tabwriter.NewWriter(a.out, 0, 0, 3, ' ', 0)
	if len(found.Layers) > 0 {
		fmt.Fprintln(t, "LAYER\tSIZE\tSTORED\tFETCH\tFILES")
	}
	for _, l := range found.Layers {
		what := l.Whole
		if l.Files > 0 {
			what = fmt.Sprintf("%d of %s", l.Changed, count(l.Files, "file"))
			if l.Whole != "" {
				what += ": " + l.Whole
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", l.Digest.Short(), sizeOf(l.Size), bytes(l.Stored), bytes(l.Fetch), what)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, l := range found.Layers {
		for _, name := range l.Names {
			if !files {
				break
			}
			if name == "" {
				name = "(what no header names)"
			}
			fmt.Fprintf(a.out, "%s  %s\n", l.Digest.Short(), oneLine(name))
		}
		if files && l.MoreNames > 0 {
			fmt.Fprintf(a.out, "%s  (%s more)\n", l.Digest.Short(), count(l.MoreNames, "file"))
		}
	}
	_, err := fmt.Fprintf(a.out, "%s → %s: %s to fetch, of %s stored; %s shared\n",
		found.From, found.To, bytes(found.Fetch), bytes(found.Stored), count(found.Shared, "layer"))
	return err
}
