package ssh

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// program is what carries connections, as it is found in PATH.
const program = "ssh"

// args are those of ssh(1). Its configuration decides about all else.
func (o Options) args() []string {
	options := []string{
		"BatchMode=yes",
		"ConnectTimeout=30",
		"ServerAliveInterval=" + strconv.Itoa(o.alive()), // a wire that was cut is noticed after a minute
		"ServerAliveCountMax=3",
		"LogLevel=INFO", // what it says is the reason of a failure
		// What a configuration may have for people who log in:
		"ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no", "PermitLocalCommand=no", "RemoteCommand=none", "RequestTTY=no",
	}
	if o.Ask {
		options[0] = "BatchMode=no"
	}
	var args []string
	for _, option := range options {
		args = append(args, "-o", option)
	}
	if o.User != "" {
		args = append(args, "-l", o.User)
	}
	if o.Port != "" {
		args = append(args, "-p", o.Port)
	}
	return append(args, "-s", "--", o.Host, "sftp")
}

// process is an ssh that runs. As a net.Conn it is what goes through it; both
// directions may be used at once.
type process struct {
	cmd    *exec.Cmd
	in     *os.File // its stdin
	out    *os.File // its stdout
	said   tail     // on stderr
	ended  chan struct{}
	closer sync.Once
}

// start runs ssh. It returns before that has connected. The child ends when this
// process does, however it does.
func (o Options) start() (*process, error) {
	childIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer childIn.Close()
	out, childOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	defer childOut.Close()
	p := &process{cmd: exec.Command(program, o.args()...), in: in, out: out, ended: make(chan struct{})}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = childIn, childOut, &p.said
	p.cmd.WaitDelay = time.Second // a ControlPersist'ing child may hold on to stderr
	p.cmd.SysProcAttr = attributes(o.Ask)
	started := make(chan error)
	go func() {
		// On Linux the child is to die with the thread that started it: this one lives as long.
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // what it said on stderr tells more
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, errors.Join(err, in.Close(), out.Close())
	}
	o.log().Debug("ssh runs", "pid", p.cmd.Process.Pid, "arguments", p.cmd.Args[1:])
	return p, nil
}

// Read and Write are those of the connection.
func (p *process) Read(b []byte) (int, error)  { return p.out.Read(b) }
func (p *process) Write(b []byte) (int, error) { return p.in.Write(b) }

// Close ends the process: by the end of its input, else by signals. It waits for it, some seconds at
// most.
func (p *process) Close() error {
	p.closer.Do(func() {
		_ = p.in.Close()
		for _, signal := range []os.Signal{nil, syscall.SIGTERM, os.Kill} {
			if signal != nil {
				_ = p.cmd.Process.Signal(signal)
			}
			select {
			case <-p.ended:
			case <-time.After(time.Second):
				continue
			}
			break
		}
		_ = p.out.Close()
	})
	return nil
}

// kill ends the process at once.
func (p *process) kill() {
	if p.cmd.Process.Signal(syscall.SIGTERM) != nil {
		_ = p.cmd.Process.Kill()
	}
	_ = p.in.Close()
	_ = p.out.Close() // who reads it is told, whatever the process does
}

// What net.Conn has besides, for internal/throttle.

func (p *process) LocalAddr() net.Addr              { return address(program) }
func (p *process) RemoteAddr() net.Addr             { return address(program) }
func (p *process) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (p *process) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (p *process) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

type address string

func (address) Network() string  { return "pipe" }
func (a address) String() string { return string(a) }

var _ net.Conn = (*process)(nil)

// tail keeps the last of what is written to it.
type tail struct {
	mu    sync.Mutex
	bytes []byte
}

const tailSize = 8 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes = append(t.bytes, b...)
	if over := len(t.bytes) - tailSize; over > 0 {
		t.bytes = append([]byte(nil), t.bytes[over:]...)
	}
	return len(b), nil
}

// lines returns what was said, without what could do something to a terminal.
func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []string
	for line := range strings.Lines(string(t.bytes)) {
		line = strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, line)
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// await waits for the process to end, and for what it has to say then.
func (p *process) await(ctx context.Context, most time.Duration) {
	select {
	case <-p.ended:
	case <-time.After(most):
	case <-ctx.Done():
	}
}

var _ io.ReadWriteCloser = (*process)(nil)
