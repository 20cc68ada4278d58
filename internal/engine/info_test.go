package engine

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
)

func TestContainerdStoreIsRefused(t *testing.T) {
	f := &fake{driver: [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}}}
	c, err := Connect(t.Context(), Options{URL: f.start(t), Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		c.Close()
	}
	if !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "containerd image store") {
		t.Fatalf("Connect: %v", err)
	}
}

func TestRoom(t *testing.T) {
	e := enginetest.For(t)
	c, err := Connect(t.Context(), Options{URL: e.Host, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if free, ok := c.Room(); e.Private() && (!ok || free <= 0) {
		t.Errorf("Room of an engine on this machine: %d, %v", free, ok)
	}
}
