//go:build unix

package agent

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

func TestSplitCommand(t *testing.T) {
	for line, want := range map[string][]string{
		"systemctl restart myapp":  {"systemctl", "restart", "myapp"},
		"  a\t b  ":                {"a", "b"},
		`sh -c "a && b 'c'" ''`:    {"sh", "-c", "a && b 'c'", ""},
		`a$HOME;b|c \n`:            {"a$HOME;b|c", `\n`},
		`x'y z'"w"`:                {"xy zw"},
		`echo 'it is "quoted" so'`: {"echo", `it is "quoted" so`},
	} {
		if got, err := SplitCommand(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", line, got, err)
		}
	}
	for _, bad := range []string{"", "  ", "''", `a "b`, `a 'b"`} {
		if got, err := SplitCommand(bad); !fault.Is(err, fault.Usage) {
			t.Errorf("%q: %q, %v", bad, got, err)
		}
	}
}

func shell(script string) Command {
	return Command{Args: []string{"sh", "-c", script}, Limit: patience, Grace: patience}
}

// TestCommand: it gets what it needs to know, and nothing that opens remotes.
func TestCommand(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
	t.Setenv("DOGESTRY_VERIFY_KEY", "key")
	t.Setenv("MINE", "stays")
	out, err := shell("env").run(t.Context(), []string{"DOGESTRY_IMAGE=myapp:1"})
	if err != nil || strings.Contains(out, "s3cret") || strings.Contains(out, "VERIFY_KEY") || !strings.Contains(out, "MINE=stays") || !strings.Contains(out, "DOGESTRY_IMAGE=myapp:1") {
		t.Errorf("%s, %v", out, err)
	}
	out, err = shell("echo first; echo last >&2; exit 7").run(t.Context(), nil)
	if err == nil || out != "first\nlast" || !strings.Contains(err.Error(), "exit status 7: last") {
		t.Errorf("%s, %v", out, err)
	}
	out, err = shell("yes | head -c 1000000; echo end").run(t.Context(), nil)
	if err != nil || len(out) > maxOutput || !strings.HasSuffix(out, "end") {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	if err := (Command{Args: []string{"no-such-program"}}).Check(); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	seal, err := sealed.New(sealed.Options{From: "--sealed", Programs: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	c := shell("true")
	c.Seal = seal
	if _, err := c.run(t.Context(), nil); !fault.Is(err, fault.Refused) {
		t.Errorf("sealed, it runs sh: %v", err)
	}
	c.Args = []string{"true"}
	if _, err := c.run(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// TestCommandEnds: at its limit, and some time after the agent is told to end, a command
// ends with all that it has started.
func TestCommandEnds(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	gone := func(t *testing.T) {
		t.Helper()
		content, err := os.ReadFile(pidFile)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
		if err != nil {
			t.Fatal(err)
		}
		until(t, "what it has started is gone", func() bool {
			stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
			return syscall.Kill(pid, 0) != nil || err == nil && strings.Contains(string(stat), ") Z ")
		})
		_ = os.Remove(pidFile)
	}
	script := "sleep 1000 & echo $! >" + pidFile + ".new; mv " + pidFile + ".new " + pidFile + "; wait"
	t.Run("limit", func(t *testing.T) {
		c := shell(script)
		c.Limit = time.Second
		if _, err := c.run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "within 1s") {
			t.Errorf("%v", err)
		}
		if _, err := os.Stat(pidFile); err == nil { // a busy machine may not have come so far
			gone(t)
		}
	})
	t.Run("end of the agent", func(t *testing.T) {
		c := shell(script)
		c.Grace = 10 * time.Millisecond
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if _, err := os.Stat(pidFile); err == nil {
					break
				}
			}
			cancel()
		}()
		if _, err := c.run(ctx, nil); !fault.Interrupted(err) {
			t.Errorf("%v", err)
		}
		gone(t)
	})
	t.Run("grace", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if out, err := shell("sleep 0.1; echo done").run(ctx, nil); err != nil || out != "done" {
			t.Errorf("%s, %v", out, err)
		}
	})
}
