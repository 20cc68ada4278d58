package engine

import (
	"context"

	"github.com/moby/moby/client"
)

// Network is what an engine says of how it reaches registries.
type Network struct {
	Version string
	Mirrors []string // URLs that it asks for images of docker.io before that itself

	HTTPProxy, HTTPSProxy, NoProxy string // as it was told; passwords in them it does not show
}

// Network asks the engine (GET /info). Podman tells nothing of it.
func (c *Client) Network(ctx context.Context) (Network, error) {
	r, err := c.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return Network{}, c.failure(ctx, err, "cannot ask how it reaches registries")
	}
	n := Network{Version: r.Info.ServerVersion, HTTPProxy: r.Info.HTTPProxy, HTTPSProxy: r.Info.HTTPSProxy, NoProxy: r.Info.NoProxy}
	if r.Info.RegistryConfig != nil {
		n.Mirrors = r.Info.RegistryConfig.Mirrors
	}
	return n, nil
}
