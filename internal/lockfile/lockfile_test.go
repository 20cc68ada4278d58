package lockfile

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// holdVariable makes this test binary a process that holds a lock until it is killed.
const holdVariable = "LOCKFILE_TEST_HOLD"

func TestMain(m *testing.M) {
	path := os.Getenv(holdVariable)
	if path == "" {
		os.Exit(m.Run())
	}
	if _, err := Take(context.Background(), path, Options{Pid: true}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held")
	time.Sleep(time.Hour)
}

// TestProcesses: a lock keeps others out, says who has it, and ends with its process.
func TestProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	other := exec.CommandContext(ctx, os.Args[0])
	other.Env = append(os.Environ(), holdVariable+"="+path)
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait() //nolint:errcheck // it is killed
	defer other.Process.Kill()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}

	if _, err := Take(ctx, path, Options{NoWait: true}); !errors.Is(err, ErrHeld) {
		t.Fatalf("taken beside another process: %v", err)
	}
	if pid := Holder(path); pid != other.Process.Pid {
		t.Errorf("the holder is %d, and the file says %d", other.Process.Pid, pid)
	}
	short, stop := context.WithCancel(ctx)
	_, err = Take(short, path, Options{Waiting: func(int) { stop() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("after a cancelled wait: %v", err)
	}

	told := make(chan int, 10)
	taken := make(chan error, 1)
	go func() {
		l, err := Take(ctx, path, Options{Pid: true, Waiting: func(pid int) { told <- pid }})
		if err == nil {
			err = l.Close()
		}
		taken <- err
	}()
	if pid := <-told; pid != other.Process.Pid {
		t.Errorf("told to wait for %d", pid)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-taken; err != nil {
		t.Errorf("after the other process was killed: %v", err)
	}
	if len(told) > 0 {
		t.Error("told twice")
	}
	if pid := Holder(path); pid != os.Getpid() {
		t.Errorf("the file says that %d has it", pid)
	}
}

// TestOther: what is no lock is not written over.
func TestOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes")
	for _, content := range []string{"12 apples\n", "0123456789012345678901234567890123456789", "\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Take(t.Context(), path, Options{Pid: true}); !errors.Is(err, ErrOther) {
			t.Errorf("%q: %v", content, err)
		}
		if got, err := os.ReadFile(path); string(got) != content {
			t.Errorf("%q has become %q, %v", content, got, err)
		}
	}
}

// TestHolder: what is no process ID is none.
func TestHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	for content, want := range map[string]int{"": 0, "x": 0, "12\n": 12, "-4": 0, "99999999999999999999999999999999999999999": 0} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := Holder(path); got != want {
			t.Errorf("%q: %d, want %d", content, got, want)
		}
	}
	if got := Holder(path + ".missing"); got != 0 {
		t.Error(got)
	}
}
