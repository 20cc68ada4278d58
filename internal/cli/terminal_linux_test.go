package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dogestry/dogestry/internal/enginetest"
)

const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
)

// A bar's line: the layer, and how far it is.
var barLine = regexp.MustCompile(`[0-9a-f]{12} .*\d[kM]?B`)

// TestBarsOnTerminal runs dogestry as the foreground job of a terminal: to its
// end, and until ^C is typed. Either way bars are seen, results stay out of
// them, and the terminal is left as it was.
func TestBarsOnTerminal(t *testing.T) {
	e := enginetest.For(t)
	ref := loadBig(t, e)

	for _, store := range stores {
		t.Run("to the end, "+string(store), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "remote")
			p, term := startOnTerminal(t, e.Host, "push", "--engine-store="+string(store), dir, ref)
			<-p.exited
			screen := term.check(p)
			if code := p.cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if !strings.HasPrefix(p.stdout.String(), ref+" sha256:") || control(p.stdout.String()) != "" {
				t.Errorf("stdout: %q", p.stdout.String())
			}
			if tail := screen[strings.LastIndex(screen, showCursor)+len(showCursor):]; !strings.HasPrefix(tail, "pushed "+ref) {
				t.Errorf("behind the bars the terminal shows %q", tail)
			}
		})

		t.Run("until ^C, "+string(store), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "remote")
			p, term := startOnTerminal(t, e.Host, "push", "--engine-store="+string(store), "--parallel=1", dir, ref)
			p.until("a bar is drawn", func() bool { return barLine.MatchString(p.stderr.String()) })
			sent := time.Now()
			if _, err := term.master.WriteString("\x03"); err != nil {
				t.Fatal(err)
			}
			p.ended(sent, exitInterrupted, "")
			if screen := term.check(p); !strings.HasSuffix(screen, showCursor+"dogestry: interrupted\r\n") {
				t.Errorf("the terminal shows at last %q", screen[max(0, len(screen)-200):])
			}
			if left := temporaryFiles(t, dir); len(left) > 0 {
				t.Errorf("^C left %s", left)
			}
		})
	}

	t.Run("a dumb terminal", func(t *testing.T) {
		const ref = "terminal/dumb:1"
		if err := e.LoadImage(t.Context(), wordsImage(ref, []string{"terminal-dumb"})); err != nil {
			t.Fatal(err)
		}
		term := openTerminal(t)
		p := &process{t: t, cmd: command(t, e.Host, "push", filepath.Join(t.TempDir(), "remote"), ref)}
		p.cmd.Env = append(p.cmd.Env, "TERM=dumb")
		term.attach(p)
		<-p.exited
		_ = term.slave.Close()
		<-term.drained
		if screen := p.stderr.String(); strings.Contains(screen, "\x1b") || !strings.Contains(screen, "pushed "+ref) {
			t.Errorf("a dumb terminal gets %q", screen)
		}
	})
}

// terminal is a pseudo terminal; what is written to it comes out of master.
type terminal struct {
	t             *testing.T
	master, slave *os.File
	before        unix.Termios
	drained       chan struct{} // closed when nothing more comes
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	term := &terminal{t: t, master: master, slave: slave, drained: make(chan struct{})}
	term.before = term.state()
	return term
}

func (term *terminal) state() unix.Termios {
	term.t.Helper()
	state, err := unix.IoctlGetTermios(int(term.slave.Fd()), unix.TCGETS)
	if err != nil {
		term.t.Fatal(err)
	}
	return *state
}

func startOnTerminal(t *testing.T, host string, args ...string) (*process, *terminal) {
	t.Helper()
	term := openTerminal(t)
	p := &process{t: t, cmd: command(t, host, args...)}
	term.attach(p)
	return p, term
}

// attach starts p with its stdin and stderr on the terminal, which becomes its
// controlling one; stdout is a pipe.
func (term *terminal) attach(p *process) {
	term.t.Helper()
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = term.slave, &p.stdout, term.slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	p.launch()
	go func() {
		defer close(term.drained)
		_, _ = io.Copy(&p.stderr, term.master) // ends with EIO when nobody has the slave open
	}()
}

// check makes sure that p drew bars and left the terminal as it was, and returns all that was written to it.
func (term *terminal) check(p *process) (screen string) {
	term.t.Helper()
	if term.state() != term.before {
		term.t.Error("the terminal's modes have changed")
	}
	_ = term.slave.Close()
	<-term.drained
	screen = p.stderr.String()
	if !barLine.MatchString(screen) {
		term.t.Errorf("no bars on the terminal: %q", screen)
	}
	hidden, shown := strings.LastIndex(screen, hideCursor), strings.LastIndex(screen, showCursor)
	if hidden < 0 || shown < hidden {
		term.t.Errorf("the cursor stays hidden: %q", screen[max(0, len(screen)-200):])
	}
	return screen
}
