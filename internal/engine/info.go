package engine

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// Kind is how an engine keeps images, and with it what it calls them and which
// archives it takes.
type Kind string

// The kinds of engines.
const (
	Classic    Kind = "classic"    // Docker, layers unpacked by a storage driver; an image's ID is its config's digest
	Containerd Kind = "containerd" // Docker, in containerd's image store; an image's ID is its manifest's or index's digest
	Podman     Kind = "podman"     // Podman's API for Docker's clients; as Classic, but it takes whole archives only
)

// snapshotterDriver is what an engine with the containerd image store says its
// driver's type is (GET /info, DriverStatus).
const snapshotterDriver = "io.containerd.snapshotter"

// podmanComponent is what Podman calls itself among its components (GET /version).
const podmanComponent = "Podman Engine"

// ask asks the engine what it is (GET /info, GET /version).
func (c *Client) ask(ctx context.Context) error {
	r, err := c.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return c.failure(ctx, err, "cannot ask what it is")
	}
	c.kind = Classic
	for _, pair := range r.Info.DriverStatus {
		if pair[0] == "driver-type" && strings.HasPrefix(pair[1], snapshotterDriver) {
			c.kind = Containerd
		}
	}
	if c.kind == Classic { // Podman's answer to /info does not tell
		v, err := c.api.ServerVersion(ctx, client.ServerVersionOptions{})
		if err != nil {
			return c.failure(ctx, err, "cannot ask what it is")
		}
		for _, part := range v.Components {
			if part.Name == podmanComponent {
				c.kind = Podman
			}
		}
	}
	if c.id = socketID(c.host); c.kind != Podman && r.Info.ID != "" {
		c.id = strings.Join([]string{r.Info.ID, r.Info.Name, r.Info.DockerRootDir}, " ")
	}
	if strings.HasPrefix(c.host, "unix://") {
		c.dataRoot, c.driver = r.Info.DockerRootDir, r.Info.Driver
		if r.Info.Containerd != nil {
			c.containerd = r.Info.Containerd.Address
		}
	}
	p := platforms.Normalize(ocispec.Platform{OS: r.Info.OSType, Architecture: r.Info.Architecture})
	c.platform = image.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
	return nil
}

// socketID is what an engine is told apart by that says no ID, or another one each
// time, as Podman: its socket. It is empty for one on a network.
func socketID(host string) string {
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return ""
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return "unix://" + path
}

// manifestsAPI is from which version of the API on an engine with the containerd
// image store tells which manifests it has whole.
const manifestsAPI = "1.48"

// check refuses an engine of a kind that this version does not support.
func (c *Client) check() error {
	if c.kind == Containerd && versions.LessThan(c.api.ClientVersion(), manifestsAPI) {
		return fault.New(fault.Refused, "the engine at %s keeps its images in the containerd image store and is older than Docker 28", c.host).
			Advise(`Use Docker 28 or later, or the classic store: "features": {"containerd-snapshotter": false} in its daemon.json.`)
	}
	return nil
}

// zstdAPI is from which version of the API on an engine with a classic store
// unpacks zstd: Docker 23.
const zstdAPI = "1.42"

// Unpacks reports whether the engine takes layers in an archive that are compressed
// by "gzip" or "zstd", and proves what is in them. One with the containerd image store
// takes blobs, whatever is in them.
func (c *Client) Unpacks(compression string) bool {
	switch compression {
	case "gzip":
		return true
	case "zstd":
		return c.kind != Classic || !versions.LessThan(c.api.ClientVersion(), zstdAPI)
	}
	return false
}

// Kind returns what kind of engine it is.
func (c *Client) Kind() Kind { return c.kind }

// ID returns what the engine calls itself, and no other does: its ID with its machine's
// name and its data root, since machines made of one copied disk may have one ID, and so
// may several engines of Docker 20.10 on one machine. Where it says none it is its
// socket, and empty for one on a network.
func (c *Client) ID() string { return c.id }

// Platform returns what the engine runs on.
func (c *Client) Platform() image.Platform { return c.platform }

// Room returns how many bytes are free where the engine keeps its images and
// stages exports and loads; ok is false where that is not on this machine.
func (c *Client) Room() (free int64, ok bool) {
	if c.dataRoot == "" {
		return 0, false
	}
	return room(c.dataRoot)
}
