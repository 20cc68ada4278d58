// Package rsynctest runs a real rsync server for tests, and what lies between it and
// those who use it: a proxy that counts what passes, and breaks it off.
package rsynctest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Module is a directory that a server serves.
type Module struct {
	Name string
	Path string
	// Settings are lines for its part of rsyncd.conf. Without one that says otherwise it may be written.
	Settings []string
}

// Server is an rsync server on loopback.
type Server struct {
	Addr string // host:port

	cmd   *exec.Cmd
	said  *output
	ended chan struct{}
}

// startTime is how long a server may take to listen.
const startTime = 30 * time.Second

// Start starts a server as the current user. Its own files lie in dir, which has to be
// there. Whoever starts one calls Stop.
func Start(dir string, modules ...Module) (*Server, error) {
	if _, err := exec.LookPath("rsync"); err != nil {
		return nil, errors.New("rsync is not installed: script/bootstrap test")
	}
	var err error
	for range 5 { // a port that was free may be taken by another meanwhile
		var s *Server
		if s, err = start(dir, modules); err == nil {
			return s, nil
		}
	}
	return nil, err
}

func start(dir string, modules []Module) (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "rsyncd.conf")
	if err := os.WriteFile(config, []byte(configuration(dir, addr, modules)), 0o600); err != nil {
		return nil, err
	}
	s := &Server{Addr: addr, said: &output{}, ended: make(chan struct{})}
	s.cmd = exec.Command("rsync", "--daemon", "--no-detach", "--config="+config)
	s.cmd.Stdout, s.cmd.Stderr = s.said, s.said
	s.cmd.SysProcAttr = ownGroup()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(s.ended)
		_ = s.cmd.Wait()
	}()
	if err := s.wait(); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// wait waits until somebody answers as an rsync server does.
func (s *Server) wait() error {
	for deadline := time.Now().Add(startTime); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		select {
		case <-s.ended:
			return fmt.Errorf("the rsync server has ended: %s", s.said)
		default:
		}
		conn, err := net.Dial("tcp", s.Addr)
		if err != nil {
			continue
		}
		greeting := make([]byte, 8)
		_ = conn.SetDeadline(deadline)
		_, err = conn.Read(greeting)
		_ = conn.Close()
		if err == nil && string(greeting) == "@RSYNCD:" {
			return nil
		}
	}
	return fmt.Errorf("the rsync server does not answer: %s", s.said)
}

// configuration is an rsyncd.conf(5).
func configuration(dir, addr string, modules []Module) string {
	host, port, _ := net.SplitHostPort(addr)
	var b strings.Builder
	fmt.Fprintf(&b, "address = %s\nport = %s\nuse chroot = no\nreverse lookup = no\nsocket options = TCP_NODELAY\nlog file = %s\nlock file = %s\n",
		host, port, filepath.Join(dir, "log"), filepath.Join(dir, "connections"))
	if os.Getuid() == 0 { // else it would become nobody
		b.WriteString("uid = 0\ngid = 0\n")
	}
	for _, m := range modules {
		fmt.Fprintf(&b, "\n[%s]\npath = %s\nread only = no\n%s\n", m.Name, m.Path, strings.Join(m.Settings, "\n"))
	}
	return b.String()
}

// URL names a directory of a module.
func (s *Server) URL(module string) string { return "rsync://" + s.Addr + "/" + module }

// Stop ends the server and all that it has forked. It may be called again.
func (s *Server) Stop() {
	killGroup(s.cmd.Process)
	<-s.ended
}

// Login returns settings of a module that wants a user and a password. They lie in a file in dir.
func Login(dir, user, password string) ([]string, error) {
	file := filepath.Join(dir, "secrets-"+user)
	err := os.WriteFile(file, []byte(user+":"+password+"\n"), 0o600)
	return []string{"auth users = " + user, "secrets file = " + file}, err
}

type output struct {
	mu sync.Mutex
	b  bytes.Buffer
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
