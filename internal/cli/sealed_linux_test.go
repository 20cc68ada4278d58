package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// relay passes connections from a namespace on to a server outside it.
func relay(t *testing.T, l net.Listener, server string) {
	t.Helper()
	var running sync.WaitGroup
	running.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer from.Close()
				to, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				defer to.Close()
				running.Go(func() {
					_, _ = io.Copy(to, from)
					_ = to.(*net.TCPConn).CloseWrite()
				})
				_, _ = io.Copy(from, to)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
}

// inNamespace runs dogestry there, and returns its exit code and what it wrote to stderr.
func inNamespace(t *testing.T, n *enginetest.Namespace, host string, env []string, args ...string) (code int, stderr string) {
	t.Helper()
	cmd := within(t, n, host, env, args...)
	var errs strings.Builder
	cmd.Stderr = &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), errs.String()
}

func within(t *testing.T, n *enginetest.Namespace, host string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := command(t, host, args...)
	words := n.Command(append([]string{cmd.Path}, args...)...)
	path, err := exec.LookPath(words[0])
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path, cmd.Args = path, words
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// TestSealedContactsNothingElse runs commands where every packet would be seen that
// leaves for anywhere but the remote and the engine.
func TestSealedContactsNothingElse(t *testing.T) {
	e := enginetest.For(t)
	n := enginetest.NewNamespace(t)
	server := s3test.For(t)
	setAccount(t, server.Account)
	bucket := server.Bucket(t)
	if err := e.LoadImage(t.Context(), wordsImage("sealed/app:1", []string{"sealed-a", "sealed-b"})); err != nil {
		t.Fatal(err)
	}
	// An address of its own, since proxies are never asked for loopback.
	l, err := n.Listen("198.18.214.1:0")
	if err != nil {
		t.Fatal(err)
	}
	relay(t, l, strings.TrimPrefix(server.Endpoint, "http://"))
	remote := "s3://" + bucket + "/images?endpoint=http://" + l.Addr().String()
	dir := filepath.Join(t.TempDir(), "images")
	for _, args := range [][]string{
		{"push", remote, "sealed/app:1"},
		{"list", remote},
		{"verify", remote},
		{"pull", remote, "sealed/app:1"},
		{"copy", remote, dir, "sealed/app:1"},
		{"gc", remote},
		{"du", dir},
	} {
		if code, stderr := inNamespace(t, n, e.Host, []string{"DOGESTRY_SEALED=1"}, args...); code != 0 {
			t.Errorf("%q: exit code %d\n%s", args, code, stderr)
		}
	}
	// A registry that names another host for its tokens, which is not even looked up.
	l, err = n.Listen("198.18.214.1:0")
	if err != nil {
		t.Fatal(err)
	}
	registry := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://tokens.example.test/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = registry.Serve(l) })
	t.Cleanup(func() {
		registry.Close()
		serving.Wait()
	})
	elsewhere := "registry://" + l.Addr().String() + "?plain-http=true"

	noKeys := []string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_EC2_METADATA_DISABLED="}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("token"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		env       []string
		host      string
		remote    string
		contacted string // it is refused, and this is told
	}{
		"instance's role":  {noKeys, e.Host, remote, "169.254.169.254:80"},
		"container's role": {append(noKeys, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/x"), e.Host, remote, "169.254.170.2:80"},
		"web identity":     {append(noKeys, "AWS_WEB_IDENTITY_TOKEN_FILE="+token, "AWS_ROLE_ARN=arn:aws:iam::1:role/x", "AWS_REGION=eu-west-1"), e.Host, remote, "sts.eu-west-1.amazonaws.com:443"},
		"proxy":            {[]string{"HTTP_PROXY=http://192.0.2.1:3128", "HTTPS_PROXY=http://192.0.2.1:3128"}, e.Host, remote, "192.0.2.1:3128"},
		"proxy to engine":  {[]string{"HTTP_PROXY=http://192.0.2.1:3128"}, "tcp://192.0.2.2:2375", dir, "192.0.2.1:3128"},
		"token service":    {nil, e.Host, elsewhere, "tokens.example.test:80 was not contacted"},
		"ssh":              {nil, "ssh://192.0.2.2", dir, "ssh was not run"},
	} {
		code, stderr := inNamespace(t, n, test.host, test.env, "pull", "--sealed", test.remote, "sealed/app:1")
		if code != int(fault.Refused) || !strings.Contains(stderr, test.contacted) || !strings.Contains(stderr, "dogestry is sealed (--sealed)") || !strings.Contains(stderr, "sealed-") {
			t.Errorf("%s: exit code %d\n%s", name, code, stderr)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if left, err := n.Left(ctx); len(left) > 0 || err != nil {
		t.Errorf("packets left for %q, %v", left, err)
	}

	// Without the seal the same would have been seen.
	for where, env := range map[string][]string{"tcp 169.254.169.254:80": noKeys, "tcp 192.0.2.1:3128": {"HTTP_PROXY=http://192.0.2.1:3128"}} {
		cmd := within(t, n, e.Host, env, "list", remote)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := n.Await(ctx, where); err != nil {
			t.Error(err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}
