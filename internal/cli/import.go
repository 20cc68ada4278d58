package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/signature"
	"github.com/dogestry/dogestry/internal/transfer"
)

func (a *app) importCommand() *cobra.Command {
	var o transfer.ImportOptions
	c := &cobra.Command{
		Use:   "import [flags] REMOTE BUNDLE",
		Short: "Bring the images of a bundle, which `dogestry export` wrote, into a remote",
		Long: `Bring the images of a bundle, which ` + "`dogestry export`" + ` wrote, into a remote. Only layers
that the remote lacks are stored, each once its bytes are proved; a tag is written, or
moved, once its image is there in full. An interrupted import leaves whole layers, and the
same command goes on from there. No engine is needed, and this is not ` + "`docker import`" + `,
which makes an image of files.

BUNDLE is a file; - is stdin, which is read once and not stored anywhere else. A bundle
that was made --since is refused where the remote lacks what it leaves out. It says
nothing about who made it: where that matters, sign the tags, and pull with --verify-key.`,
		Example: `  dogestry import /srv/images bundle.tar
  ssh bastion cat bundle.tar | dogestry import s3://bucket/images -`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			o.To, o.From = args[0], args[1]
			if err := checkTransferFlags(c, o.Options); err != nil {
				return err
			}
			if o.From == streamName && isTerminal(a.in) {
				return fault.New(fault.Usage, "a bundle does not come from a terminal").Advise("Redirect stdin from a file or a pipe, or name a file.")
			}
			return a.importBundle(c.Context(), o)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.IfAbsent, "if-absent", false, "refuse to move a tag that names another image already")
	f.BoolVar(&o.DryRun, "dry-run", false, "say what would move, and change nothing")
	f.IntVar(&o.Parallel, "parallel", transfer.DefaultParallel, "small layers that are written at once")
	f.Var(&a.uploadLimit, "limit-upload", "send at most this much a second to a remote on a network (5MB, 500kB)")
	return c
}

func (a *app) importBundle(ctx context.Context, o transfer.ImportOptions) error {
	if err := checkRemote(o.To); err != nil {
		return err
	}
	display, hide := a.show()
	defer hide()
	o.Progress, o.Log, o.SignatureStays = display, a.log(), signature.Stays
	display.Status("reading " + o.From)
	start := time.Now()
	in, err := a.openInput(ctx, o.From)
	if err != nil {
		return err
	}
	defer in.Close()
	if o.From == streamName {
		o.From = "stdin"
	}
	from, err := repo.OpenBundle(in, o.From)
	if err != nil {
		return err
	}
	display.Status("asking what " + o.To + " has already")
	mode := toWrite
	if o.DryRun || len(from.Bundle().Without) > 0 {
		mode = toPlan // a bundle that is refused makes no directory
	}
	to, err := a.openRemote(ctx, o.To, mode, codec.LZ4)
	if err == nil && mode == toPlan && !o.DryRun {
		if err = transfer.CheckBase(ctx, from.Bundle(), to, o); err == nil {
			to, err = a.openRemote(ctx, o.To, toWrite, codec.LZ4)
		}
	}
	if err != nil {
		return err
	}
	done, err := transfer.Import(ctx, from, to, o)
	hide()
	return a.printShipped(shipped{
		verb: "import", past: "imported", remote: o.To, bundle: o.From, dryRun: o.DryRun, Shipment: done, took: time.Since(start), err: err,
	})
}
