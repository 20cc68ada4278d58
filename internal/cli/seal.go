package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

func (a *app) sealCommand() *cobra.Command {
	var registry, proxy string
	var mirrors []string
	var check bool
	c := &cobra.Command{
		Use:   "seal [flags]",
		Short: "Print or check what seals an engine",
		Long: `Print the configuration of engines that lets them pull from a registry of
dogestry's alone, beside which --deny-proxy refuses all else:

  dogestry serve --sealed REMOTE --mirror-of docker.io --deny-proxy 127.0.0.1:3128

--check asks the engine whether it is in force. The exit code is 4 where it is not.
What containers contact is not in it: see docs/sealed.md.`,
		Example: `  dogestry seal
  dogestry seal --registry https://images.lan --proxy 127.0.0.1:3128
  dogestry seal --check`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s := sealed.Setup{Mirrors: mirrors}
			if len(mirrors) == 0 {
				return fault.New(fault.Usage, "--mirror-of names no registry")
			}
			for _, m := range mirrors {
				if sealed.CheckAddress(m) != nil && sealed.CheckAddress(m+":443") != nil {
					return fault.New(fault.Usage, "--mirror-of %q is no registry such as docker.io", m)
				}
			}
			for flag, to := range map[string]*url.URL{"registry": &s.Registry, "proxy": &s.Proxy} {
				value := map[string]string{"registry": registry, "proxy": proxy}[flag]
				u, err := serverURL(value)
				if err != nil || flag == "proxy" && u.Scheme != "http" {
					return fault.New(fault.Usage, "--%s is no address such as 127.0.0.1:5000 or http://127.0.0.1:5000", flag)
				}
				*to = *u
			}
			if check {
				return a.checkSeal(c.Context(), s)
			}
			return a.printSeal(s)
		},
	}
	c.Flags().StringVar(&registry, "registry", "127.0.0.1:5000", "`ADDRESS` of `dogestry serve`: host:port, or a URL where it speaks TLS")
	c.Flags().StringVar(&proxy, "proxy", "127.0.0.1:3128", "`ADDRESS` of its --deny-proxy")
	c.Flags().StringSliceVar(&mirrors, "mirror-of", []string{sealed.DockerHub}, "the `REGISTRY` that it stands for; may be there several times")
	c.Flags().BoolVar(&check, "check", false, "ask the engine whether that is in force")
	c.Flags().StringVar(&a.engine, "engine", "", "the engine's `URL` for --check (default: the one that docker uses)")
	return c
}

// serverURL reads the address of a server, which without a scheme speaks no TLS.
func serverURL(value string) (*url.URL, error) {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(strings.TrimSuffix(value, "/"))
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("it is more than an address")
	}
	return u, sealed.CheckAddress(sealed.HostPort(u))
}

func (a *app) printSeal(s sealed.Setup) error {
	files := s.Files()
	if a.json {
		a.printJSON(map[string]any{"files": files})
		return nil
	}
	for _, f := range files {
		fmt.Fprintf(a.out, "# %s: %s\n%s\n", f.For, f.Path, f.Content)
	}
	if !a.quiet {
		fmt.Fprint(a.errOut, "Add what is for your engine to what its file has already, restart it (systemctl daemon-reload; systemctl restart docker),\n"+
			"and see whether it is in force: dogestry seal --check\n")
	}
	return nil
}

// checkSeal asks the engine.
func (a *app) checkSeal(ctx context.Context, s sealed.Setup) error {
	e, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer e.Close()
	if e.Kind() == engine.Podman {
		return fault.New(fault.Other, "the engine at %s is Podman, which does not tell how it reaches registries", e.Host()).
			Advise("Compare its registries.conf, and the environment of its service, with what `dogestry seal` prints.")
	}
	now, err := e.Network(ctx)
	if err != nil {
		return err
	}
	missing := s.Missing(sealed.State{Mirrors: now.Mirrors, HTTPProxy: now.HTTPProxy, HTTPSProxy: now.HTTPSProxy, NoProxy: now.NoProxy})
	var failed error
	if len(missing) > 0 {
		failed = fault.New(fault.Refused, "the engine at %s is not sealed", e.Host()).
			Advise("Let it have what `dogestry seal` prints, and restart it.")
	}
	if a.json {
		return a.printDocument(struct {
			Engine  string   `json:"engine"`
			Version string   `json:"version"`
			Sealed  bool     `json:"sealed"`
			Missing []string `json:"missing"`
			Error   *failure `json:"error,omitempty"`
		}{e.Host(), now.Version, failed == nil, missing, failureOf(failed)}, failed)
	}
	for _, m := range missing {
		fmt.Fprintln(a.out, oneLine(m))
	}
	if failed == nil && !a.quiet {
		fmt.Fprintf(a.errOut, "the engine at %s asks %s, and %s for all else\n", e.Host(), s.Registry.String(), s.Proxy.String())
	}
	return failed
}
