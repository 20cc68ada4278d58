package transfer

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// TestPushToAFullDisk: the fault says where, and what to do; after that has been done, a rerun writes only the rest.
func TestPushToAFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	m := heavy("1") // two layers of 10 MiB, some 5 MiB each when stored
	client := newClassic(m).connect(t)
	_, err := Push(t.Context(), client, remoteIn(t, dir), pushes(t, "much:1"), Options{Parallel: 1})
	if !fault.Is(err, fault.Other) || !strings.Contains(err.Error(), remoteName) || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("error %v", err)
	}
	if advice := fault.AdviceOf(err); !strings.Contains(advice, "Make room in "+remoteName) {
		t.Errorf("advice %q", advice)
	}
	noTemporary(t, dir)
	if tags := tagsOf(t, remoteIn(t, dir)); len(tags) > 0 {
		t.Errorf("tags %q", tags)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	target := &hooked{Target: remoteIn(t, dir)}
	mustPush(t, client, target, "much:1")
	if second := image.DigestOf(m.Layers()[1].Bytes()); len(target.layers) != 1 || target.layers[0] != second {
		t.Errorf("stored %v, want %s alone", target.layers, second)
	}
	checkWhole(t, remoteIn(t, dir), "much:1", m)
}
