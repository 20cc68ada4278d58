package cli

import (
	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/transfer"
)

// checkCopyFlags refuses what makes no sense together.
func checkCopyFlags(c *cobra.Command, o transfer.CopyOptions, args []string) error {
	switch {
	case o.Delete && !o.All:
		return fault.New(fault.Usage, "--delete goes with --all")
	case o.Yes && !o.Delete:
		return fault.New(fault.Usage, "--yes goes with --delete")
	case o.All && c.Flags().Changed("as"):
		return fault.New(fault.Usage, "--as names one image, and --all means many")
	case !o.All && len(args) == 0:
		return usageError(c, fault.New(fault.Usage, "no image is named"))
	}
	return checkTransferFlags(c, o.Options)
}

// copyImages reads the images of a copy: what they are called at SRC, and at DST.
func copyImages(args []string, as string) ([]transfer.CopyImage, error) {
	var images []transfer.CopyImage
	for _, arg := range args {
		ref, err := parseReference(arg)
		if err != nil {
			return nil, err
		}
		target := image.Reference{Repository: ref.Repository, Tag: ref.Tag}
		if as != "" {
			if target, err = parseAs(as, args); err != nil {
				return nil, err
			}
		}
		if target.Tag == "" {
			return nil, fault.New(fault.Usage, "%s names no tag to store", arg).
				Advise("Say under which name to store it: --as NAME[:TAG].")
		}
		images = append(images, transfer.CopyImage{Source: ref, Target: target})
	}
	return images, nil
}

func parseRepositories(args []string) ([]string, error) {
	var repositories []string
	for _, arg := range args {
		repository, err := image.ParseRepository(arg)
		if err != nil {
			return nil, fault.New(fault.Usage, "%s", err).
				Advise("--all goes with names of repositories: leave the tag out, or --all.")
		}
		repositories = append(repositories, repository)
	}
	return repositories, nil
}
