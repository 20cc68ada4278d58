package cli

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/transfer"
)

// exportFlags are what an export has besides the options of a copy.
type exportFlags struct {
	output string // a file, or "-"
	since  string // a remote, a bundle or a list; "" is nothing
	list   bool   // write the list alone
}

func (a *app) exportCommand() *cobra.Command {
	var e exportFlags
	var o transfer.CopyOptions
	c := &cobra.Command{
		Use:   "export [flags] REMOTE {IMAGE[:TAG]... | --all [REPOSITORY]...} -o FILE",
		Short: "Write images of a remote into one file, a bundle, for where no network reaches",
		Long: `Write images of a remote into one file, a bundle, for where no network reaches;
` + "`dogestry import`" + ` brings them into another remote there. No engine is needed, and
this is not ` + "`docker export`" + `, which writes the files of a container.

A bundle is a tar of the repository format: ` + "`tar xf bundle.tar -C dir`" + ` makes a
working remote of it, unless it was made --since. An output that is there is replaced
once the bundle is complete. -o - writes to stdout.

--since leaves out the layers that another remote has, or that came with an earlier
bundle; what it takes is a remote, a bundle, or the list of one. --list writes that
list alone: it is small, and says on the other side what is there.`,
		Example: `  dogestry export /srv/images myapp:20131211 worker:7 -o bundle.tar
  dogestry export s3://bucket/images --all -o - | ssh bastion 'cat >bundle.tar'
  dogestry export /srv/images --all -o next.tar --since bundle.tar
  dogestry export /srv/isolated --all --list -o have.list`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.From, o.To = args[0], e.output
			if err := a.checkExportFlags(c, e, o, args[1:]); err != nil {
				return err
			}
			var images []transfer.CopyImage
			var err error
			if o.All {
				o.Repositories, err = parseRepositories(args[1:])
			} else {
				images, err = exportImages(args[1:])
			}
			if err != nil {
				return err
			}
			return a.export(c.Context(), images, e, o)
		},
	}
	f := c.Flags()
	f.StringVarP(&e.output, "output", "o", "", "the `FILE` to write; - is stdout")
	f.BoolVar(&o.All, "all", false, "all tags of REMOTE, or of the repositories named")
	f.StringVar(&e.since, "since", "", "leave out the layers that this `REMOTE|BUNDLE|LIST` has")
	f.BoolVar(&e.list, "list", false, "write the list alone, for --since elsewhere")
	f.Var((*platformValue)(&o.Platform), "platform", "of an image for several, this `OS/ARCH[/VARIANT]` (default: all that REMOTE has)")
	f.BoolVar(&o.AllPlatforms, "all-platforms", false, "of an image for several, fail where REMOTE lacks one")
	f.BoolVar(&o.DryRun, "dry-run", false, "say what would be written, and write nothing")
	f.IntVar(&o.Parallel, "parallel", transfer.DefaultParallel, "layers that are read at once")
	f.Var(&a.downloadLimit, "limit-download", "receive at most this much a second from a remote on a network (5MB, 500kB)")
	return c
}

func (a *app) export(ctx context.Context, images []transfer.CopyImage, e exportFlags, o transfer.CopyOptions) error {
	if err := checkRemote(o.From); err != nil {
		return err
	}
	display, hide := a.show()
	defer hide()
	o.Progress, o.Log = display, a.log()
	display.Status("reading " + o.From)
	start := time.Now()
	opened, err := a.openBeside(ctx, e.since, o.From, toRead, codec.LZ4)
	if err != nil {
		return err
	}
	from := a.withOriginals(opened, o.From, display.Status)
	if o.All {
		if images, err = transfer.AllOf(ctx, from, o); err != nil {
			return err
		}
	}
	if len(images) == 0 {
		return fault.New(fault.NotFound, "there are no images in %s", o.From).Advise("Check the path, or the bucket and its prefix.")
	}
	since, err := a.openSince(ctx, o.From, e.since)
	if err != nil {
		return err
	}
	plan, err := transfer.PlanExport(ctx, from, images, since, o)
	if err != nil {
		return err
	}
	s := shipped{verb: "export", past: "exported", remote: o.From, bundle: e.output, dryRun: o.DryRun, Shipment: plan.Shipment()}
	if !o.DryRun {
		s.size, err = a.writeOutput(ctx, e.output, func(w io.Writer) error {
			if e.list {
				return repo.WriteBundleList(w, plan.Bundle)
			}
			to, err := repo.NewBundle(w, e.output, plan.Bundle, plan.There)
			if err != nil {
				return err
			}
			return transfer.Export(ctx, from, to, plan, o)
		})
	}
	hide()
	if err != nil {
		return err
	}
	s.took, s.listOnly = time.Since(start), e.list
	return a.printShipped(s)
}
