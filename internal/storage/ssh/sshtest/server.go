// Package sshtest runs Debian's sshd for tests: as the user who runs them, with keys and
// configuration of its own, on loopback.
package sshtest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// Options of a Server.
type Options struct {
	// Subsystem is what sftp is on the server; empty means internal-sftp, "none" that there
	// is no such thing.
	Subsystem string
	// Home is where sftp begins. Empty means the user's home directory.
	Home string
	// Jump is a server through which this one is reached, and no other way.
	Jump *Server
}

// Server is a host with an sshd: one for each connection, as inetd would run them, so that
// it needs no port before it has one. Its methods may be called by any goroutine.
type Server struct {
	// Name is what the ssh of this test calls the host.
	Name string

	client   *Client
	dir      string
	config   string
	listener net.Listener

	mu          sync.Mutex
	connections map[*net.TCPConn]*exec.Cmd
	accepted    int
	refusing    bool
	running     sync.WaitGroup
}

// Start runs a server until the test ends, and lets "ssh" in PATH be one that knows it.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	return theClient(t).Start(t, o)
}

// Start runs a server until the test ends, which this client knows.
func (c *Client) Start(t testing.TB, o Options) *Server {
	t.Helper()
	for _, program := range []string{"/usr/sbin/sshd", "/usr/bin/ssh"} {
		if _, err := os.Stat(program); err != nil {
			t.Fatalf("%s is missing, run: script/bootstrap test", program)
		}
	}
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // sshd wants it as root
			t.Fatal(err)
		}
	}
	s := &Server{client: c, dir: t.TempDir(), connections: map[*net.TCPConn]*exec.Cmd{}}
	s.Name = fmt.Sprintf("host%d", c.count())
	s.configure(t, o, c)
	var err error
	if s.listener, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	c.add(t, s, o.Jump)
	s.running.Go(s.serve)
	t.Cleanup(s.stop)
	return s
}

func (s *Server) configure(t testing.TB, o Options, c *Client) {
	t.Helper()
	public := newKey(t, filepath.Join(s.dir, "host_key"))
	appendTo(t, c.path("known_hosts"), s.Name+" "+public)
	config := []string{
		"HostKey " + filepath.Join(s.dir, "host_key"),
		"AuthorizedKeysFile " + c.path("authorized_keys"),
		"StrictModes no", "UsePAM no", "PasswordAuthentication no", "KbdInteractiveAuthentication no",
		"PermitRootLogin yes", "PidFile none", "UseDNS no", "PrintMotd no", "PrintLastLog no",
	}
	subsystem := o.Subsystem
	if subsystem == "" {
		subsystem = "internal-sftp"
		if o.Home != "" {
			subsystem += " -d " + o.Home
		}
	}
	if subsystem != "none" {
		config = append(config, "Subsystem sftp "+subsystem)
	}
	s.config = filepath.Join(s.dir, "sshd_config")
	appendTo(t, s.config, strings.Join(config, "\n")+"\n")
}

// URL is that of a directory of the host; of its home, where it begins with "~".
func (s *Server) URL(dir string) string {
	return "ssh://" + s.Name + "/" + strings.TrimPrefix(dir, "/")
}

// Port is where the server listens on 127.0.0.1.
func (s *Server) Port() string {
	_, port, _ := net.SplitHostPort(s.listener.Addr().String())
	return port
}

// Accepted returns how many connections there have been.
func (s *Server) Accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// Open returns how many connections there are.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.connections)
}

// Cut breaks all connections that there are.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for connection := range s.connections {
		_ = connection.CloseRead()
		_ = connection.CloseWrite()
	}
}

// Silence stops the processes that serve the connections that there are: from there on
// these are open, and nothing comes.
func (s *Server) Silence() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, cmd := range s.connections {
		errs = append(errs, stopGroup(cmd.Process))
	}
	return errors.Join(errs...)
}

// Refuse lets the server close new connections before it says a word, or take them again.
func (s *Server) Refuse(refuse bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusing = refuse
}

func (s *Server) serve() {
	for {
		connection, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.take(connection.(*net.TCPConn))
	}
}

func (s *Server) take(connection *net.TCPConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted++
	if s.refusing {
		connection.Close()
		return
	}
	socket, err := connection.File()
	if err != nil {
		connection.Close()
		return
	}
	defer socket.Close()
	cmd := exec.Command("/usr/sbin/sshd", "-i", "-e", "-f", s.config)
	cmd.Stdin, cmd.Stdout = socket, socket
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		connection.Close()
		return
	}
	s.connections[connection] = cmd
	s.running.Go(func() {
		_ = cmd.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.connections, connection)
		connection.Close()
	})
}

func (s *Server) stop() {
	_ = s.listener.Close()
	s.Cut()
	s.mu.Lock()
	for _, cmd := range s.connections {
		killGroup(cmd.Process)
	}
	s.mu.Unlock()
	s.running.Wait()
}

// newKey writes a key to path, and returns what others are told of it.
func newKey(t testing.TB, path string) (public string) {
	t.Helper()
	open, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(secret, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(open)
	if err != nil {
		t.Fatal(err)
	}
	return string(ssh.MarshalAuthorizedKey(key))
}

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// login is who the tests are.
func login(t testing.TB) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}
