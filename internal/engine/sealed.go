package engine

import (
	"context"
	"net"
	"strings"
	"time"

	"github.com/docker/cli/cli/context/docker"
	"github.com/moby/moby/client"

	"github.com/dogestry/dogestry/internal/sealed"
)

// dialTimeout is docker's own.
const dialTimeout = 10 * time.Second

// sealedDial lets the engine at the endpoint be dialled, and nothing else: also no
// proxy of the environment, unless that is allowed. An engine behind ssh is the
// ssh program's to reach, which has to be allowed by its name. Without a seal
// docker's own ways stay as they are.
func sealedDial(seal *sealed.Seal, endpoint docker.Endpoint) ([]client.Opt, error) {
	if seal == nil {
		return nil, nil
	}
	scheme, rest, _ := strings.Cut(endpoint.Host, "://")
	switch scheme {
	case "ssh":
		return nil, seal.Program("ssh")
	case "unix", "npipe":
		seal.Admit(scheme, rest)
		dial := seal.Dial(func(ctx context.Context, network, path string) (net.Conn, error) {
			if network == "npipe" {
				return dialPipe(ctx, path)
			}
			return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, path)
		})
		return []client.Opt{client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial(ctx, scheme, rest)
		})}, nil
	}
	address, _, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		address = address[at+1:]
	}
	if _, _, err := net.SplitHostPort(address); err == nil {
		seal.Admit("tcp", address)
	} else { // http and https have ports of their own
		host := strings.Trim(address, "[]")
		seal.Admit("tcp", net.JoinHostPort(host, "80"))
		seal.Admit("tcp", net.JoinHostPort(host, "443"))
	}
	return []client.Opt{client.WithDialContext(seal.Dial((&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext))}, nil
}
