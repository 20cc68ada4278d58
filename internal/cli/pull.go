package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/transfer"
	"github.com/dogestry/dogestry/internal/trust"
)

func (a *app) pullCommand() *cobra.Command {
	var as string
	var verify verifyFlags
	var cache cacheFlags
	var engines enginesFlags
	var files composeFlags
	var o transfer.Options
	c := &cobra.Command{
		Use:   "pull [flags] REMOTE {IMAGE[:TAG]... | --compose FILE}",
		Short: "Bring images from a remote into the engine",
		Long: `Bring images from a remote into the engine. Only layers that the engine lacks
are read and sent; every byte is verified before the engine gets the last one.
The tag is set in the engine once the image is there in full.

Of a layer that is not there, and whose like is, only what is new is fetched: the
rest comes out of the engine's own layers, or of a cache. --delta says when.

--cache keeps what was read, up to --cache-size, in a directory that several
pulls may share: the remote is asked then what a tag names, and for what the
directory lacks.

With several engines, each gets what it lacks, and what several lack is read
once for all of them. A table at the end says what became of each; the exit code
is 6 when some failed.`,
		Example: `  dogestry pull /srv/images myapp:20131211
  dogestry pull ./images myapp:live --as myapp:latest
  dogestry pull ./images myapp@sha256:4f5e…   (the image stays without a tag; --as gives it one)
  dogestry pull ./images myapp:live --verify-key release.key.pub
  dogestry pull s3://bucket/images myapp:live --cache /var/cache/dogestry
  dogestry pull s3://bucket/images myapp:live --engine ssh://deploy@web1 --engine ssh://deploy@web2
  dogestry pull s3://bucket/images myapp:live --engines-file production.txt
  dogestry pull s3://bucket/images --compose compose.yaml`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkTransferFlags(c, o); err != nil {
				return err
			}
			all, err := files.images(c.Context(), a, args[1:])
			if err != nil {
				return err
			}
			images, err := pullImages(all, as)
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
			o.CacheDir = cacheDir()
			urls, err := engines.many(a, set)
			if err != nil {
				return err
			}
			if len(urls) > 0 {
				return a.pullMany(c, manyPull{remote: args[0], images: images, urls: urls, engines: engines, verifier: verifier, cache: cache, o: o})
			}
			return a.pull(c, args[0], images, verifier, cache, o)
		},
	}
	a.transferFlags(c, &o)
	engines.add(c)
	files.add(c)
	verify.add(c)
	cache.add(c)
	o.Delta = transfer.DeltaAuto
	c.Flags().Var((*deltaValue)(&o.Delta), "delta", deltaUsage)
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
	if err := look(verifier, from, name, o.DryRun); err != nil {
		return err
	}
	display.Status("reading " + name)
	o.Progress, o.Log = display, a.log()
	start := time.Now()
	results, err := transfer.Pull(ctx, from, to, images, o)
	hide()
	return a.printResults(outcome{verb: "pull", past: "pulled", remote: name, results: results, took: time.Since(start), err: err})
}

// look lets a verifier read what a remote has. It may be nil.
func look(verifier *trust.Verifier, from remote.Source, name string, dryRun bool) (err error) {
	if verifier == nil {
		return nil
	}
	verifier.DryRun = dryRun
	verifier.From, err = signatures(from, name)
	return err
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
