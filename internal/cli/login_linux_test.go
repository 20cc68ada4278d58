package cli

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dogestry/dogestry/internal/registry/registrytest"
)

// TestLoginOnTerminal: a terminal is asked for the user and the password, which it does
// not show. An interrupt in between leaves the terminal as it was, and nothing stored.
func TestLoginOnTerminal(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{Basic: true})
	for name, interrupted := range map[string]bool{"answered": false, "interrupted": true} {
		t.Run(name, func(t *testing.T) {
			p, term := startOnTerminal(t, "unix:///nowhere.sock", "login", s.Host)
			p.until("it asks for the user", func() bool { return strings.Contains(p.stderr.String(), "Username: ") })
			if _, err := term.master.WriteString(registrytest.User + "\n"); err != nil {
				t.Fatal(err)
			}
			p.until("it asks for the password", func() bool { return strings.Contains(p.stderr.String(), "Password: ") })
			p.until("the terminal shows nothing", func() bool { return term.state() != term.before })
			if interrupted {
				if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
					t.Fatal(err)
				}
			} else if _, err := term.master.WriteString(registrytest.Password + "\n"); err != nil {
				t.Fatal(err)
			}
			<-p.exited
			if term.state() != term.before {
				t.Error("the terminal's modes have changed")
			}
			_ = term.slave.Close()
			<-term.drained
			code := 0
			if interrupted {
				code = exitInterrupted
			}
			if got := p.cmd.ProcessState.ExitCode(); got != code {
				t.Errorf("exit code %d: %s", got, p.stderr.String())
			}
			if strings.Contains(p.stderr.String()+p.stdout.String(), registrytest.Password) {
				t.Errorf("the password is shown: %q", p.stderr.String())
			}
			home := ""
			for _, v := range p.cmd.Env {
				if dir, ok := strings.CutPrefix(v, "DOCKER_CONFIG="); ok {
					home = dir
				}
			}
			if _, err := os.Stat(filepath.Join(home, "config.json")); (err != nil) != interrupted {
				t.Errorf("what is stored: %v", err)
			}
		})
	}
}
