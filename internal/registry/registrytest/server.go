// Package registrytest gives tests a stock registry (github.com/distribution/distribution), as a process on loopback over a
// folder of its own, a server of tokens, and a proxy that breaks on purpose what passes through it.
package registrytest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

// User and Password are those of a registry with Basic or Token.
const (
	User     = "dogestry"
	Password = "a secret of tests"

	// IdentityToken stands for both where tokens are given.
	IdentityToken = "a secret token of tests"

	hashed = "$2a$04$YQzuaDosatieKjnA4VnaVeaC7wVSdlgoEgl2m9TTxyAc6sVQjem2W" // of Password, bcrypt
)

// Options say how a registry runs. The zero value lets anybody in, by HTTP.
type Options struct {
	Basic bool // ask for User and Password
	Token bool // ask for a token, which is given to User and Password
	TLS   bool // with a certificate that CAFile alone vouches for
	Shown bool // ask clients for that certificate too, with TLS

	NoDelete bool // refuse deletions

	Debian bool // run Debian's docker-registry (2.8), and not 3.x
}

// Server is a registry that is empty at first.
type Server struct {
	Host    string // and port
	CAFile  string // with TLS: the server's certificate
	KeyFile string // and its key
	Tokens  *Tokens

	dir string
}

// Start runs a registry until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	find := findBinary
	if o.Debian {
		find = func() (string, error) { return exec.LookPath("docker-registry") }
	}
	binary, err := find()
	if err != nil {
		t.Fatalf("a stock registry is missing (script/bootstrap test installs it): %v", err)
	}
	s := &Server{dir: t.TempDir()}
	if o.TLS {
		s.CAFile, s.KeyFile = s.certify(t)
	}
	if o.Token {
		s.Tokens = startTokens(t, s.dir)
	}
	if err := s.launch(t, binary, o); err != nil {
		t.Fatal(err)
	}
	return s
}

// startTimeout is for a busy machine; an idle one needs 0.1 s.
const startTimeout = time.Minute

// launch starts the registry, and returns when it listens. It takes a free port itself, so that no other server can have it.
func (s *Server) launch(t testing.TB, binary string, o Options) error {
	config := filepath.Join(s.dir, "registry.yml")
	if err := os.WriteFile(config, []byte(s.config(o)), 0o600); err != nil {
		return err
	}
	// The shell ends the registry when this process does, however that ends, and itself when the registry does.
	cmd := exec.Command("sh", "-c", `exec 3<&0; "$@" 3<&- & pid=$!
		{ read -r _; kill -9 $pid; } <&3 >/dev/null 2>&1 & reader=$!
		wait $pid; kill $reader`, "sh", binary, "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	log := &output{listening: make(chan string, 1)}
	cmd.Stdout, cmd.Stderr = log, log
	alive, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed, or its log says why it ended
		close(exited)
	}()
	stop := func() {
		alive.Close()
		<-exited
	}
	select {
	case s.Host = <-log.listening:
		t.Cleanup(stop)
		return nil
	case <-exited:
		return fmt.Errorf("the registry ended at its start:\n%s", log)
	case <-time.After(startTimeout):
		stop()
		return fmt.Errorf("the registry does not listen:\n%s", log)
	}
}

// output is what a registry has written so far.
type output struct {
	listening chan string // where it listens, once it says so

	mu   sync.Mutex
	text []byte
	told bool
}

var listensAt = regexp.MustCompile(`msg="listening on ([0-9.:]+)(, tls)?"`)

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.text = append(o.text, b...); !o.told {
		if m := listensAt.FindSubmatch(o.text); m != nil {
			o.told = true
			o.listening <- string(m[1])
		}
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

func (s *Server) config(o Options) string {
	var c strings.Builder
	fmt.Fprintf(&c, "version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\n")
	fmt.Fprintf(&c, "storage: {filesystem: {rootdirectory: %q}, delete: {enabled: %t}}\n", s.data(), !o.NoDelete)
	fmt.Fprintf(&c, "http:\n  addr: 127.0.0.1:0\n")
	if o.TLS {
		clients := "[]"
		if o.Shown {
			clients = fmt.Sprintf("[%q]", s.CAFile)
		}
		fmt.Fprintf(&c, "  tls: {certificate: %q, key: %q, clientcas: %s}\n", s.CAFile, s.KeyFile, clients)
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
	return "", errors.New("no .cache/bin/registry here or above")
}
