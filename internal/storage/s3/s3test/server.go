// Package s3test gives tests and benchmarks of the S3 store a real S3 server, and a proxy that breaks on purpose what
// passes through it.
//
// [Start] runs a versitygw on a loopback port, over a folder of its own, so that a test may fill and kill it; [For] is one
// that the tests of a process share. [NewProxy] stands in front of a server and loses answers, resets connections, stalls,
// and answers as servers do that are busy or poor; it also says which requests came.
//
// The server is a process and no part of this module: docs/decisions/0006-s3-server-of-the-tests.md says why. This package
// does not know the S3 store, and speaks to the server with net/http alone.
//
// What works without a [testing.TB] returns errors, so that a benchmark program can use it too.
package s3test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Region is the region of every server of this package.
const Region = "us-east-1"

// Names below a server's folder.
const (
	dirPrefix = "dgs3-" // the folders themselves: enginetest removes what is called like its own
	dataName  = "data"  // a bucket is a folder below it
	iamName   = "iam"
	pidName   = "pid"
	logName   = "log"
)

const startTimeout = 30 * time.Second // an idle machine needs 0.1 s

// Options say how [Start] runs a server. The zero value is right for most.
type Options struct {
	// Parent is the folder in which the server's own folder is made; "" means [os.TempDir]. Its file system must have
	// extended attributes of users.
	Parent string
	// Args are added to the server's own arguments, before "posix".
	Args []string
}

// Server is an S3 server that tests may fill and kill at will. Its methods may be called from several goroutines, except
// that nothing else may run during Restart and Stop.
type Server struct {
	// Endpoint is the server's address, http://127.0.0.1:port. Buckets are the first element of the path.
	Endpoint string
	// Account is the server's owner, who may do everything.
	Account

	o       Options
	binary  string
	dir     string
	health  string         // a path that only this server answers: a port may have got another owner
	watcher *exec.Cmd      // cleans up if this process dies
	alive   io.WriteCloser // the watcher sees its end when this process ends
	cmd     *exec.Cmd
	exited  chan struct{} // closed when cmd has been waited for
	stopped bool
	client  *http.Client

	mu       sync.Mutex
	accounts map[string]Account // those of NewAccount, and the owner
}

// Start runs a server on a free port of the loopback interface, over an empty folder. ctx bounds the start only; whoever
// starts a server stops it. When the process dies without Stop, a watcher stops the server and removes its folder.
func Start(ctx context.Context, o Options) (*Server, error) {
	binary, err := findBinary()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.Parent, dirPrefix)
	if err != nil {
		return nil, err
	}
	owner := Account{AccessKey: "dogestry", SecretKey: rand.Text()}
	s := &Server{
		Account:  owner,
		o:        o,
		binary:   binary,
		dir:      dir,
		health:   "/" + rand.Text(),
		client:   &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		accounts: map[string]Account{owner.AccessKey: owner},
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	if err := s.watch(); err != nil {
		return err
	}
	for _, name := range []string{dataName, iamName} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil {
			return err
		}
	}
	var err error
	for range 5 { // a port that was free may be taken before the server has it
		var port int
		if port, err = freePort(); err != nil {
			return err
		}
		s.Endpoint = "http://127.0.0.1:" + strconv.Itoa(port)
		if err = s.launch(ctx); err == nil || !strings.Contains(err.Error(), "address already in use") {
			return err
		}
	}
	return err
}

// freePort finds a port below those that the kernel gives to clients: one of these could take it while the server is
// killed, even a client that tries to reach the server, by connecting to itself.
func freePort() (int, error) {
	var err error
	for range 100 {
		n, _ := rand.Int(rand.Reader, big.NewInt(10000)) // never fails
		port := 20000 + int(n.Int64())
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, err
}

// findBinary looks where script/bootstrap puts the server, then in PATH.
func findBinary() (string, error) {
	if root, err := moduleRoot(); err == nil {
		if path, err := exec.LookPath(filepath.Join(root, ".cache/bin/versitygw")); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath("versitygw")
	if err != nil {
		return "", errors.New("no versitygw on this machine: run script/bootstrap test")
	}
	return path, nil
}

// moduleRoot is the folder of go.mod, at or above the working directory, which in a test is the package's own.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod at or above the working directory: run inside the module")
		}
		dir = up
	}
}

// launchScript notes its process id before it becomes the server, so that there is no server without a note.
const launchScript = `echo $$ >"$0" && exec "$@"`

// launch starts the process and returns when it answers.
func (s *Server) launch(ctx context.Context) error {
	args := []string{
		"-c", launchScript, filepath.Join(s.dir, pidName), s.binary,
		"--port", strings.TrimPrefix(s.Endpoint, "http://"), "--region", Region, "--health", s.health, "--quiet",
		"--keep-alive", // without it the server closes every connection after one answer
		"--iam-dir", filepath.Join(s.dir, iamName), "--iam-cache-disable",
	}
	args = append(append(args, s.o.Args...), "posix", filepath.Join(s.dir, dataName))
	log, err := os.OpenFile(filepath.Join(s.dir, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the server has its own copy
	// Not CommandContext: ctx bounds the start, not the server's life.
	cmd := exec.Command("/bin/sh", args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = ownGroup() // a ^C in the terminal is for us, who then stop it
	// Nothing else: the server takes settings from variables of the machine, too.
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir,
		"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey,
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	s.cmd, s.exited = cmd, exited
	go func() {
		_ = cmd.Wait()
		_ = os.Remove(filepath.Join(s.dir, pidName)) // the number may be another's soon
		close(exited)
	}()
	return s.await(ctx)
}

// await returns when the server answers, or says why it never will. A server that does not answer is killed.
func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+s.health, nil)
		if err != nil {
			return err
		}
		if resp, err := s.client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-s.exited:
			return fmt.Errorf("versitygw ended at its start (%s); its log ends with:\n%s", s.cmd.ProcessState, s.logTail())
		case <-ctx.Done():
			s.Kill()
			return fmt.Errorf("versitygw does not answer: %w; its log ends with:\n%s", ctx.Err(), s.logTail())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// logTail is the end of the server's log, for errors.
func (s *Server) logTail() string {
	b, err := os.ReadFile(filepath.Join(s.dir, logName))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(bytes.TrimSpace(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// watchScript cleans up behind an owner that died. It waits for the end of its input, which the kernel brings about
// however the owner ends; Pdeathsig would not do, being tied to a thread of the owner's, and it would leave the folder.
const watchScript = `
while read -r _; do :; done
n=0
while [ -d "$0" ] && [ $n -lt 50 ]; do
	pid=$(cat "$0/pid" 2>/dev/null) && kill -KILL "$pid" 2>/dev/null
	rm -rf "$0" 2>/dev/null
	n=$((n+1))
	[ ! -d "$0" ] || sleep 0.1
done
`

// watch starts the watcher of this server.
func (s *Server) watch() error {
	watcher := exec.Command("/bin/sh", "-c", watchScript, s.dir)
	watcher.Dir = "/"
	watcher.SysProcAttr = ownGroup()  // signals to the owner's group are not for it
	alive, err := watcher.StdinPipe() // close-on-exec: no other child keeps it open
	if err != nil {
		return err
	}
	if err := watcher.Start(); err != nil {
		return err
	}
	s.watcher, s.alive = watcher, alive
	return nil
}

// Kill ends the server with SIGKILL in the middle of its work, and returns when it is gone. Its data stays: Restart, or
// Stop.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Kill() // does nothing to one that has been waited for
	<-s.exited
}

// Restart starts the server again, at the same address and with the same data. One that still runs is killed first.
func (s *Server) Restart(ctx context.Context) error {
	if s.stopped {
		return errors.New("the server was stopped, its data is gone")
	}
	s.Kill()
	return s.launch(ctx)
}

// Stop ends the server and removes its folder with all buckets. Killed servers are cleaned up the same; a second Stop does
// nothing.
func (s *Server) Stop() error {
	if s.stopped {
		return nil
	}
	s.stopped = true
	s.Kill()
	err := os.RemoveAll(s.dir)
	// Only now: a watcher that finds the folder gone has nothing to do, and one that finds it tries again.
	if s.watcher != nil {
		_ = s.alive.Close()
		_ = s.watcher.Wait()
	}
	return err
}
