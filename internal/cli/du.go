package cli

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/catalog"
	"github.com/dogestry/dogestry/internal/fault"
)

func (a *app) duCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "du [flags] REMOTE",
		Short: "Show how much the images of a remote take, and share",
		Long: `Show how much the layers of images take in a remote, as stored: of each tag and
each repository what nothing else uses (OWN), what something else uses too
(SHARED), and both. Documents and tags, some kilobytes an image, do not count, nor do
layers that no tag reaches.`,
		Example: `  dogestry du /srv/images
  dogestry du s3://bucket/images --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.du(c, args[0]) },
	}
}

func (a *app) du(c *cobra.Command, name string) error {
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
	usage, err := from.Usage(c.Context())
	hide()
	if err != nil {
		return err
	}
	if a.json {
		a.printJSON(struct {
			Remote string `json:"remote"`
			*catalog.Usage
		}{name, usage})
	} else {
		a.printUsage(usage)
	}
	if usage.Damaged > 0 {
		return printed{fault.New(fault.Damaged, "%d of %d images in %s are damaged or incomplete, and not counted", usage.Damaged, usage.Tags, name)}
	}
	return nil
}

func (a *app) printUsage(u *catalog.Usage) {
	t := tabwriter.NewWriter(a.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "REPOSITORY\tTAG\tOWN\tSHARED\tTOTAL")
	for _, r := range u.Repositories {
		printSpace(t, r.Repository, fmt.Sprintf("(%s)", count(len(r.Tags), "tag")), r.Space)
		for _, tag := range r.Tags {
			if tag.Damage != "" {
				fmt.Fprintf(t, "%s\t%s\t\t\tdamaged\n", r.Repository, tag.Tag)
				continue
			}
			printSpace(t, r.Repository, tag.Tag, tag.Space)
		}
	}
	printSpace(t, "(all)", fmt.Sprintf("(%s)", count(u.Tags, "tag")), u.Space)
	t.Flush()
	for _, r := range u.Repositories {
		for _, tag := range r.Tags {
			if tag.Damage != "" {
				fmt.Fprintf(a.errOut, "%s:%s: %s\n", r.Repository, tag.Tag, printable(tag.Damage))
			}
		}
	}
}

func printSpace(w io.Writer, repository, tag string, s catalog.Space) {
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", repository, tag, bytes(s.Own), bytes(s.Shared), bytes(s.Total))
}
