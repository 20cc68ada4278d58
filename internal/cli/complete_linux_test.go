package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCompletionAsksNobody: a shell that completes leaves its user alone: ssh must not ask on the terminal.
func TestCompletionAsksNobody(t *testing.T) {
	bin := t.TempDir()
	asked := filepath.Join(bin, "asked")
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte("#!/bin/sh\necho \"$*\" >"+asked+"\nexit 255\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for mode, args := range map[string][]string{
		"BatchMode=yes": {"__complete", "inspect", "ssh://host.example/images", ""},
		"BatchMode=no":  {"inspect", "ssh://host.example/images", "x"}, // where somebody has typed it, it may
	} {
		term := openTerminal(t)
		p := &process{t: t, cmd: command(t, "unix:///nowhere.sock", args...)}
		p.cmd.Env = append(p.cmd.Env, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
		term.attach(p)
		<-p.exited
		_ = term.slave.Close()
		<-term.drained
		if got, err := os.ReadFile(asked); err != nil || !strings.Contains(string(got), mode) {
			t.Errorf("%q runs ssh %s: %v\n%s", args, got, err, p.stderr.String())
		}
		if err := os.Remove(asked); err != nil {
			t.Fatal(err)
		}
	}
}
