package enginetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Names below an engine's folder.
const (
	dirPrefix  = "dgy-" // the folders themselves: dgy-<owner's pid>-<random>
	lockName   = "lock"
	pidName    = "pid"
	logName    = "log"
	socketName = "docker.sock"
)

const (
	startTimeout = time.Minute      // a busy machine needs seconds, an empty one 0.5 s
	stopTimeout  = 15 * time.Second // then SIGKILL; dockerd gives containers 3 s
)

// private is what makes an engine ours: its folder, the process, and what cleans up behind us.
type private struct {
	dir     string
	o       Options
	lock    io.Closer      // held while the owner lives: see sweepLeftovers
	watcher *exec.Cmd      // cleans up if this process dies: see watch
	alive   io.WriteCloser // the watcher sees its end when this process ends
	cmd     *exec.Cmd
	exited  chan struct{} // closed when cmd has been waited for
	stopped bool
}

// Start runs a dockerd of its own: own socket, own data root, own containerd, no network but the host's ("docker run" needs
// --network=none or host). It must run as root. ctx bounds the start only; whoever starts an engine stops it. When the
// process dies without Stop, a watcher stops the engine and removes its folder, whatever the process died of.
func Start(ctx context.Context, o Options) (*Engine, error) {
	if os.Getuid() != 0 {
		return nil, fmt.Errorf("a private engine needs root: run as root, or set %s to the address of an engine", EngineVariable)
	}
	if _, err := exec.LookPath(program(o)); err != nil {
		return nil, fmt.Errorf("no %s on this machine: run script/bootstrap engine%s", program(o), map[bool]string{true: "s"}[o.Bin != "" || o.Podman])
	}
	parent := o.Parent
	if parent == "" {
		parent = os.TempDir()
	}
	sweepLeftovers(parent)
	dir, err := os.MkdirTemp(parent, fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
	if err != nil {
		return nil, err
	}
	e := &Engine{
		Host:    "unix://" + filepath.Join(dir, socketName),
		cli:     filepath.Join(dir, "cli"),
		private: &private{dir: dir, o: o},
	}
	if err := e.start(ctx); err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	started.Lock()
	started.engines[e] = true
	started.Unlock()
	return e, nil
}

func program(o Options) string {
	if o.Podman {
		return "podman"
	}
	return filepath.Join(o.Bin, "dockerd")
}

func (e *Engine) start(ctx context.Context) error {
	p := e.private
	// The longest socket below the folder is containerd's.
	if longest := filepath.Join(p.dir, "exec/containerd/containerd.sock.ttrpc"); len(longest) > 107 {
		return fmt.Errorf("%s is too long for the path of a unix socket: set TMPDIR to a shorter one", longest)
	}
	lock, err := tryLock(filepath.Join(p.dir, lockName))
	if err != nil {
		return err
	}
	p.lock = lock
	if err := p.watch(); err != nil {
		return err
	}
	if err := os.Mkdir(e.cli, 0o700); err != nil {
		return err
	}
	// Without a file of its own dockerd reads the machine's, which may contradict these flags.
	if err := os.WriteFile(filepath.Join(p.dir, "daemon.json"), []byte(cmp.Or(p.o.Config, "{}")), 0o600); err != nil {
		return err
	}
	return p.launch(ctx)
}

// arguments are those of the engine's command line.
func (p *private) arguments() []string {
	socket := "unix://" + filepath.Join(p.dir, socketName)
	if p.o.Podman {
		return slices.Concat(p.PodmanArgs(), p.o.Args, []string{"system", "service", "--time", "0", socket})
	}
	args := []string{
		"--config-file", filepath.Join(p.dir, "daemon.json"),
		"--data-root", p.DataRoot(),
		"--exec-root", filepath.Join(p.dir, "exec"),
		"-H", socket,
		"-p", filepath.Join(p.dir, pidName),
		"--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none",
		"--shutdown-timeout=3",
	}
	switch {
	case p.o.ContainerdStore:
		// Where the machine has a containerd, dockerd uses that.
		args = append(args, "--feature", "containerd-snapshotter=true", "--containerd-namespace", filepath.Base(p.dir))
	case p.o.Bin != "":
		args = append(args, "--feature", "containerd-snapshotter=false", "--storage-driver", "overlay2")
	default: // the machine's own may be too old to know of features
		args = append(args, "--storage-driver", "overlay2")
	}
	if p.o.Bin != "" { // Docker 29 gives containers a time namespace, which the runc of Debian 12 does not know
		args = append(args, "--feature", "time-namespaces=false")
	}
	return append(args, p.o.Args...)
}

// PodmanArgs are what a podman command has to begin with to be about this engine.
func (e *Engine) PodmanArgs() []string { return e.private.PodmanArgs() }

func (p *private) PodmanArgs() []string {
	return []string{
		"--root", p.DataRoot(), "--runroot", filepath.Join(p.dir, "exec"), "--tmpdir", filepath.Join(p.dir, "run"),
		"--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
	}
}

// launch starts the engine and returns when it answers.
func (p *private) launch(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(p.dir, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // dockerd has its own copy
	// Not CommandContext: ctx bounds the start, not the engine's life.
	words := append([]string{program(p.o)}, p.arguments()...)
	if p.o.Namespace != nil {
		words = p.o.Namespace.Command(words...)
	}
	p.cmd = exec.Command(words[0], words[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a ^C in the terminal is for us, who then stop it in order
	p.cmd.Env = append(os.Environ(), p.o.Env...)
	if p.o.Bin != "" {
		p.cmd.Env = append(p.cmd.Env, "PATH="+p.o.Bin+":"+os.Getenv("PATH"))
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	p.exited = exited
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait()
		close(exited)
	}(p.cmd)
	return p.await(ctx)
}

// await returns when the engine answers a ping, or says why it never will.
func (p *private) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(p.dir, socketName))
	}}
	defer transport.CloseIdleConnections()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/_ping", nil)
		if err != nil {
			return err
		}
		if resp, err := transport.RoundTrip(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-p.exited:
			return fmt.Errorf("the engine ended at its start (%s); its log ends with:\n%s", p.cmd.ProcessState, p.logTail())
		case <-ctx.Done():
			return fmt.Errorf("the engine does not answer: %w; its log ends with:\n%s", ctx.Err(), p.logTail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// logTail is the end of the engine's log, for errors.
func (p *private) logTail() string {
	b, err := os.ReadFile(filepath.Join(p.dir, logName))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(bytes.TrimSpace(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// DataRoot is dockerd's --data-root, podman's --root, or "" for an engine that is not private.
func (e *Engine) DataRoot() string {
	if e.private == nil {
		return ""
	}
	return e.private.DataRoot()
}

func (p *private) DataRoot() string { return filepath.Join(p.dir, "data") }

// Log is the path of the engine's log, or "" for an engine that is not private. It goes with Stop.
func (e *Engine) Log() string {
	if e.private == nil {
		return ""
	}
	return filepath.Join(e.private.dir, logName)
}

// running reports whether dockerd was started and has not ended.
func (p *private) running() bool {
	if p.exited == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Kill ends the engine with SIGKILL in the middle of its work, and its containerd too, as a crash of the machine would,
// and returns when both are gone. Its data stays: Restart, or Stop. It does nothing to an engine that is not private.
func (e *Engine) Kill() {
	p := e.private
	if p == nil || !p.running() {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
	kill(processesOf(p.dir, func(argv0 string) bool { return filepath.Base(argv0) == "containerd" }))
}

// Restart starts the engine again on the same data, whether it runs (it is stopped in order) or was killed.
func (e *Engine) Restart(ctx context.Context) error {
	p := e.private
	if p == nil {
		return fmt.Errorf("the engine at %s is not ours to restart", e.Host)
	}
	if p.stopped {
		return errors.New("the engine was stopped, its data is gone")
	}
	p.end()
	// dockerd waits in vain for a containerd whose pid file names any process, be it a zombie that init does not reap.
	for _, name := range []string{pidName, "exec/containerd/containerd.pid"} {
		if err := os.Remove(filepath.Join(p.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return p.launch(ctx)
}

// end stops dockerd and waits for it: kindly first.
func (p *private) end() {
	if !p.running() {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// Stop ends the engine and all that it started, and removes its folder with all its images. Killed engines are cleaned up
// the same; a second Stop does nothing, and an engine that is not private is left alone.
func (e *Engine) Stop() error {
	p := e.private
	if p == nil || p.stopped {
		return nil
	}
	p.stopped = true
	started.Lock()
	delete(started.engines, e)
	started.Unlock()
	p.end()
	err := destroy(p.dir)
	// Only now: a watcher that finds the folder gone has nothing to do, and one that finds it tries again.
	if p.watcher != nil {
		_ = p.alive.Close()
		_ = p.watcher.Wait()
	}
	if p.lock != nil {
		_ = p.lock.Close()
	}
	return err
}
