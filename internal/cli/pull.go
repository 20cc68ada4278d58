package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/transfer"
	"github.com/dogestry/dogestry/internal/trust"
)

func (a *app) pullCommand() *cobra.Command {
	var as string
	var verify verifyFlags
	var cache cacheFlags
	var o transfer.Options
	c := &cobra.Command{
		Use:   "pull [flags] REMOTE IMAGE[:TAG]...",
		Short: "Bring images from a remote into the engine",
		Long: `Bring images from a remote into the engine. Only layers that the engine lacks
are read and sent; every byte is verified before the engine gets the last one.
The tag is set in the engine once the image is there in full.

--cache keeps what was read, up to --cache-size, in a directory that several
pulls may share: the remote is asked then what a tag names, and for what the
directory lacks.`,
		Example: `  dogestry pull /srv/images myapp:20131211
  dogestry pull ./images myapp:live --as myapp:latest
  dogestry pull ./images myapp@sha256:4f5e…   (the image stays without a tag; --as gives it one)
  dogestry pull ./images myapp:live --verify-key release.key.pub
  dogestry pull s3://bucket/images myapp:live --cache /var/cache/dogestry`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkTransferFlags(c, o); err != nil {
				return err
			}
			images, err := pullImages(args[1:], as)
			if err != nil {
				return err
			}
			set, err := a.configuration()
			if err != nil {
				return err
			}
			verify.configure(c, set)
			cache.configure(c, set)
			verifier, err := verify.open(args[0], images)
			if err != nil {
				return err
			}
			if verifier != nil {
				o.Verify = verify.verify(verifier)
			}
			return a.pull(c, args[0], images, verifier, cache, o)
		},
	}
	a.transferFlags(c, &o)
	verify.add(c)
	cache.add(c)
	c.Flags().StringVar(&as, "as", "", "give the one image this `NAME[:TAG]` in the engine")
	return c
}

func (a *app) pull(c *cobra.Command, name string, images []transfer.PullImage, verifier *trust.Verifier, cache cacheFlags, o transfer.Options) error {
	ctx := c.Context()
	if err := checkRemote(name); err != nil {
		return err
	}
	display, hide := a.show()
	defer hide()
	display.Status("opening " + name)
	from, closeFrom, err := a.openToRead(ctx, name, cache.unless(o.DryRun), display.Status)
	if err != nil {
		return err
	}
	defer closeFrom() //nolint:errcheck // what it wrote is a cache
	to, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer to.Close()
	if verifier != nil {
		if verifier.From, err = signatures(from, name); err != nil {
			return err
		}
		verifier.DryRun = o.DryRun
	}
	display.Status("reading " + name)
	o.Progress, o.Log = display, a.log()
	start := time.Now()
	results, err := transfer.Pull(ctx, from, to, images, o)
	hide()
	return a.printResults(outcome{verb: "pull", past: "pulled", remote: name, results: results, took: time.Since(start), err: err})
}

// pullImages reads the images of a pull. As with docker, one named by its
// digest gets no tag.
func pullImages(args []string, as string) ([]transfer.PullImage, error) {
	var target image.Reference
	if as != "" {
		var err error
		if target, err = parseAs(as, args); err != nil {
			return nil, err
		}
	}
	var images []transfer.PullImage
	for _, arg := range args {
		ref, err := parseReference(arg)
		if err != nil {
			return nil, err
		}
		img := transfer.PullImage{Source: ref, Target: target}
		if as == "" && ref.Digest.IsZero() {
			img.Target = ref
		}
		images = append(images, img)
	}
	return images, nil
}

// transferFlags adds what push and pull share.
func (a *app) transferFlags(c *cobra.Command, o *transfer.Options) {
	a.moveFlags(c, o)
	c.Flags().Var((*platformValue)(&o.Platform), "platform", "of an image for several, this `OS/ARCH[/VARIANT]` (default: push all that the engine has, pull the engine's own)")
	c.Flags().BoolVar(&o.AllPlatforms, "all-platforms", false, "of an image for several, all: fail where the engine lacks one (push), pull all that the remote has")
	c.Flags().StringVar(&a.engine, "engine", "", "the engine's `URL`: unix://, tcp://, ssh:// (default: the one that docker uses)")
}

// moveFlags adds what copy has as well.
func (a *app) moveFlags(c *cobra.Command, o *transfer.Options) {
	c.Flags().BoolVar(&o.DryRun, "dry-run", false, "say what would move, and change nothing")
	c.Flags().IntVar(&o.Parallel, "parallel", transfer.DefaultParallel, "layers on their way at once")
	c.Flags().Var(&a.uploadLimit, "limit-upload", "send at most this much a second to a remote on a network (5MB, 500kB)")
	c.Flags().Var(&a.downloadLimit, "limit-download", "receive at most this much a second from a remote on a network")
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
	if as := c.Flags().Lookup("as"); as != nil && as.Changed && as.Value.String() == "" {
		return fault.New(fault.Usage, "--as is empty").Advise("Name the image, or leave --as out.")
	}
	return nil
}
