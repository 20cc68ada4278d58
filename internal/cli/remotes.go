package cli

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/config"
	"github.com/dogestry/dogestry/internal/fault"
)

func (a *app) remoteCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "remote COMMAND",
		Short: "Give remotes names, in the user's configuration",
		Long: `Give remotes names, in the user's configuration. A name can stand wherever a
command has REMOTE, and what is set for the name holds there:

  dogestry remote add prod s3://bucket/images?region=eu-central-1 --set compression=zstd
  dogestry push prod myapp:20131211

A directory that is called the same is ./prod. See docs/config.md.`,
		Args: noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.remoteListCommand(), a.remoteShowCommand(), a.remoteAddCommand(), a.remoteRmCommand(), a.remoteCheckCommand())
	for _, sub := range c.Commands() {
		sub.Args = usageArgs(sub.Args)
		if sub.Name() != "add" && sub.Name() != "list" {
			sub.ValidArgsFunction = a.completeNames
		}
	}
	return c
}

func (a *app) remoteListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "Show the names of remotes",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				all := []remoteShown{}
				for _, name := range a.set.Names() {
					all = append(all, showRemote(name, a.set.Remotes[name]))
				}
				a.printJSON(map[string]any{"remotes": all})
				return nil
			}
			w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tREMOTE\tFROM")
			for _, name := range a.set.Names() {
				u := a.set.Remotes[name].URL
				fmt.Fprintf(w, "%s\t%s\t%s\n", name, oneLine(u.Value), oneLine(u.From))
			}
			return w.Flush()
		},
	}
}

// remoteShown is a remote in --json output.
type remoteShown struct {
	Name     string              `json:"name"`
	URL      string              `json:"url"`
	From     string              `json:"from"`
	Settings map[string][]string `json:"settings,omitempty"`
}

func showRemote(name string, r config.Remote) remoteShown {
	settings := map[string][]string{}
	for flag, value := range r.Flags {
		settings[flag] = []string{value.Value}
	}
	if r.RequireSignature.From != "" {
		settings["require-signature"] = []string{fmt.Sprint(r.RequireSignature.Value)}
	}
	if r.VerifyKeys.From != "" {
		settings["verify-key"] = r.VerifyKeys.Value
	}
	if r.Cache.From != "" {
		settings["cache"] = []string{r.Cache.Value}
	}
	if r.CacheSize.From != "" {
		settings["cache-size"] = []string{fmt.Sprint(r.CacheSize.Value)}
	}
	return remoteShown{name, r.URL.Value, r.URL.From, settings}
}

func (a *app) remoteShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show what a name stands for, and what is set for it",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := a.remoteNamed(args[0])
			if err != nil {
				return err
			}
			shown := showRemote(args[0], r)
			if a.json {
				a.printJSON(shown)
				return nil
			}
			w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "name\t%s\nurl\t%s\n", shown.Name, oneLine(shown.URL))
			for _, setting := range slices.Sorted(maps.Keys(shown.Settings)) {
				fmt.Fprintf(w, "%s\t%s\n", setting, oneLine(strings.Join(shown.Settings[setting], " ")))
			}
			fmt.Fprintf(w, "from\t%s\n", oneLine(shown.From))
			return w.Flush()
		},
	}
}

// remoteNamed finds a remote by its name.
func (a *app) remoteNamed(name string) (config.Remote, error) {
	r, ok := a.set.Remotes[name]
	if ok {
		return r, nil
	}
	missing := fault.New(fault.NotFound, "no remote is called %.80q", name)
	if near := config.Near(name, a.set.Names()); len(near) > 0 {
		return r, missing.Advise("Did you mean %s?", strings.Join(near, " or "))
	}
	return r, missing.Advise("See `dogestry remote list`; `dogestry remote add %s URL` gives one this name.", cmp.Or(name, "NAME"))
}

func (a *app) remoteCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check NAME",
		Short: "Find out what the remote can and cannot do, as `dogestry check` does",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.remoteNamed(args[0])
			if err != nil {
				return err
			}
			a.named = append(a.named, namedRemote{args[0], r.URL.Value})
			return a.check(c.Context(), r.URL.Value, false, 24*time.Hour)
		},
	}
}

// absoluteRemote is the remote that a command line names, for a file: a path is no
// longer relative to where the command runs.
func absoluteRemote(name string) (string, error) {
	if name != "~" && !strings.HasPrefix(name, "~/") {
		if err := checkRemote(name); err != nil {
			return "", err
		}
		if !strings.Contains(name, "://") {
			var err error
			if name, err = filepath.Abs(name); err != nil {
				return "", errors.New("the working directory is gone")
			}
		}
	}
	return name, nil
}
