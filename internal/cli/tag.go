package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/names"
)

func (a *app) tagCommand() *cobra.Command {
	var o names.TagOptions
	c := &cobra.Command{
		Use:   "tag [flags] REMOTE SOURCE[:TAG] TARGET[:TAG]",
		Short: "Give an image in a remote another name",
		Long: `Give an image in a remote another name. SOURCE is a tag, or an image by its digest
(myapp@sha256:…). TARGET is moved if it is there. No engine is needed, and nothing is
copied.`,
		Example: `  dogestry tag /srv/images myapp:20131211 myapp:live
  dogestry tag s3://bucket/images myapp:rc3 myapp:1.4.2 --if-absent
  dogestry tag ./images myapp@sha256:4f5e… rescued:1`,
		Args: cobra.ExactArgs(3),
		RunE: func(c *cobra.Command, args []string) error {
			source, err := parseReference(args[1])
			if err != nil {
				return err
			}
			target, err := parseReference(args[2])
			if err != nil {
				return err
			}
			if !target.Digest.IsZero() {
				return fault.New(fault.Usage, "%s: a new name cannot have a digest", args[2])
			}
			return a.tag(c.Context(), args[0], source, target, o)
		},
	}
	c.Flags().BoolVar(&o.IfAbsent, "if-absent", false, "refuse to move a tag that names another image already")
	c.Flags().BoolVar(&o.DryRun, "dry-run", false, "say what would be done, and do nothing")
	return c
}

func (a *app) tag(ctx context.Context, name string, source, target image.Reference, o names.TagOptions) error {
	if err := checkRemote(name); err != nil {
		return err
	}
	display, hide := a.show()
	defer hide()
	display.Status("reading " + name)
	in, err := a.openImages(ctx, name, toChange, "")
	if err != nil {
		return err
	}
	o.Waiting = display.Status
	t, err := names.Tag(ctx, in, source, target, o)
	hide()
	if err != nil {
		return err
	}
	if a.json {
		a.printJSON(struct {
			Remote string `json:"remote"`
			*names.Tagged
		}{name, t})
		return nil
	}
	fmt.Fprintln(a.out, t.Target, t.ID)
	if !a.quiet {
		fmt.Fprintln(a.errOut, printable(tagSummary(t)))
	}
	return nil
}

// tagSummary says what the target named before.
func tagSummary(t *names.Tagged) string {
	verb := "tagged"
	if t.DryRun {
		verb = "would tag"
	}
	switch {
	case t.Damage != "":
		return fmt.Sprintf("%s %s, which was damaged: %s", verb, t.Target, t.Damage)
	case t.Before.IsZero():
		return fmt.Sprintf("%s %s, which is new", verb, t.Target)
	case t.Before == t.ID:
		return fmt.Sprintf("%s names this image already", t.Target)
	}
	return fmt.Sprintf("%s %s, which named %s before", verb, t.Target, t.Before.Short())
}
