package engine

import (
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// TestOldContainerdStoreIsRefused: its API does not tell what it has whole.
func TestOldContainerdStoreIsRefused(t *testing.T) {
	f := &fake{driver: [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}}}
	c, err := Connect(t.Context(), Options{URL: f.start(t), Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		c.Close()
	}
	if !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "containerd image store") {
		t.Fatalf("Connect: %v", err)
	}
}

// TestKind: engines tell what they are.
func TestKind(t *testing.T) {
	kind := func(want Kind) func(*testing.T, *enginetest.Engine) {
		return func(t *testing.T, e *enginetest.Engine) {
			c, err := Connect(t.Context(), Options{URL: e.Host, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if p := (image.Platform{OS: "linux", Architecture: runtime.GOARCH}); c.Kind() != want || c.Platform() != p {
				t.Errorf("it is %s on %s, not %s on %s", c.Kind(), c.Platform(), want, p)
			}
		}
	}
	enginetest.Each(t, kind(Classic))
	enginetest.EachContainerd(t, kind(Containerd))
	enginetest.EachPodman(t, kind(Podman))
}

func TestRoom(t *testing.T) { eachEngine(t, testRoom) }

func testRoom(t *testing.T, e *enginetest.Engine, c *Client) {
	if free, ok := c.Room(); e.Private() && (!ok || free <= 0) {
		t.Errorf("Room of an engine on this machine: %d, %v", free, ok)
	}
}
