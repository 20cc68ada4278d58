package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/transfer"
)

func (a *app) upgradeCommand() *cobra.Command {
	o := transfer.CopyOptions{All: true}
	c := &cobra.Command{
		Use:   "upgrade [flags] REMOTE [IMAGE[:TAG]]...",
		Short: "Write images by the original dogestry as images of today",
		Long: `Write the images of a remote that the original dogestry left there, against
Docker up to 1.9 (format 1.0), as images of today: layers by their digests,
config and manifest. Then each tag is moved from the old image to the new one, unless
somebody else has moved it meanwhile. Without IMAGE, all of them.

It needs no engine. Old entries stay until gc frees them. An interrupted upgrade
leaves every tag at its old image or its new one, and the same command goes on from
there. Nothing proves that the bytes of the old images are what was pushed; from then
on they are proved.`,
		Example: `  dogestry upgrade /srv/images --dry-run
  dogestry upgrade s3://bucket/images
  dogestry upgrade /srv/images myapp:20131211`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkTransferFlags(c, o.Options); err != nil {
				return err
			}
			var refs []image.Reference
			for _, arg := range args[1:] {
				ref, err := parseReference(arg)
				if err != nil {
					return err
				}
				if !ref.Digest.IsZero() {
					return fault.New(fault.Usage, "%s names no tag", arg).Advise("An image of that format is reached by its tag alone.")
				}
				refs = append(refs, ref)
			}
			return a.upgrade(c.Context(), args[0], refs, o)
		},
	}
	a.moveFlags(c, &o.Options)
	return c
}

func (a *app) upgrade(ctx context.Context, name string, refs []image.Reference, o transfer.CopyOptions) error {
	if err := checkRemote(name); err != nil {
		return err
	}
	display, hide := a.show()
	defer hide()
	display.Status("reading " + name)
	start := time.Now()
	in, err := a.openRemote(ctx, name, toChange, codec.LZ4)
	if err != nil {
		return err
	}
	tags, err := original.Find(ctx, in, refs)
	if err != nil {
		return err
	}
	images := make([]transfer.CopyImage, len(tags))
	for i, t := range tags {
		images[i] = transfer.CopyImage{Source: t.Reference, Target: t.Reference, Moves: t.ID}
	}
	o.From, o.To, o.Progress, o.Log = name, name, display, a.log()
	done, err := transfer.Copy(ctx, a.originals(in, name, display.Status, ""), in, images, o)
	hide()
	if err == nil && len(tags) == 0 && !a.quiet {
		fmt.Fprintf(a.errOut, "no image of format 1.0 in %s\n", name)
		if !a.json {
			return nil
		}
	}
	if n := len(done.Failed); n > 0 && fault.Is(err, fault.Partial) {
		err = fault.New(fault.Partial, "%d of %d images in %s were not upgraded", n, len(images), name)
	}
	return a.printCopied(copied{CopyOptions: o, Copied: done, verb: "upgrade", past: "upgraded", took: time.Since(start), err: err})
}

// withOriginals returns a remote to read from, in which the images that the
// original dogestry wrote are there as what engines take.
func (a *app) withOriginals(from original.Remote, name string, status func(string)) *original.Source {
	return a.originals(from, name, status, fmt.Sprintf("; `dogestry upgrade %s` makes it one of today", name))
}

// originals is withOriginals with what is said behind a warning.
func (a *app) originals(from original.Remote, name string, status func(string), advice string) *original.Source {
	return original.New(from, original.Options{
		Name: name, Log: a.log(), CacheDir: cacheDir(), Key: canonical(name), Status: status,
		Warn: func(line string) { a.note(line + advice) },
	})
}
