package ssh

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/ssh/sshtest"
)

// TestFull: sftp says "failure" where the disk is full, or read-only. The reason is found out, and nothing stays.
func TestFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := openAt(t, sshtest.Start(t, sshtest.Options{}), dir)
	put(t, s, "dir/old", "old")
	for _, size := range []int{3 << 20, 8 << 20} {
		err := s.Put(t.Context(), "dir/large", strings.NewReader(strings.Repeat("x", size)))
		if !errors.Is(err, storage.ErrNoSpace) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if left := leftovers(t, dir); len(left) > 0 {
			t.Errorf("left over: %q", left)
		}
	}
	if got := content(t, s, "dir/old"); got != "old" {
		t.Errorf("%q", got)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "dir/new", strings.NewReader("x")); !errors.Is(err, storage.ErrPermission) {
		t.Errorf("read-only: %v", err)
	}
}
