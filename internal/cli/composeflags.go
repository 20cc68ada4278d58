package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/compose"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// composeFlags name Compose files whose images are meant, beside those of the command line.
type composeFlags struct {
	files    []string
	profiles []string
}

func (f *composeFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.files, "compose", nil, "also the images of the services of this Compose `FILE`; of several, later ones override earlier ones")
	c.Flags().StringArrayVar(&f.profiles, "profile", nil, "with --compose: also the services of this `PROFILE`; \"*\" is all")
	c.Args = func(c *cobra.Command, args []string) error {
		switch {
		case len(f.files) == 0 && len(f.profiles) > 0:
			return fault.New(fault.Usage, "--profile goes with --compose")
		case len(f.files) == 0:
			return cobra.MinimumNArgs(2)(c, args)
		}
		return cobra.MinimumNArgs(1)(c, args)
	}
}

// images returns those of the command line, and then those of the Compose files that are
// not among them: each once, however it is written.
func (f *composeFlags) images(ctx context.Context, a *app, args []string) ([]string, error) {
	if len(f.files) == 0 {
		return args, nil
	}
	services, err := compose.Services(ctx, f.files, compose.Options{Profiles: f.profiles, Warn: func(line string) {
		if !a.quiet {
			fmt.Fprintln(a.errOut, oneLine(line))
		}
	}})
	if err != nil {
		return nil, err
	}
	known := map[image.Reference]bool{}
	for _, arg := range args {
		if ref, err := image.ParseReference(arg); err == nil { // else it is told later
			known[ref] = true
		}
	}
	all := args[:len(args):len(args)]
	for _, s := range services {
		ref, err := image.ParseReference(s.Image)
		if err != nil {
			return nil, fault.New(fault.Usage, "the service %s: %s", s.Name, err).Advise("Is a variable not set? `docker compose config --images` shows what the file comes to.")
		}
		if !known[ref] {
			known[ref] = true
			all = append(all, s.Image)
		}
	}
	if len(all) == 0 {
		return nil, fault.New(fault.Usage, "no service of the Compose file has an image").Advise("Of services with profiles, name one: --profile PROFILE.")
	}
	return all, nil
}
