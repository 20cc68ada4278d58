package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Version and Commit are set by the build (-ldflags -X).
var (
	Version = "dev"
	Commit  string // in full; "" where only Go has noted it, or nobody
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return a.printVersion() },
	}
}

func (a *app) printVersion() error {
	v := struct {
		Version  string `json:"version"`
		Format   string `json:"format"`
		Go       string `json:"go"`
		Platform string `json:"platform"`
		Revision string `json:"revision,omitempty"`
	}{Version, "2.0", runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, revision()}
	if a.json {
		a.printJSON(v)
		return nil
	}
	commit := ""
	if v.Revision != "" {
		commit = "commit " + v.Revision + ", "
	}
	_, err := fmt.Fprintf(a.out, "dogestry %s (%srepository format %s, %s, %s)\n", v.Version, commit, v.Format, v.Go, v.Platform)
	return err
}

func revision() string {
	if Commit != "" {
		return Commit
	}
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
