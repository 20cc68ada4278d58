//go:build unix

package s3test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestOwnerDies starts this test binary again, lets it start a server, and kills it.
func TestOwnerDies(t *testing.T) {
	const variable = "DGY_S3TEST_OWNER"
	if parent := os.Getenv(variable); parent != "" {
		s, err := Start(t.Context(), Options{Parent: parent})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("pid=%d.\n", s.cmd.Process.Pid)
		select {}
	}
	parent := t.TempDir()
	owner := exec.Command(os.Args[0], "-test.run=^TestOwnerDies$")
	owner.Env = append(os.Environ(), variable+"="+parent)
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	for buf := make([]byte, 100); !strings.Contains(said.String(), ".\n"); {
		n, err := out.Read(buf)
		said.Write(buf[:n])
		if err != nil {
			t.Fatalf("the owner ended: %s", &said)
		}
	}
	_, number, _ := strings.Cut(strings.TrimSuffix(strings.TrimSpace(said.String()), "."), "pid=")
	pid, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	_ = owner.Process.Kill()
	_ = owner.Wait()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left, _ := os.ReadDir(parent)
		if len(left) == 0 && !runs(pid) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server's process runs: %t; its folder: %v", runs(pid), left)
		}
	}
}

// runs reports whether there is such a process that is more than a zombie, which init may not reap at once.
func runs(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !strings.Contains(string(stat), ") Z ")
}
