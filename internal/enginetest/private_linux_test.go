package enginetest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestKillAndRestart(t *testing.T) {
	for _, k := range Kinds() {
		t.Run(k.Name, func(t *testing.T) { testKillAndRestart(t, k) })
	}
}

func testKillAndRestart(t *testing.T, k Kind) {
	e := StartFor(t, k.Options)
	ctx := t.Context()
	ref := e.LoadFor(t, Hello)
	e.Kill()
	if _, err := e.Docker(ctx, nil, "images"); err == nil {
		t.Error("a killed engine answers")
	}
	for _, how := range []string{"killed", "running"} {
		if err := e.Restart(ctx); err != nil {
			t.Fatalf("restart when %s: %v", how, err)
		}
		if _, ok, err := e.ImageID(ctx, ref); !ok || err != nil {
			t.Errorf("after a restart when %s the image is gone (%v)", how, err)
		}
	}
	if err := e.Empty(ctx); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := e.ImageID(ctx, ref); ok || err != nil {
		t.Errorf("after Empty the image is there (%v)", err)
	}
}

func TestStopLeavesNothing(t *testing.T) {
	for _, k := range Kinds() {
		t.Run(k.Name, func(t *testing.T) { testStopLeavesNothing(t, k) })
	}
}

func testStopLeavesNothing(t *testing.T, k Kind) {
	for _, killed := range []bool{false, true} {
		e, err := Start(t.Context(), k.Options)
		if err != nil {
			t.Fatal(err)
		}
		ref := e.LoadFor(t, Hello)
		if _, err := e.Docker(t.Context(), nil, "create", "--network=none", ref); err != nil {
			t.Error(err)
		}
		if killed {
			e.Kill()
		}
		dir := strings.TrimSuffix(e.DataRoot(), "/data")
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
		checkGone(t, dir)
	}
}

// TestOwnerKilled starts an engine in a process of its own, kills that with SIGKILL, and sees the watcher at work.
func TestOwnerKilled(t *testing.T) {
	if os.Getenv("ENGINETEST_OWNER") != "" {
		e, err := Start(t.Context(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stdout.WriteString(e.DataRoot() + "\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // to be killed in
		return
	}
	NeedPrivate(t, os.Getuid() == 0)
	For(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestOwnerKilled$")
	cmd.Env = append(os.Environ(), "ENGINETEST_OWNER=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 4096)
	n, err := out.Read(line)
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	dir, ok := strings.CutSuffix(strings.TrimSpace(string(line[:n])), "/data")
	if !ok {
		t.Fatalf("the owner said %q (%v)", line[:n], err)
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(dir); err != nil {
			break
		}
	}
	checkGone(t, dir)
}

// checkGone fails the test if anything of the engine in dir remains.
func checkGone(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s remains (%v)", dir, err)
	}
	if pids := processesOf(dir, nil); len(pids) > 0 {
		t.Errorf("processes %v remain", pids)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(dir+"/")) {
		t.Errorf("a mount remains (%v)", err)
	}
}

func TestStartSaysWhy(t *testing.T) {
	NeedPrivate(t, os.Getuid() == 0)
	_, err := Start(t.Context(), Options{Args: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-flag") {
		t.Errorf("error %v does not hold dockerd's own words", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Options{}); err == nil {
		t.Error("started although cancelled")
	}
}
