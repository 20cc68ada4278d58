package engine

import (
	"log/slog"
	"os"
	"path/filepath"
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

// TestID: one engine has one ID, by whatever socket; without an ID of its own it is the socket.
func TestID(t *testing.T) {
	f := &fake{id: "ABCD"}
	if a, b := f.connect(t).ID(), f.connect(t).ID(); a != b || !strings.Contains(a, "ABCD") || !strings.Contains(a, "/data") || !strings.Contains(a, "machine") {
		t.Errorf("%q and %q", a, b)
	}
	nameless := (&fake{}).start(t)
	link := filepath.Join(shortDir(t), "l")
	if err := os.Symlink(strings.TrimPrefix(nameless, "unix://"), link); err != nil {
		t.Fatal(err)
	}
	if a, b, c := connect(t, nameless).ID(), connect(t, "unix://"+link).ID(), (&fake{}).connect(t).ID(); a == "" || a != b || a == c {
		t.Errorf("%q, by a link %q, another %q", a, b, c)
	}
}
