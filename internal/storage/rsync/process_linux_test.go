package rsync

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// rsyncsOf returns the command lines of processes that have a file or directory below dir in theirs.
func rsyncsOf(t *testing.T, dir string) (running []string) {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range found {
		b, err := os.ReadFile(file)
		line := strings.ReplaceAll(string(b), "\x00", " ")
		if err == nil && strings.HasPrefix(filepath.Base(strings.Fields(line + " x")[0]), "rsync") && strings.Contains(line, dir) {
			running = append(running, line)
		}
	}
	return running
}

// TestCancelled proves that an upload that is given up ends at once, with all its processes, and publishes nothing.
func TestCancelled(t *testing.T) {
	proxy, dir := proxied(t)
	s := openStore(t, proxy.URL("module"), func(o *Options) { o.UploadLimit = 64 << 10 })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Put(ctx, "layer", bytes.NewReader(make([]byte, 64<<20))) }() // a quarter of an hour
	waitFor(t, "bytes to pass", func() bool { up, _ := proxy.Bytes(); return up > 10_000 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if running := rsyncsOf(t, s.spool.place); len(running) > 0 {
		t.Errorf("still running: %q", running)
	}
	if _, err := os.Stat(filepath.Join(dir, "layer")); !os.IsNotExist(err) {
		t.Errorf("it is there: %v", err)
	}
}

// putterURL tells this test binary to be a process that puts an object.
const putterURL = "DOGESTRY_TEST_PUTTER"

// TestPutter is no test, but what TestKilled kills.
func TestPutter(t *testing.T) {
	url := os.Getenv(putterURL)
	if url == "" {
		return
	}
	o, err := Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	o.Spool, o.UploadLimit = os.Getenv("SPOOL"), 64<<10
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Fatal(s.Put(context.Background(), "layer", bytes.NewReader(make([]byte, 64<<20))))
}

// TestKilled proves that rsync ends with a process that is killed, and that the next one removes what it left in the spool.
func TestKilled(t *testing.T) {
	proxy, dir := proxied(t)
	spool := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestPutter$")
	cmd.Env = append(os.Environ(), putterURL+"="+proxy.URL("module"), "SPOOL="+spool)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "bytes to pass", func() bool { up, _ := proxy.Bytes(); return up > 10_000 })
	if len(rsyncsOf(t, spool)) == 0 {
		t.Error("no rsync is seen that could end")
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	waitFor(t, "rsync to end", func() bool { return len(rsyncsOf(t, spool)) == 0 })
	if left, err := os.ReadDir(spool); len(left) != 1 || err != nil {
		t.Fatalf("the killed process has left %v, %v: nothing to find out here", left, err)
	}
	s := openStore(t, proxy.URL("module"), func(o *Options) { o.Spool = spool })
	if err := s.Put(t.Context(), "other", strings.NewReader("x")); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(spool); len(left) != 0 || err != nil {
		t.Errorf("in the spool: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "layer")); !os.IsNotExist(err) {
		t.Errorf("it is there: %v", err)
	}
}

// small mounts a file system of 1 MiB.
func small(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
