package cli

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/transfer"
)

// checkExportFlags refuses what makes no sense, before anything is read.
func (a *app) checkExportFlags(c *cobra.Command, e exportFlags, o transfer.CopyOptions, args []string) error {
	switch {
	case e.output == "" && !o.DryRun:
		return usageError(c, fault.New(fault.Usage, "no output is named: -o FILE, or -o - for stdout"))
	case c.Flags().Changed("since") && e.since == "":
		return fault.New(fault.Usage, "--since is empty").Advise("Name a remote, a bundle or the list of one, or leave --since out.")
	case !o.All && len(args) == 0:
		return usageError(c, fault.New(fault.Usage, "no image is named"))
	case e.output == streamName && a.json:
		return fault.New(fault.Usage, "--json and the bundle cannot both go to stdout").Advise("Write the bundle to a file: -o bundle.tar.")
	case e.output == streamName && isTerminal(a.stdout()) && !o.DryRun:
		return fault.New(fault.Usage, "a bundle is nothing for a terminal").Advise("Redirect stdout to a file or a pipe, or name a file: -o bundle.tar.")
	}
	return checkTransferFlags(c, o.Options)
}

// exportImages reads the images of an export, each once. Of those that would have one
// name in the bundle, and need not be one image, none is chosen.
func exportImages(args []string) (images []transfer.CopyImage, err error) {
	named := map[image.Reference]image.Reference{}
	for _, arg := range args {
		ref, err := parseReference(arg)
		if err != nil {
			return nil, err
		}
		if ref.Tag == "" {
			return nil, fault.New(fault.Usage, "%s names no tag, and a bundle holds tags", arg).
				Advise("Give it one: `dogestry tag REMOTE %s NAME:TAG`.", arg)
		}
		target := ref
		target.Digest = image.Digest{}
		was, twice := named[target]
		switch {
		case !twice:
			named[target] = ref
			images = append(images, transfer.CopyImage{Source: ref, Target: target})
		case was != ref:
			return nil, fault.New(fault.Usage, "%s and %s would both be %s in the bundle", was, ref, target).
				Advise("Name one of them, or give the other a tag of its own: `dogestry tag REMOTE %s NAME:TAG`.", ref)
		}
	}
	return images, nil
}

// openSince opens what is left out of a bundle of another remote; nil where nothing is.
func (a *app) openSince(ctx context.Context, from, name string) (transfer.Since, error) {
	if name == "" {
		return nil, nil
	}
	if info, err := os.Stat(name); err == nil && !info.IsDir() {
		f, err := os.Open(name)
		if err != nil {
			return nil, fault.Wrap(fault.Refused, causeOf(err), "cannot read the list %s", name)
		}
		defer f.Close()
		list, err := repo.ReadBundleList(f, name)
		if err != nil {
			return nil, err
		}
		return transfer.SinceBundle(list), nil
	}
	if err := checkRemote(name); err != nil {
		return nil, err
	}
	base, err := a.openBeside(ctx, from, name, toRead, codec.LZ4)
	if fault.Is(err, fault.NotFound) {
		return nil, fault.Wrap(fault.NotFound, err, "--since").Advise("Name a remote, a bundle, or a list that `dogestry export --list` wrote.")
	}
	if err != nil {
		return nil, err
	}
	return transfer.SinceRemote(base), nil
}
