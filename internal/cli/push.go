package cli

import (
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/transfer"
	"github.com/dogestry/dogestry/internal/trust"
)

func (a *app) pushCommand() *cobra.Command {
	var as, compression, store, signKey string
	var files composeFlags
	var o transfer.Options
	c := &cobra.Command{
		Use:   "push [flags] REMOTE {IMAGE[:TAG]... | --compose FILE}",
		Short: "Move images from the engine to a remote",
		Long: `Move images from the engine to a remote. Only layers that the remote lacks are
stored; a tag is written once its image is there in full. An interrupted push
leaves whole layers, and the same command goes on from there.`,
		Example: `  dogestry push /srv/images myapp:20131211
  dogestry push ./images myapp:latest --as myapp:live
  dogestry push s3://bucket/images web worker --compression zstd
  dogestry push s3://bucket/images myapp:1.4.2 --recompress
  dogestry push s3://bucket/images myapp:1.4.2 --if-absent
  dogestry push registry://registry.example.com/team myapp
  dogestry push s3://bucket/images myapp:live --sign-key release.key
  dogestry push s3://bucket/images --compose compose.yaml`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkTransferFlags(c, o); err != nil {
				return err
			}
			if err := checkTypedCompression(c, args[0], compression); err != nil {
				return err
			}
			var err error
			if a.engineStore, err = engine.ParseStoreUse(store); err != nil {
				return fault.Wrap(fault.Usage, err, "--engine-store")
			}
			all, err := files.images(c.Context(), a, args[1:])
			if err != nil {
				return err
			}
			images, err := pushImages(all, as)
			if err != nil {
				return err
			}
			signer, err := openSigner(c, signKey)
			if err != nil {
				return err
			}
			return a.push(c, args[0], images, compression, signer, o)
		},
	}
	a.transferFlags(c, &o)
	files.add(c)
	c.Flags().StringVar(&a.engine, "engine", "", "the engine's `URL`: unix://, tcp://, ssh://, context://NAME (default: the one that docker uses)")
	c.Flags().StringVar(&as, "as", "", "store the one image under this `NAME[:TAG]`")
	c.Flags().BoolVar(&o.IfAbsent, "if-absent", false, "refuse to move a tag that names another image already")
	signFlag(c, &signKey)
	a.indexFlag(c)
	recompressFlag(c, &o)
	c.Flags().StringVar(&store, "engine-store", string(engine.StoreAuto), "read layers from the engine's own directory, as root on its machine: auto, off or require")
	c.Flags().StringVar(&compression, "compression", "", "how layers are stored: lz4 (fast links; the default), zstd (smaller, for slow links) or none; in a registry gzip (the default), zstd or none")
	return c
}

func (a *app) push(c *cobra.Command, name string, images []transfer.PushImage, compression string, signer *trust.Signer, o transfer.Options) error {
	ctx := c.Context()
	mode := toWrite
	if o.DryRun {
		mode = toPlan
	}
	if err := checkRemote(name); err != nil {
		return err
	}
	if isWeb(name) { // before an engine is asked for what cannot be pushed
		return webIsReadOnly(name)
	}
	display, hide := a.show()
	defer hide()
	display.Status("opening " + name)
	from, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer from.Close()
	start := time.Now()
	end := func(results []transfer.Result, err error) error {
		hide()
		return a.printResults(outcome{verb: "push", past: "pushed", remote: name, results: results, took: time.Since(start), err: err})
	}
	if err := transfer.Find(ctx, from, images); err != nil { // a name that is mistyped makes no directory
		return end(nil, err)
	}
	to, err := a.openImages(ctx, name, mode, compression)
	if err != nil {
		return err
	}
	if signer != nil {
		if signer.To, err = signatures(to, name); err != nil {
			return err
		}
		o.Sign = signer.Sign
	}
	display.Status("asking what " + name + " has already")
	o.Progress, o.Log = display, a.log()
	return end(transfer.Push(ctx, from, to, images, o))
}

// An image ID, or the beginning of one: the engine would find it, but it names no repository.
var looksLikeID = regexp.MustCompile(`^(sha256:)?[0-9a-f]{12,64}$`)

// engineName is what the engine is asked for: a name with a tag or a digest, which
// it cannot take for the beginning of an image ID. "cafe" it could.
func engineName(ref image.Reference) string {
	if !ref.Digest.IsZero() {
		return ref.Repository + "@" + ref.Digest.String()
	}
	return ref.Repository + ":" + ref.Tag
}

// pushImages reads the images of a push: what the engine calls them, and what the remote will.
func pushImages(args []string, as string) ([]transfer.PushImage, error) {
	if as != "" {
		target, err := parseAs(as, args)
		if err != nil {
			return nil, err
		}
		source := args[0]
		if !looksLikeID.MatchString(source) {
			ref, err := parseReference(source)
			if err != nil {
				return nil, err
			}
			source = engineName(ref)
		}
		return []transfer.PushImage{{Source: source, Target: target}}, nil
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
			Source: engineName(ref),
			Target: image.Reference{Repository: ref.Repository, Tag: ref.Tag},
		})
	}
	return images, nil
}
