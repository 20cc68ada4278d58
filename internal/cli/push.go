package cli

import (
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/transfer"
)

func (a *app) pushCommand() *cobra.Command {
	var as, compression string
	var o transfer.Options
	c := &cobra.Command{
		Use:   "push [flags] REMOTE IMAGE[:TAG]...",
		Short: "Move images from the engine to a remote",
		Long: `Move images from the engine to a remote. Only layers that the remote lacks are
stored; a tag is written once its image is there in full. An interrupted push
leaves whole layers, and the same command goes on from there.`,
		Example: `  dogestry push /srv/images myapp:20131211
  dogestry push ./images myapp:latest --as myapp:live
  dogestry push file:///srv/images web worker --compression zstd`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkTransferFlags(c, o); err != nil {
				return err
			}
			method, err := codec.ByName(compression)
			if err != nil {
				return fault.New(fault.Usage, "--compression %s", err)
			}
			images, err := pushImages(args[1:], as)
			if err != nil {
				return err
			}
			return a.push(c, args[0], images, method, o)
		},
	}
	a.transferFlags(c, &o)
	c.Flags().StringVar(&as, "as", "", "store the one image under this `NAME[:TAG]`")
	c.Flags().StringVar(&compression, "compression", codec.LZ4.Name(), "how layers are stored: lz4 (fast links), zstd (smaller, for slow links) or none")
	return c
}

func (a *app) push(c *cobra.Command, name string, images []transfer.PushImage, method codec.Codec, o transfer.Options) error {
	ctx := c.Context()
	mode := toWrite
	if o.DryRun {
		mode = toPlan
	}
	from, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := a.openRemote(ctx, name, mode, method)
	if err != nil {
		return err
	}
	display, hide := a.show()
	defer hide()
	o.Progress, o.Log = display, a.log()
	start := time.Now()
	results, err := transfer.Push(ctx, from, to, images, o)
	hide()
	return a.printResults(outcome{verb: "push", past: "pushed", remote: name, results: results, took: time.Since(start), err: err})
}

// An image ID, or the beginning of one: the engine would find it, but it names no repository.
var looksLikeID = regexp.MustCompile(`^(sha256:)?[0-9a-f]{12,64}$`)

// pushImages reads the images of a push: what the engine calls them, and what the remote will.
func pushImages(args []string, as string) ([]transfer.PushImage, error) {
	if as != "" {
		target, err := parseAs(as, args)
		if err != nil {
			return nil, err
		}
		return []transfer.PushImage{{Source: args[0], Target: target}}, nil
	}
	var images []transfer.PushImage
	for _, arg := range args {
		if looksLikeID.MatchString(arg) {
			return nil, fault.New(fault.Usage, "%s is an image ID: it names no repository", arg).
				Advise("Say under which name to store it: --as NAME[:TAG].")
		}
		ref, err := parseReference(arg)
		if err != nil {
			return nil, err
		}
		if !ref.Digest.IsZero() && ref.Tag == "" {
			return nil, fault.New(fault.Usage, "%s names no tag to store", arg).
				Advise("Say under which name to store it: --as NAME[:TAG].")
		}
		images = append(images, transfer.PushImage{
			Source: arg,
			Target: image.Reference{Repository: ref.Repository, Tag: ref.Tag},
		})
	}
	return images, nil
}
