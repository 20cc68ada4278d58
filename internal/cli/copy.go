package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/signature"
	"github.com/dogestry/dogestry/internal/transfer"
)

func (a *app) copyCommand() *cobra.Command {
	var as, compression string
	var cache cacheFlags
	var o transfer.CopyOptions
	c := &cobra.Command{
		Use:     "copy [flags] SRC DST {IMAGE[:TAG]... | --all [REPOSITORY]...}",
		Aliases: []string{"cp"},
		Short:   "Copy images from one remote to another, without an engine",
		Long: `Copy images from one remote to another, without an engine. Only layers that DST
lacks are moved, in the bytes in which SRC keeps them, and verified on the way;
a tag is written once its image is there in full, and names the same image ID as
at SRC, unless --recompress makes another image of it. An interrupted copy leaves
whole layers, and the same command goes on from there.

SRC and DST may also be oci:DIR, an OCI image layout, and docker-archive:FILE, what
` + "`docker save`" + ` writes and ` + "`docker load`" + ` reads. A layout may name its images by tags
alone: then IMAGE may have any repository. Its only image needs no name at all. An
archive is written as a whole, to a new FILE.

As elsewhere, an image without a tag is the one tagged latest. --all copies every
tag of SRC, or of the repositories that are named, and goes on where an image is
damaged (exit code 6). --delete makes a mirror of it: when all is copied, tags of
these repositories that SRC does not have are removed from DST, and so is what
belongs to them by its digest alone. Layers stay.`,
		Example: `  dogestry copy /srv/images s3://bucket/images myapp:20131211 worker:7
  dogestry copy s3://bucket/images ./images myapp:20131211 --as myapp:live
  dogestry copy s3://bucket/images s3://other/images --all
  dogestry copy registry://docker.io s3://bucket/images debian:bookworm
  dogestry copy registry://registry.example.com/team s3://bucket/images myapp:1.4.2 --recompress
  dogestry copy oci:./layout ./images myapp:20131211
  dogestry copy ./images docker-archive:myapp.tar myapp:20131211
  dogestry copy /srv/images /mnt/backup --all --delete team/web team/worker`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			o.From, o.To = args[0], args[1]
			if err := checkCopyFlags(c, o, args[2:]); err != nil {
				return err
			}
			if err := checkTypedCompression(c, args[1], compression); err != nil {
				return err
			}
			var images []transfer.CopyImage
			var err error
			if o.All {
				o.Repositories, err = parseRepositories(args[2:])
			} else {
				images, err = copyImages(args[2:], as)
			}
			if err != nil {
				return err
			}
			set, err := a.configuration()
			if err != nil {
				return err
			}
			cache.configure(c, set)
			return a.copy(c.Context(), images, compression, cache, o)
		},
	}
	a.moveFlags(c, &o.Options)
	cache.add(c)
	a.indexFlag(c)
	recompressFlag(c, &o.Options)
	f := c.Flags()
	f.Var((*platformValue)(&o.Platform), "platform", "of an image for several, this `OS/ARCH[/VARIANT]` (default: all that SRC has)")
	f.BoolVar(&o.AllPlatforms, "all-platforms", false, "of an image for several, fail where SRC lacks one")
	f.StringVar(&compression, "compression", "", "how layers are stored that are not moved in SRC's bytes, see --recompress: lz4 (the default), zstd or none; in a registry gzip (the default), zstd or none")
	f.StringVar(&as, "as", "", "store the one image under this `NAME[:TAG]`")
	f.BoolVar(&o.IfAbsent, "if-absent", false, "refuse to move a tag that names another image already")
	f.BoolVar(&o.All, "all", false, "copy all tags of SRC, or of the repositories named")
	f.BoolVar(&o.Delete, "delete", false, "with --all: then remove tags from DST that SRC does not have")
	f.BoolVar(&o.Yes, "yes", false, "with --delete: also where SRC has no tags at all")
	return c
}

func (a *app) copy(ctx context.Context, images []transfer.CopyImage, compression string, cache cacheFlags, o transfer.CopyOptions) error {
	for _, name := range []string{o.From, o.To} {
		if err := checkPlace(name); err != nil {
			return err
		}
	}
	if samePlace(o.From, o.To) {
		return fault.New(fault.Usage, "%s and %s are the same remote", o.From, o.To)
	}
	display, hide := a.show()
	defer hide()
	o.Progress, o.Log, o.SignatureStays = display, a.log(), signature.Stays
	display.Status("reading " + o.From)
	start := time.Now()
	from, closeFrom, err := a.openSource(ctx, o.From, cache.unless(o.DryRun), display.Status)
	if err != nil {
		return err
	}
	defer closeFrom() //nolint:errcheck // what it wrote is a cache
	if o.All {        // before DST is made: nothing is, for a name that is mistyped
		images, err = transfer.AllOf(ctx, from, o)
	} else {
		err = transfer.Resolve(ctx, from, images)
	}
	if err != nil {
		return err
	}
	mode := toWrite
	if o.DryRun {
		mode = toPlan
	}
	to, closeTo, err := a.openTarget(ctx, o.To, mode, compression)
	if err != nil {
		return err
	}
	defer closeTo() //nolint:errcheck // what counts was made durable before
	display.Status("asking what " + o.To + " has already")
	done, err := transfer.Copy(ctx, from, to, images, o)
	hide()
	return a.printCopied(copied{CopyOptions: o, Copied: done, verb: "copy", past: "copied", took: time.Since(start), err: err})
}
