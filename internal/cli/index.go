package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/transfer"
)

func (a *app) indexCommand() *cobra.Command {
	var o repo.IndexOptions
	c := &cobra.Command{
		Use:   "index [flags] REMOTE [IMAGE[:TAG]]...",
		Short: "Give layers that older versions pushed the index that small pulls need",
		Long: `Write the layers of a remote that have no chunk index anew with one. Pushes of this
version write it; what older ones pushed, or what was pushed with --no-index, is fetched
as a whole until then. Without IMAGE, the layers of all that tags reach.

The layer stays what it is, and in the compression that it is in; its file is replaced once
the new one is proved. It needs no engine, and works beside pushes and pulls. It can be
ended at any time, and the same command goes on from there. Layers that came compressed
from a registry or a containerd image store are kept byte for byte and get none.`,
		Example: `  dogestry index /srv/images --dry-run
  dogestry index s3://bucket/images
  dogestry index s3://bucket/images myapp:20131211`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if o.Parallel < 1 {
				return fault.New(fault.Usage, "--parallel %d: at least one layer is on its way at a time", o.Parallel)
			}
			for _, arg := range args[1:] {
				ref, err := parseReference(arg)
				if err != nil {
					return err
				}
				o.Images = append(o.Images, ref)
			}
			return a.index(c.Context(), args[0], o)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.DryRun, "dry-run", false, "say which layers would be written, and change nothing")
	f.IntVar(&o.Parallel, "parallel", transfer.DefaultParallel, "layers on their way at once")
	f.Var(&a.uploadLimit, "limit-upload", "send at most this much a second to a remote on a network (5MB, 500kB)")
	f.Var(&a.downloadLimit, "limit-download", "receive at most this much a second from a remote on a network")
	return c
}

func (a *app) index(ctx context.Context, name string, o repo.IndexOptions) error {
	if err := checkRemote(name); err != nil {
		return err
	}
	if isRegistry(name) {
		return fault.New(fault.Usage, "%s is a registry: it keeps layers as they are, and has no indexes", name)
	}
	display, hide := a.show()
	defer hide()
	display.Status("opening " + name)
	mode := toChange
	if o.DryRun {
		mode = toRead
	}
	in, err := a.openRemote(ctx, name, mode, codec.LZ4)
	if err != nil {
		return err
	}
	o.Status = display.Status
	o.Layer = func(l remote.Layer) (func(int), func()) {
		bar := display.Layer(l.Digest.Short(), l.Size)
		return bar.Add, bar.Done
	}
	start := time.Now()
	done, err := in.AddIndexes(ctx, o)
	hide()
	err = a.orSignal(err)
	if a.json {
		return a.printDocument(struct {
			Remote string `json:"remote"`
			*repo.Indexed
			Seconds float64  `json:"seconds"`
			Error   *failure `json:"error,omitempty"`
		}{name, done, time.Since(start).Seconds(), failureOf(err)}, err)
	}
	a.printIndexed(done, err)
	return err
}

// printIndexed says what was written on stdout, and the rest on stderr.
func (a *app) printIndexed(done *repo.Indexed, err error) {
	for _, f := range done.Failed {
		fmt.Fprintf(a.errOut, "%s\n", f.Error)
	}
	if err != nil && len(done.Written) == 0 {
		return // the error says it all
	}
	verb := "indexed"
	if done.DryRun {
		verb = "would index"
	}
	var was, now int64
	for _, l := range done.Written {
		was, now = was+l.Was, now+l.Layer.Stored
	}
	grown := ""
	if was > 0 && !done.DryRun {
		grown = fmt.Sprintf(", %s before", bytes(was))
	}
	fmt.Fprintf(a.out, "%s %s, %s%s\n", verb, count(len(done.Written), "layer"), bytes(now), grown)
	if a.quiet {
		return
	}
	for _, rest := range []struct {
		n   int
		why string
	}{
		{done.Had, "had an index"},
		{done.Small, "too small for one: fetched as a whole"},
		{done.Blobs, "compressed elsewhere, and kept byte for byte"},
		{done.Plain, "stored without compression"},
	} {
		if rest.n > 0 {
			fmt.Fprintf(a.errOut, "%s: %s\n", count(rest.n, "layer"), rest.why)
		}
	}
	if done.Old > 0 {
		fmt.Fprintf(a.errOut, "images of format 1.0: %d; `dogestry upgrade` makes them images of today\n", done.Old)
	}
}
