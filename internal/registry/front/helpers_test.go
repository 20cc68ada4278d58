package front

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// served is a registry that is served.
type served struct {
	url     string
	metrics *Metrics
	stop    context.CancelFunc
	done    chan error // what Serve returned
	logged  *lockedBuffer
	client  *http.Client
}

// start serves registry on loopback until the test ends.
func start(t *testing.T, o Options, registry http.HandlerFunc) *served {
	t.Helper()
	s := &served{metrics: NewMetrics(), done: make(chan error, 1), logged: &lockedBuffer{}, client: &http.Client{Transport: &http.Transport{}}}
	ctx, cancel := context.WithCancel(t.Context())
	s.stop = cancel
	ready := make(chan string, 1)
	if o.Listen == nil {
		o.Listen = []string{"127.0.0.1:0"}
	}
	o.Metrics = s.metrics
	o.Ready = func(urls []string) { ready <- urls[0] }
	o.Access = slog.New(slog.NewTextHandler(s.logged, nil))
	o.Log = slog.New(slog.NewTextHandler(s.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	go func() { s.done <- Serve(ctx, registry, o) }()
	select {
	case s.url = <-ready:
	case err := <-s.done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		s.client.CloseIdleConnections()
		if err := <-s.done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// ended returns what Serve has returned, once it has.
func (s *served) ended() error {
	err := <-s.done
	s.done <- err
	return err
}

// answer is what a client got.
type answer struct {
	code   int
	header http.Header
	body   string
}

func (s *served) do(t *testing.T, r *http.Request) answer {
	t.Helper()
	resp, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func (s *served) request(t *testing.T, method, path string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *served) get(t *testing.T, path string) answer {
	t.Helper()
	return s.do(t, s.request(t, http.MethodGet, path, nil))
}

// counted returns the value of a line of /metrics.
func (s *served) counted(t *testing.T, line string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(line) + ` (\S+)$`).FindSubmatch(s.metrics.text())
	if m == nil {
		t.Fatalf("no line %s in\n%s", line, s.metrics.text())
	}
	return string(m[1])
}

func echo(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "registry ", r.URL.Path) }

// htpasswd writes a file of users "name:password", with the cheapest hashes.
func htpasswd(t *testing.T, name string, users ...string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("# users\n\n")
	for _, u := range users {
		user, password, _ := strings.Cut(u, ":")
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s:%s\n", user, hash)
	}
	return write(t, name, b.String())
}

// write replaces a file as a careful administrator does. An empty name is a new one.
func write(t *testing.T, name, content string) string {
	t.Helper()
	if name == "" {
		name = filepath.Join(t.TempDir(), "file")
	}
	if err := os.WriteFile(name+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
	return name
}

func sumOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
