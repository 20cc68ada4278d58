package cli

import (
	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/transfer"
)

// transferFlags adds what push and pull share.
func (a *app) transferFlags(c *cobra.Command, o *transfer.Options) {
	a.moveFlags(c, o)
	c.Flags().Var((*platformValue)(&o.Platform), "platform", "of an image for several, this `OS/ARCH[/VARIANT]` (default: push all that the engine has, pull the engine's own)")
	c.Flags().BoolVar(&o.AllPlatforms, "all-platforms", false, "of an image for several, all: fail where the engine lacks one (push), pull all that the remote has")
}

// moveFlags adds what copy has as well.
func (a *app) moveFlags(c *cobra.Command, o *transfer.Options) {
	c.Flags().BoolVar(&o.DryRun, "dry-run", false, "say what would move, and change nothing")
	c.Flags().IntVar(&o.Parallel, "parallel", transfer.DefaultParallel, "layers on their way at once")
	c.Flags().Var(&a.uploadLimit, "limit-upload", "send at most this much a second to a remote on a network (5MB, 500kB)")
	c.Flags().Var(&a.downloadLimit, "limit-download", "receive at most this much a second from a remote on a network")
}

// indexFlag adds what commands have that store layers anew.
func (a *app) indexFlag(c *cobra.Command) {
	c.Flags().BoolVar(&a.noIndex, "no-index", false, "store layers without a chunk index: pulls then fetch each as a whole")
}

// recompressFlag adds what commands have that store images with compressed layers.
func recompressFlag(c *cobra.Command, o *transfer.Options) {
	c.Flags().BoolVar(&o.Recompress, "recompress", false, "store layers that an image has in gzip or zstd as --compression says, with a chunk index: pulls then fetch only what is new in rebuilt ones, but the image gets another ID")
}

// checkTransferFlags refuses values that make no sense. An empty --as is most
// likely a variable that was not set.
func checkTransferFlags(c *cobra.Command, o transfer.Options) error {
	if o.Parallel < 1 {
		return fault.New(fault.Usage, "--parallel %d: at least one layer is on its way at a time", o.Parallel)
	}
	if o.AllPlatforms && o.Platform != (image.Platform{}) {
		return fault.New(fault.Usage, "--platform and --all-platforms exclude one another")
	}
	if o.Recompress && o.AllPlatforms {
		return fault.New(fault.Usage, "--recompress stores one platform of an image, and --all-platforms means all").
			Advise("Leave one out. Where a configuration says recompress: --recompress=false.")
	}
	if as := c.Flags().Lookup("as"); as != nil && as.Changed && as.Value.String() == "" {
		return fault.New(fault.Usage, "--as is empty").Advise("Name the image, or leave --as out.")
	}
	return nil
}
