//go:build unix

package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
)

// soon is how long dogestry may take to end after a signal, also on a busy machine: cleaning up may take ten seconds.
const soon = 30 * time.Second

// patience is how long one may run: a server serves as long as engines take to start, and to pull from it.
const patience = 5 * time.Minute

type signalCase struct {
	signal syscall.Signal
	code   int
	told   string
}

var signalCases = []signalCase{
	{syscall.SIGINT, 130, "dogestry: interrupted\n"},
	{syscall.SIGTERM, 143, "dogestry: terminated\n"},
	{syscall.SIGKILL, -1, ""},
}

// stores are the ways of a push: by an export, and the default, which as root
// is through the engine's own store.
var stores = []engine.StoreUse{engine.StoreOff, engine.StoreAuto}

func TestSignalDuringPush(t *testing.T) { enginetest.First(t, *every, testSignalDuringPush) }

func TestSignalDuringPushFromContainerd(t *testing.T) {
	enginetest.EachContainerd(t, testSignalDuringPush)
}

func testSignalDuringPush(t *testing.T, e *enginetest.Engine) {
	ref := loadBig(t, e)
	for _, store := range stores {
		for _, c := range signalCases {
			t.Run(string(store)+"/"+c.signal.String(), func(t *testing.T) { interruptPush(t, e, store, ref, c) })
		}
	}
}

func interruptPush(t *testing.T, e *enginetest.Engine, store engine.StoreUse, ref string, c signalCase) {
	dir := filepath.Join(t.TempDir(), "remote")
	push := []string{"push", "--debug", "--engine-store=" + string(store), "--parallel=1", dir, ref}
	p := start(t, e.Host, push...)
	p.until("a layer is half stored behind a whole one", func() bool {
		return len(named(files(t, dir), "json")) > 0 && len(named(files(t, dir), ".layer.tar")) > 0
	})
	p.end(c.signal, c.code, c.told)
	// What a killed process had to say last may not have been said.
	if own := strings.Contains(p.stderr.String(), "layers come from the engine's own store"); c.signal != syscall.SIGKILL && own != (store != engine.StoreOff) && os.Getuid() == 0 && e.Private() {
		t.Errorf("--engine-store=%s, and it is read: %v", store, own)
	}
	if tags := files(t, filepath.Join(dir, "repositories")); len(tags) > 0 {
		t.Errorf("an interrupted push left the tag %s", tags)
	}
	if left := temporaryFiles(t, dir); c.signal != syscall.SIGKILL && len(left) > 0 {
		t.Errorf("an interrupted push left %s", left)
	}
	if len(named(files(t, dir), "json")) == 0 {
		t.Error("an interrupted push kept no layer")
	}

	p = start(t, e.Host, push...)
	p.mustSucceed()
	if said := p.stderr.String(); !strings.Contains(said, ": already there") || !strings.Contains(said, ": done ") {
		t.Errorf("the second push does not go on where the first ended:\n%s", said)
	}
	if left := temporaryFiles(t, dir); len(left) > 0 {
		t.Errorf("the second push left %s", left)
	}
	if out := run(t, e.Host, "list", dir); !strings.Contains(out, "big") {
		t.Errorf("after the second push the remote holds\n%s", out)
	}
}

// TestSignalWithJSON interrupts commands that have a part of their result by
// then: it and the error are one document.
func TestSignalWithJSON(t *testing.T) {
	t.Run("push", func(t *testing.T) {
		e := enginetest.For(t)
		const first = "signal/first:1"
		if err := e.LoadImage(t.Context(), wordsImage(first, []string{"signal-first"})); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "remote")
		p := start(t, e.Host, "push", "--json", "--engine-store=off", "--parallel=1", dir, first, loadBig(t, e))
		p.until("the first image is there", func() bool { return len(named(files(t, filepath.Join(dir, "repositories")), "1")) > 0 })
		p.until("the second image is on its way", func() bool { return len(named(files(t, dir), ".layer.tar")) > 0 })
		p.end(syscall.SIGINT, exitInterrupted, "dogestry: interrupted\n")
		var result struct {
			Images []struct{ Image string }
			Error  struct{ Message string }
		}
		p.oneDocument(&result)
		if len(result.Images) != 1 || result.Images[0].Image != first || result.Error.Message != "interrupted" {
			t.Errorf("it printed %s", p.stdout.String())
		}
	})

	t.Run("check --sweep", func(t *testing.T) {
		dir := t.TempDir()
		const leftovers = 4_000 // take a while to be removed
		for i := range leftovers {
			below := filepath.Join(dir, "images", fmt.Sprintf("%064x", i))
			if err := os.MkdirAll(below, 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(below, ".json.0123456789abcdef.tmp"), nil, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		p := start(t, "unix:///nowhere.sock", "check", "--json", "--sweep", "--older-than=0s", dir)
		p.until("something is removed", func() bool {
			left, err := os.ReadDir(filepath.Join(dir, "images"))
			return err == nil && len(left) < leftovers
		})
		p.end(syscall.SIGINT, exitInterrupted, "dogestry: interrupted\n")
		var result struct {
			Checks []struct{ Name string }
			Error  struct{ Message string }
		}
		p.oneDocument(&result)
		if len(result.Checks) == 0 || result.Error.Message == "" {
			t.Errorf("it printed %s", p.stdout.String())
		}
	})
}

func TestSignalDuringPull(t *testing.T) { enginetest.First(t, *every, testSignalDuringPull) }

func testSignalDuringPull(t *testing.T, engine *enginetest.Engine) {
	ref := loadBig(t, engine)
	dir := filepath.Join(t.TempDir(), "remote")
	run(t, engine.Host, "push", "--engine-store=off", dir, ref)
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

func TestSignalDuringCheck(t *testing.T) {
	for _, c := range signalCases {
		t.Run(c.signal.String(), func(t *testing.T) {
			dir := t.TempDir()
			p := start(t, "unix:///nowhere.sock", "check", dir)
			p.until("something is written", func() bool { return len(files(t, dir)) > 1 })
			p.end(c.signal, c.code, c.told)
			if left := files(t, dir); c.signal != syscall.SIGKILL && len(left) > 0 {
				t.Errorf("an interrupted check left %s", left)
			}
			out := run(t, "unix:///nowhere.sock", "check", "--sweep", "--older-than=0s", dir)
			if left := files(t, dir); len(left) > 0 || !strings.Contains(out, "left-overs that were older than 0s") {
				t.Errorf("a sweep left %s:\n%s", left, out)
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
	if p.oneDocument(&failure); failure.Error.Message != "interrupted" {
		t.Errorf("--json printed %s", p.stdout.String())
	}
}

// loadBig brings an image into the engine that takes a while to move: four layers
// of 16 MB, or of 4 MB with -short, which goes with the slow race detector.
func loadBig(t *testing.T, engine *enginetest.Engine) (ref string) {
	t.Helper()
	size := int64(32 << 20)
	if testing.Short() {
		size /= 2
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
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
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
	p.mustSucceed()
	return p.stdout.String()
}

func (p *process) mustSucceed() {
	p.t.Helper()
	<-p.exited
	if !p.cmd.ProcessState.Success() {
		p.t.Fatalf("dogestry %s: %v\n%s", strings.Join(p.cmd.Args[1:], " "), p.cmd.ProcessState, p.stderr.String())
	}
}

// oneDocument reads stdout, which is one JSON document and nothing else.
func (p *process) oneDocument(v any) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.stdout.String()), v); err != nil {
		p.t.Fatalf("stdout is not one JSON document (%v):\n%s", err, p.stdout.String())
	}
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
func temporaryFiles(t *testing.T, dir string) []string {
	t.Helper()
	return named(files(t, dir), ".")
}

// named returns those whose name begins with start.
func named(files []string, start string) (found []string) {
	for _, f := range files {
		if strings.HasPrefix(filepath.Base(f), start) {
			found = append(found, f)
		}
	}
	return found
}

// TestDockerEnds: docker closes its socket when it is told to end and no terminal tells
// its plugin so, which ends then as by a signal.
func TestDockerEnds(t *testing.T) {
	address := filepath.Join(t.TempDir(), "docker.sock")
	docker, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	defer docker.Close()
	cmd := command(t, "unix:///nowhere.sock", "dogestry", "serve", t.TempDir(), "--listen", "127.0.0.1:0")
	if cmd.Path, err = exec.LookPath("docker-dogestry"); err != nil {
		t.Fatal(err)
	}
	cmd.Args[0] = cmd.Path
	cmd.Env = append(cmd.Env, pluginSocket+"="+address)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := docker.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); !strings.HasPrefix(line, "serving ") {
		t.Fatalf("it says %q, %v", line, err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil { // serve has ended as it was asked to
		t.Error(err)
	}
}
