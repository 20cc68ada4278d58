package cli

import (
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/transfer"
	"github.com/dogestry/dogestry/internal/verify"
)

// verification is what the flags of verify say.
type verification struct {
	name        string
	images      []image.Reference
	part        verify.Part
	parallel    int
	repairFrom  string
	compression codec.Codec
}

func (a *app) verifyCommand() *cobra.Command {
	var subset, compression, store string
	v := verification{}
	c := &cobra.Command{
		Use:   "verify [flags] REMOTE [IMAGE[:TAG]...]",
		Short: "Prove every byte of a remote, and repair what is damaged",
		Long: `Read every byte that the tags of a remote reach, or those of the named images,
decode it, and compare it with the digest that names it. Each object is read
once, however many images share it. What is damaged or missing is listed with
the images that need it; the exit code is then 5. Of a layer with a chunk index
it is told which frames of its file are damaged, and which files they hold.

--repair-from writes that anew, and nothing else: from another remote, or from
the engine where that still has the image. Of a layer that has a chunk index
there, only the frames are read that hold what is damaged here. It is verified
again afterwards. What could not be repaired stays in the list. No tag is moved.

An index proves nothing, and a layer is whole without it: that one is damaged is
told, and is no damage. dogestry index writes it anew.

With --sealed, images whose manifests let a layer be fetched from a URL are
listed too; where nothing else is wrong, the exit code is then 4.`,
		Example: `  dogestry verify /srv/images
  dogestry verify s3://bucket/images --subset 2/7
  dogestry verify ./images myapp:1 --repair-from s3://bucket/images
  dogestry verify ./images --repair-from engine`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			v.name = args[0]
			if v.parallel < 1 {
				return fault.New(fault.Usage, "--parallel %d: at least one layer is read at a time", v.parallel)
			}
			if c.Flags().Changed("subset") {
				if v.part, err = verify.ParsePart(subset); err != nil {
					return fault.New(fault.Usage, "--subset %s", err)
				}
			}
			if v.compression, err = codec.ByName(compression); err != nil {
				return fault.New(fault.Usage, "--compression %s", err)
			}
			if a.engineStore, err = engine.ParseStoreUse(store); err != nil {
				return fault.Wrap(fault.Usage, err, "--engine-store")
			}
			for _, arg := range args[1:] {
				ref, err := parseReference(arg)
				if err != nil {
					return err
				}
				v.images = append(v.images, ref)
			}
			return a.verify(c, v)
		},
	}
	c.Flags().StringVar(&subset, "subset", "", "read the layers of one `PART` alone: 2/7 is the second of seven; tags and documents are read always")
	c.Flags().IntVar(&v.parallel, "parallel", runtime.GOMAXPROCS(0), "layers read at once")
	c.Flags().StringVar(&v.repairFrom, "repair-from", "", "write again what is damaged, from this `REMOTE`, or from the engine: \"engine\"")
	c.Flags().StringVar(&compression, "compression", codec.LZ4.Name(), "how layers are stored that are written again: lz4, zstd or none")
	c.Flags().StringVar(&a.engine, "engine", "", "the engine's `URL` for --repair-from engine (default: the one that docker uses)")
	c.Flags().StringVar(&store, "engine-store", string(engine.StoreAuto), "read layers from the engine's own directory: auto, off or require")
	c.Flags().Var(&a.uploadLimit, "limit-upload", "send at most this much a second to a remote on a network (5MB, 500kB)")
	c.Flags().Var(&a.downloadLimit, "limit-download", "receive at most this much a second from a remote on a network")
	return c
}

func (a *app) verify(c *cobra.Command, v verification) error {
	ctx := c.Context()
	if err := checkRemote(v.name); err != nil {
		return err
	}
	if err := checkRepair(v); err != nil {
		return err
	}
	display, hide := a.showVerb("verified")
	defer hide()
	display.Status("opening " + v.name)
	from, err := a.openVerified(ctx, v)
	if err != nil {
		return err
	}
	o := verify.Options{Images: v.images, Part: v.part, Parallel: v.parallel, Sealed: a.sealed, Progress: &verifying{Display: display}, Log: a.log()}
	switch v.repairFrom {
	case "":
	case fromEngine:
		e, err := a.connect(ctx)
		if err != nil {
			return err
		}
		defer e.Close()
		o.Mender = &transfer.Mender{From: e, To: from, Options: transfer.Options{Progress: display, Log: a.log()}}
	default:
		var source *repo.Repo
		if source, err = a.openBeside(ctx, v.name, v.repairFrom, toRead, v.compression); err != nil {
			return err
		}
		o.Mender = &verify.Copier{From: source, To: from}
	}
	var unreferenced []remote.Entry
	if a.json || a.debug {
		o.Unreferenced = func(e remote.Entry) {
			a.log().Debug("no tag reaches an entry", "entry", e.ID, "bytes", e.Bytes, "modified", e.Modified)
			if a.json {
				e.Files = nil
				unreferenced = append(unreferenced, e)
			}
		}
	}
	start := time.Now()
	report, err := verify.Run(ctx, from, o)
	hide()
	return a.printVerified(verified{verification: v, report: report, unreferenced: unreferenced, took: time.Since(start), err: err})
}
