package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/config"
	"github.com/dogestry/dogestry/internal/fault"
)

func (a *app) remoteAddCommand() *cobra.Command {
	var settings []string
	var force bool
	c := &cobra.Command{
		Use:   "add [flags] NAME URL",
		Short: "Give a remote a name",
		Long: `Give a remote a name, in the user's configuration. URL is also the path of a
directory. --set sets for it what the configuration can set for all: compression,
parallel, cache, cache-size, verify-key, require-signature, limit-upload,
limit-download.`,
		Example: `  dogestry remote add prod "s3://bucket/images?region=eu-central-1"
  dogestry remote add disk /srv/images --set verify-key=/etc/dogestry/release.key.pub`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.addRemote(args[0], args[1], settings, force)
		},
	}
	c.Flags().StringArrayVar(&settings, "set", nil, "`SETTING=VALUE` for this remote; may be there several times")
	c.Flags().BoolVar(&force, "force", false, "replace a remote that is called so")
	return c
}

func (a *app) addRemote(name, url string, settings []string, force bool) error {
	if err := config.CheckName(name); err != nil {
		return fault.New(fault.Usage, "%s", err)
	}
	url, err := absoluteRemote(url)
	if err != nil {
		return err
	}
	values := map[string][]string{}
	for _, s := range settings {
		setting, value, ok := strings.Cut(s, "=")
		if !ok || value == "" {
			return fault.New(fault.Usage, "--set %.80q is not written SETTING=VALUE", s)
		}
		if (setting == "verify-key" || setting == "cache") && value != "~" && !strings.HasPrefix(value, "~/") {
			value = absolute(value) // as on any command line, and not beside the file
		}
		values[setting] = append(values[setting], value)
	}
	is, known := a.set.Remotes[name]
	if known && !force {
		return fault.New(fault.Refused, "%s is %s already", name, is.URL.Value).
			Advise("%s says so. --force replaces it.", is.URL.From)
	}
	e, err := a.editConfiguration()
	if err != nil {
		return err
	}
	e.Put(name, url, values)
	if err := e.Write(); err != nil {
		return err
	}
	return a.printRemote(name)
}

// printRemote shows a remote as the configuration now has it.
func (a *app) printRemote(name string) error {
	a.set = nil
	set, err := a.configuration()
	if err != nil {
		return err
	}
	r := set.Remotes[name]
	if a.json {
		a.printJSON(showRemote(name, r))
		return nil
	}
	_, err = fmt.Fprintln(a.out, name, oneLine(r.URL.Value))
	return err
}

func (a *app) remoteRmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME...",
		Short: "Take names of remotes out of the user's configuration; the remotes stay",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := a.editConfiguration()
			if err != nil {
				return err
			}
			for _, name := range slices.Compact(slices.Sorted(slices.Values(args))) {
				r, err := a.remoteNamed(name)
				if err != nil {
					return err
				}
				if !e.Remove(name) {
					return fault.New(fault.Refused, "%s names the remote %s, and this command changes the user's file alone", r.URL.From, name)
				}
			}
			if err := e.Write(); err != nil {
				return err
			}
			if a.json {
				a.printJSON(map[string]any{"removed": args})
				return nil
			}
			for _, name := range args {
				fmt.Fprintln(a.out, name)
			}
			return nil
		},
	}
}

// editConfiguration opens the user's file to be changed.
func (a *app) editConfiguration() (*config.Edit, error) {
	s, err := a.sources()
	if err != nil {
		return nil, err
	}
	if s.User == "" {
		return nil, fault.New(fault.Refused, "there is no place for the user's configuration").Advise("Set HOME, or name a file: --config-file FILE.")
	}
	return config.Open(s.User)
}
