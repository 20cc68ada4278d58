package engine

import (
	"context"
	"strings"

	"github.com/moby/moby/client"

	"github.com/dogestry/dogestry/internal/fault"
)

// snapshotterDriver is what an engine with the containerd image store says its
// driver's type is (GET /info, DriverStatus).
const snapshotterDriver = "io.containerd.snapshotter"

// check asks the engine what it is (GET /info). One whose image store this
// version does not know is a Refused fault: image IDs mean something else there.
func (c *Client) check(ctx context.Context) error {
	r, err := c.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return c.failure(ctx, err, "cannot ask what it is")
	}
	for _, pair := range r.Info.DriverStatus {
		if pair[0] == "driver-type" && strings.HasPrefix(pair[1], snapshotterDriver) {
			return fault.New(fault.Refused, "the engine at %s keeps its images in the containerd image store, which this version does not support", c.host).
				Advise(`Use an engine with the classic store: "features": {"containerd-snapshotter": false} in its daemon.json.`)
		}
	}
	if strings.HasPrefix(c.host, "unix://") {
		c.dataRoot = r.Info.DockerRootDir
	}
	return nil
}

// Room returns how many bytes are free where the engine keeps its images and
// stages exports and loads; ok is false where that is not on this machine.
func (c *Client) Room() (free int64, ok bool) {
	if c.dataRoot == "" {
		return 0, false
	}
	return room(c.dataRoot)
}
