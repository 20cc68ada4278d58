package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/catalog"
	"github.com/dogestry/dogestry/internal/image"
)

func (a *app) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect [flags] REMOTE IMAGE[:TAG]",
		Short: "Show one image of a remote: layers, what is shared, history, configuration",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := parseReference(args[1])
			if err != nil {
				return err
			}
			if err := checkRemote(args[0]); err != nil {
				return err
			}
			display, hide := a.show()
			defer hide()
			display.Status("reading " + args[0])
			from, err := a.openCatalog(c.Context(), args[0])
			if err != nil {
				return err
			}
			details, err := from.Inspect(c.Context(), ref)
			hide()
			if err != nil {
				return err
			}
			if a.json {
				a.printJSON(details)
				return nil
			}
			return printDetails(a.out, details)
		},
	}
}

func printDetails(w io.Writer, d *catalog.Details) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "Image:\t%s\n", d.Reference)
	fmt.Fprintf(t, "ID:\t%s\n", d.ID)
	if d.Created != nil {
		fmt.Fprintf(t, "Created:\t%s (%s)\n", d.Created.Format(time.RFC3339), ago(d.Created))
	}
	fmt.Fprintf(t, "Platform:\t%s\n", oneLine(d.Platform))
	if d.Format != "" {
		fmt.Fprintf(t, "Format:\t%s, by the original dogestry: IDs are random, and nothing proves the bytes\n", d.Format)
	}
	for _, p := range d.Index {
		what := oneLine(p.Platform)
		if !p.Attests.IsZero() {
			what = "attestation of " + p.Attests.Short()
		}
		if !p.Held {
			what += ", not in this remote"
		}
		fmt.Fprintf(t, "Manifest:\t%s  %s\n", p.Digest.Short(), what)
	}
	fmt.Fprintf(t, "Size:\t%s (%s stored)\n", sizeOf(d.Size), bytes(d.Stored))
	fmt.Fprintf(t, "\nLAYER\tSIZE\tSTORED\tSHARED WITH\n")
	for _, l := range d.Layers {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", l.Digest.Short(), sizeOf(l.Size), bytes(l.Stored), sharedWith(l.Shared))
	}
	fmt.Fprintf(t, "\nHISTORY\tCREATED BY\n")
	for _, h := range d.History {
		by := oneLine(h.CreatedBy)
		if h.EmptyLayer {
			by += "  (no layer)"
		}
		fmt.Fprintf(t, "%s\t%s\n", ago(h.Created), by)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nConfig: %s", indentedJSON(d.Config))
	return err
}

// sizeOf writes a size that may not be known.
func sizeOf(n int64) string {
	if n < 0 {
		return "?"
	}
	return bytes(n)
}

// sharedWith names a few of the tags that have a layer too.
func sharedWith(refs []image.Reference) string {
	const most = 4
	var names []string
	for _, r := range refs[:min(most, len(refs))] {
		names = append(names, r.String())
	}
	if more := len(refs) - most; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}
