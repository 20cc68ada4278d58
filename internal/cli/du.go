package cli

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/catalog"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/repo"
)

func (a *app) duCommand() *cobra.Command {
	var grace time.Duration
	c := &cobra.Command{
		Use:   "du [flags] REMOTE",
		Short: "Show how much the images of a remote take, and share",
		Long: `Show how much the layers of images take in a remote, as stored: of each tag and
each repository what nothing else uses (OWN), what something else uses too
(SHARED), and both. Documents and tags, some kilobytes an image, do not count, nor do
layers that no tag reaches: what of those gc would free is told at the end, and what it
would leave until it is a day old. Nothing is written.`,
		Example: `  dogestry du /srv/images
  dogestry du s3://bucket/images --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.du(c.Context(), args[0], grace) },
	}
	graceFlag(c, &grace)
	return c
}

// garbage is what gc would free.
type garbage struct {
	Freed *repo.Heap `json:"freed,omitempty"`
	Young *repo.Heap `json:"young,omitempty"` // not needed, and not old enough
	Error *failure   `json:"error,omitempty"` // why gc would free nothing, and the others are not known

	err error
}

func (a *app) du(ctx context.Context, name string, grace time.Duration) error {
	if err := checkRemote(name); err != nil {
		return err
	}
	display, hide := a.show()
	defer hide()
	display.Status("reading " + name)
	in, err := a.openRemote(ctx, name, toRead, codec.LZ4)
	if err != nil {
		return err
	}
	usage, err := catalog.Cached(in, cacheDir(), canonical(name), a.log()).Usage(ctx)
	if err != nil {
		return err
	}
	var free garbage
	found, err := in.Collect(ctx, repo.CollectOptions{DryRun: true, Grace: grace, Status: display.Status})
	hide()
	switch {
	case fault.Interrupted(err):
		return err
	case err != nil:
		free = garbage{err: err, Error: failureOf(err)}
	default:
		free.Freed, free.Young = &found.Freed, &found.Young
	}
	if a.json {
		a.printJSON(struct {
			Remote string `json:"remote"`
			*catalog.Usage
			Garbage garbage `json:"garbage"`
		}{name, usage, free})
	} else {
		a.printUsage(usage)
		a.printGarbage(free)
	}
	if usage.Damaged > 0 {
		return printed{fault.New(fault.Damaged, "%d of %d images in %s are damaged or incomplete, and not counted", usage.Damaged, usage.Tags, name)}
	}
	return nil
}

// printGarbage says what gc would free, or why it would not.
func (a *app) printGarbage(g garbage) {
	if g.err != nil {
		fmt.Fprintln(a.errOut, "gc would free nothing: "+printable(g.err.Error()))
		a.printAdvice(g.err)
		return
	}
	fmt.Fprintf(a.out, "gc would free %s\n", heap(*g.Freed))
	if g.Young.Count > 0 {
		fmt.Fprintf(a.out, "%s more that no tag needs, and younger than a day\n", heap(*g.Young))
	}
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
