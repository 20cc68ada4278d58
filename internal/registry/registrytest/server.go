// Package registrytest gives tests a stock registry (github.com/distribution/distribution), as a process on loopback over a
// folder of its own, a server of tokens, and a proxy that breaks on purpose what passes through it.
package registrytest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

// User and Password are those of a registry with Basic or Token.
const (
	User     = "dogestry"
	Password = "a secret of tests"

	hashed = "$2a$04$YQzuaDosatieKjnA4VnaVeaC7wVSdlgoEgl2m9TTxyAc6sVQjem2W" // of Password, bcrypt
)

// Options say how a registry runs. The zero value lets anybody in, by HTTP.
type Options struct {
	Basic bool // ask for User and Password
	Token bool // ask for a token, which is given to User and Password
	TLS   bool // with a certificate that CAFile alone vouches for

	NoDelete bool // refuse deletions
}

// Server is a registry that is empty at first.
type Server struct {
	Host   string // and port
	CAFile string // with TLS
	Tokens *Tokens

	dir    string
	client *http.Client
}

// Start runs a registry until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	binary, err := findBinary()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{dir: t.TempDir()}
	if o.TLS {
		s.CAFile = s.certify(t)
	}
	if o.Token {
		s.Tokens = startTokens(t, s.dir)
	}
	for attempt := 0; ; attempt++ { // a port that was free may be taken before the server has it
		err := s.launch(t, binary, o)
		if err == nil {
			return s
		}
		if attempt == 5 || !strings.Contains(err.Error(), "address already in use") {
			t.Fatal(err)
		}
	}
}

func (s *Server) launch(t testing.TB, binary string, o Options) error {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.Host = free.Addr().String()
	config := filepath.Join(s.dir, "registry.yml")
	if err := errors.Join(free.Close(), os.WriteFile(config, []byte(s.config(o)), 0o600)); err != nil {
		return err
	}
	// The shell ends the registry when this process does, however that ends.
	cmd := exec.Command("sh", "-c", `"$@" & pid=$!; read -r _; kill -9 $pid; wait`, "sh", binary, "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	alive, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := func() {
		alive.Close()
		_ = cmd.Wait() // it is killed
	}
	if err := s.answers(); err != nil {
		stop()
		return fmt.Errorf("%w\n%s", err, log.Bytes())
	}
	t.Cleanup(stop)
	return nil
}

func (s *Server) config(o Options) string {
	var c strings.Builder
	fmt.Fprintf(&c, "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n")
	fmt.Fprintf(&c, "storage: {filesystem: {rootdirectory: %q}, delete: {enabled: %t}}\n", s.data(), !o.NoDelete)
	fmt.Fprintf(&c, "http:\n  addr: %q\n", s.Host)
	if o.TLS {
		fmt.Fprintf(&c, "  tls: {certificate: %q, key: %q}\n", filepath.Join(s.dir, "server.pem"), filepath.Join(s.dir, "server.key"))
	}
	switch {
	case o.Basic:
		file := filepath.Join(s.dir, "htpasswd")
		_ = os.WriteFile(file, []byte(User+":"+hashed+"\n"), 0o600) // the registry says it
		fmt.Fprintf(&c, "auth: {htpasswd: {realm: tests, path: %q}}\n", file)
	case o.Token:
		c.WriteString(s.Tokens.config())
	}
	return c.String()
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// answers waits until the registry does.
func (s *Server) answers() error {
	transport := &http.Transport{DisableKeepAlives: true}
	base := "http://"
	if s.CAFile != "" {
		base = "https://"
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	}
	s.client = &http.Client{Transport: transport, Timeout: 5 * time.Second}
	var last error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		resp, err := s.client.Get(base + s.Host + "/v2/")
		if err == nil {
			resp.Body.Close()
			return nil
		}
		last = err
	}
	return fmt.Errorf("the registry does not answer: %w", last)
}

// Blob is the file in which the registry keeps a blob or manifest.
func (s *Server) Blob(id image.Digest) string {
	return filepath.Join(s.data(), "docker/registry/v2/blobs/sha256", id.Hex()[:2], id.Hex(), "data")
}

// Forget takes a blob from a repository, behind the registry's back.
func (s *Server) Forget(t testing.TB, path string, id image.Digest) {
	t.Helper()
	link := filepath.Join(s.data(), "docker/registry/v2/repositories", path, "_layers/sha256", id.Hex())
	if err := os.RemoveAll(link); err != nil {
		t.Fatal(err)
	}
}

// Uploads counts the uploads that were begun and did not end.
func (s *Server) Uploads(t testing.TB) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.data(), "docker/registry/v2/repositories/*/_uploads/*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func findBinary() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		path := filepath.Join(dir, ".cache/bin/registry")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		break
	}
	return "", errors.New("no registry on this machine: run script/bootstrap test")
}
