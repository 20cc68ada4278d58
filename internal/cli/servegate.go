package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

// gating is what the flags of serve say about the proxy that is an engine's only way out.
type gating struct {
	listen string   // host:port; empty for none
	allow  []string // what it lets through besides the registry
}

func (g *gating) flags(c *cobra.Command) {
	c.Flags().StringVar(&g.listen, "deny-proxy", "", "with --sealed: an engine's proxy at `ADDRESS:PORT`, which refuses everything but this registry")
	c.Flags().StringSliceVar(&g.allow, "proxy-allow", nil, "let that proxy through to `HOST:PORT`, too")
}

// check refuses what makes no sense.
func (a *app) checkGating(g gating) error {
	switch {
	case g.listen == "" && len(g.allow) > 0:
		return fault.New(fault.Usage, "--proxy-allow is for --deny-proxy, and that is missing")
	case g.listen != "" && !a.sealed:
		return fault.New(fault.Usage, "--deny-proxy is for --sealed, and that is missing")
	}
	for _, address := range g.allow {
		if err := sealed.CheckAddress(address); err != nil {
			return fault.New(fault.Usage, "--proxy-allow: %s", err)
		}
	}
	return nil
}

// sealedMirror lets a registry that stands for others refuse what it does not have,
// where dogestry is sealed.
func (a *app) sealedMirror(registry http.Handler, mirrors []string) http.Handler {
	if !a.sealed || len(mirrors) == 0 {
		return registry
	}
	return sealed.Mirror(registry)
}

// beside runs serve, and where it is asked for the proxy beside it, which lets
// clients through to the addresses that serve admits. Where the proxy listens, serve
// is told; "" is none. When one of them ends, so does the other.
func (a *app) beside(ctx context.Context, g gating, serve func(ctx context.Context, proxy string, admit func(address string)) error) error {
	if g.listen == "" {
		return serve(ctx, "", func(string) {})
	}
	allowed, err := sealed.New(sealed.Options{From: "--deny-proxy", Allow: g.allow})
	if err != nil {
		return err
	}
	listener, err := listenOnLoopback(ctx, g.listen)
	if err != nil {
		return err
	}
	if !a.json {
		fmt.Fprintf(a.out, "denying everything else at http://%s\n", listener.Addr())
	}
	if !a.quiet {
		fmt.Fprintln(a.errOut, "see what the engine has to be told: dogestry seal")
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error {
		defer end()
		return serve(ctx, listener.Addr().String(), func(address string) { allowed.Admit("tcp", address) })
	})
	both.Go(func() error {
		if err := sealed.NewGate(allowed, a.serveLog()).Serve(ctx, listener); err != nil {
			return fault.Wrap(fault.Other, err, "cannot go on denying at %s", listener.Addr())
		}
		return nil
	})
	return both.Wait()
}

// listenOnLoopback listens where nobody but this machine's programs can ask.
func listenOnLoopback(ctx context.Context, address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fault.Wrap(fault.Other, err, "cannot listen at %s", address).
			Advise("Another program may be there already: choose another port with --deny-proxy.")
	}
	if at, ok := listener.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() {
		return nil, errors.Join(fault.New(fault.Usage, "%s can be reached from other machines", address).
			Advise("Let the proxy listen at 127.0.0.1 or [::1]: nobody has to log in there."), listener.Close())
	}
	return listener, nil
}
