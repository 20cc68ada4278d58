//go:build unix

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
)

// soon is how long dogestry may take to end after a signal.
const soon = time.Second

var signalCases = []struct {
	signal syscall.Signal
	code   int
	told   string
}{
	{syscall.SIGINT, 130, "dogestry: interrupted\n"},
	{syscall.SIGTERM, 143, "dogestry: terminated\n"},
	{syscall.SIGKILL, -1, ""},
}

func TestSignalDuringPush(t *testing.T) {
	engine := enginetest.For(t)
	ref := loadBig(t, engine)
	for _, c := range signalCases {
		t.Run(c.signal.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "remote")
			p := start(t, engine.Host, "push", "--parallel=1", dir, ref)
			p.until("a layer is half stored", func() bool { return len(temporaryFiles(t, dir)) > 0 })
			p.end(c.signal, c.code, c.told)
			if tags := files(t, filepath.Join(dir, "repositories")); len(tags) > 0 {
				t.Errorf("an interrupted push left the tag %s", tags)
			}
			if left := temporaryFiles(t, dir); c.signal != syscall.SIGKILL && len(left) > 0 {
				t.Errorf("an interrupted push left %s", left)
			}

			run(t, engine.Host, "push", dir, ref)
			if left := temporaryFiles(t, dir); len(left) > 0 {
				t.Errorf("the second push left %s", left)
			}
			if out := run(t, engine.Host, "list", dir); !strings.Contains(out, "big") {
				t.Errorf("after the second push the remote holds\n%s", out)
			}
		})
	}
}

func TestSignalDuringPull(t *testing.T) {
	engine := enginetest.For(t)
	ref := loadBig(t, engine)
	dir := filepath.Join(t.TempDir(), "remote")
	run(t, engine.Host, "push", dir, ref)
	for _, c := range signalCases {
		t.Run(c.signal.String(), func(t *testing.T) {
			if _, err := engine.Docker(t.Context(), nil, "rmi", ref); err != nil {
				t.Fatal(err)
			}
			p := start(t, engine.Host, "pull", "--parallel=1", dir, ref)
			p.until("the first layer is in the engine", func() bool { return strings.Contains(p.stderr.String(), ": done ") })
			p.end(c.signal, c.code, c.told)
			if _, ok, err := engine.ImageID(t.Context(), ref); ok || err != nil {
				t.Errorf("after an interrupted pull the engine has %s (error: %v)", ref, err)
			}

			run(t, engine.Host, "pull", dir, ref)
			if _, ok, err := engine.ImageID(t.Context(), ref); !ok || err != nil {
				t.Errorf("after the second pull the engine has no %s (error: %v)", ref, err)
			}
		})
	}
}

// TestSignalWhileEngineHangs interrupts a command that waits for an answer that never comes.
func TestSignalWhileEngineHangs(t *testing.T) {
	dir, err := os.MkdirTemp("", "dgy") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, err := net.Listen("unix", filepath.Join(dir, "hang"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	p := start(t, "unix://"+socket.Addr().String(), "push", "--json", filepath.Join(dir, "remote"), "app")
	connection, err := socket.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	p.end(syscall.SIGINT, 130, "dogestry: interrupted\n")
	var failure struct{ Error struct{ Message string } }
	if err := json.Unmarshal([]byte(p.stdout.String()), &failure); err != nil || failure.Error.Message != "interrupted" {
		t.Errorf("--json printed %q (%v)", p.stdout.String(), err)
	}
}

// loadBig brings an image into the engine that takes a while to move: four layers
// of 16 MB, or of 4 MB with -short, which goes with the slow race detector.
func loadBig(t *testing.T, engine *enginetest.Engine) (ref string) {
	t.Helper()
	size := int64(16 << 20)
	if testing.Short() {
		size /= 4
	}
	m := enginetest.BigImage(4, size)
	ref = m.Tags()[0]
	if _, ok, err := engine.ImageID(t.Context(), ref); err != nil {
		t.Fatal(err)
	} else if ok { // an earlier test has left it
		return ref
	}
	if err := engine.LoadImage(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return ref
}

// process is a dogestry that runs.
type process struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr output
	exited         chan struct{} // closed when it has ended
}

// output is what a process has written so far.
type output struct {
	mu sync.Mutex
	b  strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// command prepares dogestry, as TestMain makes it, with docker's engine at host.
func command(t *testing.T, host string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "dogestry", args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+host, "DOCKER_CONFIG="+home, "HOME="+home, "XDG_CACHE_HOME="+home, "TERM=xterm",
		"GORACE="+raceOptions)
	return cmd
}

func start(t *testing.T, host string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: command(t, host, args...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.launch()
	return p
}

func (p *process) launch() {
	p.t.Helper()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.exited = make(chan struct{})
	go func() {
		_ = p.cmd.Wait() // the code is looked at
		close(p.exited)
	}()
	p.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
	})
}

// until waits for a state that the running process brings about.
func (p *process) until(what string, reached func() bool) {
	p.t.Helper()
	for !reached() {
		select {
		case <-p.exited:
			p.t.Fatalf("it ended before %s:\n%s", what, p.stderr.String())
		case <-time.After(time.Millisecond):
		}
	}
}

// end sends a signal and checks how the process ends, and that it wrote nothing
// to stderr that only a terminal understands.
func (p *process) end(s syscall.Signal, code int, told string) {
	p.t.Helper()
	sent := time.Now()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	p.ended(sent, code, told)
	if c := control(p.stderr.String()); c != "" {
		p.t.Errorf("stderr is a pipe, and has the control character %s", c)
	}
}

func (p *process) ended(sent time.Time, code int, told string) {
	p.t.Helper()
	<-p.exited
	if took := time.Since(sent); took > soon {
		p.t.Errorf("it took %v to end", took)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("exit code %d, want %d; stderr:\n%s", got, code, p.stderr.String())
	}
	if !strings.HasSuffix(p.stderr.String(), told) {
		p.t.Errorf("stderr does not end with %q:\n%s", told, p.stderr.String())
	}
}

// run is a dogestry that must succeed; it returns its stdout.
func run(t *testing.T, host string, args ...string) string {
	t.Helper()
	p := start(t, host, args...)
	<-p.exited
	if !p.cmd.ProcessState.Success() {
		t.Fatalf("dogestry %s: %v\n%s", strings.Join(args, " "), p.cmd.ProcessState, p.stderr.String())
	}
	return p.stdout.String()
}

// files returns the files below dir, which need not be there.
func files(t *testing.T, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = append(found, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// temporaryFiles returns the files below dir that are no objects.
func temporaryFiles(t *testing.T, dir string) (found []string) {
	t.Helper()
	for _, f := range files(t, dir) {
		if strings.HasPrefix(filepath.Base(f), ".") {
			found = append(found, f)
		}
	}
	return found
}
