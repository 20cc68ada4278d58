package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/catalog"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

func (a *app) listCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list [flags] REMOTE [REPOSITORY]",
		Aliases: []string{"ls"},
		Short:   "Show what a remote holds",
		Example: `  dogestry list /srv/images
  dogestry ls ./images myapp`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			repository := ""
			if len(args) == 2 {
				var err error
				if repository, err = image.ParseRepository(args[1]); err != nil {
					return fault.New(fault.Usage, "%s", err)
				}
			}
			return a.list(c, args[0], repository)
		},
	}
}

func (a *app) list(c *cobra.Command, name, repository string) error {
	if err := checkRemote(name); err != nil {
		return err
	}
	display, hide := a.show()
	defer hide()
	display.Status("reading " + name)
	from, err := a.openCatalog(c.Context(), name)
	if err != nil {
		return err
	}
	rows, err := from.List(c.Context(), repository)
	hide()
	if err != nil {
		return err
	}
	if repository != "" && len(rows) == 0 {
		return fault.New(fault.NotFound, "no repository %s in %s", repository, name).
			Advise("See `dogestry list %s`.", name)
	}
	damaged := 0
	for _, r := range rows {
		if r.Damage != "" {
			damaged++
		}
	}
	if a.json {
		a.printJSON(struct {
			Remote  string          `json:"remote"`
			Images  []catalog.Image `json:"images"`
			Damaged int             `json:"damaged"`
		}{name, rows, damaged})
	} else {
		printList(a.out, rows)
		for _, r := range rows {
			if r.Damage != "" {
				fmt.Fprintf(a.errOut, "%s: %s\n", r.Reference, printable(r.Damage))
			}
		}
	}
	if damaged > 0 {
		return printed{fault.New(fault.Damaged, "%d of %d images in %s are damaged or incomplete", damaged, len(rows), name)}
	}
	return nil
}

// printList prints the table that docker users expect.
func printList(w io.Writer, rows []catalog.Image) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSTORED\tPLATFORM")
	for _, r := range rows {
		if r.Damage != "" {
			fmt.Fprintf(t, "%s\t%s\t%s\t\t\tdamaged\n", r.Reference.Repository, r.Reference.Tag, shortID(r.ID))
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Reference.Repository, r.Reference.Tag, shortID(r.ID),
			ago(r.Created), bytes(r.Stored), platformOf(r))
	}
	t.Flush()
}

// platformOf is what a list says of an image's platform, and of its format where
// that is an old one.
func platformOf(r catalog.Image) string {
	var told []string
	if r.Platform != "" {
		told = append(told, oneLine(r.Platform))
	}
	if r.Format != "" {
		told = append(told, "format "+r.Format)
	}
	return strings.Join(told, ", ")
}

func shortID(id image.ID) string {
	if id.IsZero() {
		return "?"
	}
	return id.Short()
}
