package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dockerconfig "github.com/docker/cli/cli/config"
	"github.com/moby/moby/client"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// noEnvironment takes away what would lead docker, and us, to an engine.
func noEnvironment(t *testing.T) (config string) {
	t.Helper()
	config = t.TempDir()
	before := dockerconfig.Dir() // which it reads once a process
	dockerconfig.SetDir(config)
	t.Cleanup(func() { dockerconfig.SetDir(before) })
	for _, name := range []string{"DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION", "DOCKER_TLS"} {
		t.Setenv(name, "")
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	return config
}

// tryConnect connects, says hello and goes.
func tryConnect(t *testing.T, url string) (host string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := Connect(ctx, Options{URL: url, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", err
	}
	defer c.Close()
	_, err = c.Has(ctx, image.ID{})
	return c.Host(), err
}

func TestNoEngine(t *testing.T) {
	noEnvironment(t)
	dir := shortDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(dir, "dead") // a socket that nobody listens at any more
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	for _, address := range []string{"unix://" + dir + "/none", "unix://" + file, "unix://" + dead, "tcp://127.0.0.1:1", "http://127.0.0.1:1"} {
		_, err := tryConnect(t, address)
		if !fault.Is(err, fault.Other) || !strings.Contains(err.Error(), "no Docker Engine answers at "+address) {
			t.Errorf("%s: error %v", address, err)
		}
		if !strings.Contains(fault.AdviceOf(err), "--engine URL") {
			t.Errorf("%s: advice %q", address, fault.AdviceOf(err))
		}
	}
}

func TestNoEngineButSomething(t *testing.T) {
	noEnvironment(t)
	for what, h := range map[string]http.HandlerFunc{
		"404": http.NotFound,
		"500": says(http.StatusInternalServerError, `{"message":"much trouble"}`),
	} {
		server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = server.Serve(l) }()
		_, err = tryConnect(t, "tcp://"+l.Addr().String())
		if !fault.Is(err, fault.Other) || !strings.Contains(err.Error(), l.Addr().String()) {
			t.Errorf("%s: error %v", what, err)
		}
		_ = server.Close()
	}
}

func TestConnectIsInterrupted(t *testing.T) {
	noEnvironment(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(100*time.Millisecond, cancel).Stop()
	if _, err := Connect(ctx, Options{URL: "tcp://" + l.Addr().String(), Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// told is what the other user's process tells of its fault.
type told struct {
	Kind            int
	Message, Advice string
}

// TestPermissionDenied connects to a socket as somebody who may not.
func TestPermissionDenied(t *testing.T) {
	if url := os.Getenv("ENGINE_TEST_DENIED"); url != "" { // that somebody
		_, err := tryConnect(t, url)
		if err == nil {
			t.Fatal("connected")
		}
		line, err := json.Marshal(told{int(fault.KindOf(err)), err.Error(), fault.AdviceOf(err)})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("told:%s\n", line)
		return
	}
	f := &fake{}
	url := f.start(t)
	socket := strings.TrimPrefix(url, "unix://")
	if err := os.Chmod(socket, 0); err != nil {
		t.Fatal(err)
	}
	// t.TempDir is closed to others, and so is where `go test` has put this program.
	dir := shortDir(t)
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "test"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "test"), "-test.run=^TestPermissionDenied$")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "ENGINE_TEST_DENIED="+url, "HOME="+dir)
	asNobody(cmd)
	out, err := cmd.CombinedOutput()
	_, line, ok := strings.Cut(string(out), "told:")
	if err != nil || !ok {
		t.Fatalf("%v: %s", err, out)
	}
	line, _, _ = strings.Cut(line, "\n")
	var got told
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatal(err)
	}
	if got.Kind != int(fault.Refused) || !strings.Contains(got.Message, "no permission to use the Docker Engine at "+url) ||
		!strings.Contains(got.Advice, "group") {
		t.Errorf("told %+v", got)
	}
}

func TestBadURLs(t *testing.T) {
	noEnvironment(t)
	for _, url := range []string{
		"./docker.sock", "/var/run/docker.sock", "host/path", "ftp://x", "s3://bucket", "://", "tcp:///path", "tcp://a b", "tcp://[::1", "tcp://host:port:port",
		"host:port", "ssh://", "ssh:///x", "tcp://%zz", "\x00", "tcp://\x7f", strings.Repeat("x", 10000),
	} {
		for _, way := range []string{"option", "DOCKER_HOST"} {
			override := url
			if way == "DOCKER_HOST" {
				if strings.ContainsRune(url, 0) {
					continue
				}
				t.Setenv("DOCKER_HOST", url)
				override = ""
			}
			_, err := tryConnect(t, override)
			if !fault.Is(err, fault.Usage) && len(url) < 1000 || err == nil || fault.AdviceOf(err) == "" {
				t.Errorf("%.50q as %s: error %v, advice %q", url, way, err, fault.AdviceOf(err))
			}
		}
	}
}

// TestPasswordIsNeverShown: a URL may hold one, whether the URL makes sense or not.
func TestPasswordIsNeverShown(t *testing.T) {
	noEnvironment(t)
	for _, url := range []string{
		"tcp://doge:s3cret@127.0.0.1:1", "http://doge:s3cret@127.0.0.1:1", "https://doge:s3cret@127.0.0.1:1", "tcp://doge:s3cret@127.0.0.1:port",
		"doge:s3cret@127.0.0.1", "ftp://doge:s3cret@127.0.0.1", "tcp://doge:s3cret@[::1", "tcp://doge:s3cret%zz@127.0.0.1:1", "ssh://doge:s3cret@127.0.0.1:1",
		"ssh://doge:s3cret@127.0.0.1:1/path", "unix://doge:s3cret@/x", "tcp://:s3cret@127.0.0.1:1", "tcp://doge:x/s3cret@127.0.0.1:1",
	} {
		for _, way := range []string{"option", "DOCKER_HOST"} {
			override := url
			if way == "DOCKER_HOST" {
				t.Setenv("DOCKER_HOST", url)
				override = ""
			}
			_, err := tryConnect(t, override)
			if err == nil {
				t.Errorf("%s as %s: no error", url, way)
				continue
			}
			if text := err.Error() + fault.AdviceOf(err); strings.Contains(text, "s3cret") {
				t.Errorf("%s as %s: %s", url, way, text)
			}
		}
		_ = os.Unsetenv("DOCKER_HOST")
	}
}

// writeContext writes a docker context as `docker context create` does.
func writeContext(t *testing.T, config, name, url string) {
	t.Helper()
	dir := filepath.Join(config, "contexts", "meta", sum(name))
	meta, err := json.Marshal(map[string]any{
		"Name": name, "Metadata": map[string]any{}, "Endpoints": map[string]any{"docker": map[string]any{"Host": url, "SkipTLSVerify": false}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "meta.json"), meta, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestWhichEngine goes through docker's order of precedence, from its end.
func TestWhichEngine(t *testing.T) {
	config := noEnvironment(t)
	url := map[string]string{}
	for _, name := range []string{"current", "named", "variable", "option"} {
		url[name] = (&fake{}).start(t)
	}
	writeContext(t, config, "current", url["current"])
	writeContext(t, config, "named", url["named"])
	is := func(what, override, want string) {
		t.Helper()
		if host, err := tryConnect(t, override); host != want || err != nil {
			t.Errorf("%s: engine at %s, error %v, want %s", what, host, err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(`{"currentContext":"current"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	is("current context", "", url["current"])
	t.Setenv("DOCKER_CONTEXT", "named")
	is("DOCKER_CONTEXT", "", url["named"])
	t.Setenv("DOCKER_HOST", url["variable"])
	is("DOCKER_HOST", "", url["variable"])
	is("option", url["option"], url["option"])
	is("option, a context", "context://named", url["named"])
	is("option, the bare name of a context", "current", url["current"])
	if _, err := tryConnect(t, "context://nobody"); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), `"nobody"`) {
		t.Errorf("a context that is not there: error %v", err)
	}
	if endpoint, err := resolve("nobody"); err != nil || endpoint.Host != "tcp://nobody:2375" {
		t.Errorf("a bare name that no context has: %s, %v", endpoint.Host, err)
	}
	if endpoint, err := resolve("context://default"); err != nil || endpoint.Host != client.DefaultDockerHost {
		t.Errorf("docker's default context: %s, %v", endpoint.Host, err)
	}
}

func TestContextsThatAreWrong(t *testing.T) {
	config := noEnvironment(t)
	t.Setenv("DOCKER_CONTEXT", "such-context")
	_, err := tryConnect(t, "")
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), `"such-context"`) || !strings.Contains(fault.AdviceOf(err), "docker context ls") {
		t.Errorf("missing: error %v", err)
	}
	writeContext(t, config, "such-context", "unix:///none")
	meta := filepath.Join(config, "contexts", "meta", sum("such-context"), "meta.json")
	for _, content := range []string{"", "{", "[]", `{"Name":"such-context"}`, `{"Name":"such-context","Endpoints":{"docker":{"Host":7}}}`} {
		if err := os.WriteFile(meta, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := tryConnect(t, ""); err == nil || fault.AdviceOf(err) == "" {
			t.Errorf("%q: error %v, advice %q", content, err, fault.AdviceOf(err))
		}
	}
	t.Setenv("DOCKER_CONTEXT", "")
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tryConnect(t, ""); !fault.Is(err, fault.Other) || !strings.Contains(err.Error(), "docker's configuration") {
		t.Errorf("broken configuration: error %v", err)
	}
}

func TestDefaultContext(t *testing.T) {
	noEnvironment(t)
	for _, name := range []string{"", "default"} {
		t.Setenv("DOCKER_CONTEXT", name)
		endpoint, err := resolve("")
		if err != nil || !strings.Contains(endpoint.Host, "docker") {
			t.Errorf("%q: %s, error %v", name, endpoint.Host, err)
		}
	}
}

// TestAddress completes addresses as docker does.
func TestAddress(t *testing.T) {
	for _, c := range []struct{ host, variable, want string }{
		{"", "", client.DefaultDockerHost},
		{" ", "", client.DefaultDockerHost},
		{"", "DOCKER_TLS", "tcp://localhost:2376"},
		{"", "DOCKER_TLS_VERIFY", "tcp://localhost:2376"},
		{"host", "", "tcp://host:2375"},
		{"host:7", "", "tcp://host:7"},
		{" host:7\n", "", "tcp://host:7"},
		{":7", "", "tcp://localhost:7"},
		{"[::1]:7", "", "tcp://[::1]:7"},
		{"tcp://", "", "tcp://localhost:2375"},
		{"tcp://host", "", "tcp://host:2375"},
		{"tcp://host", "DOCKER_TLS", "tcp://host:2375"}, // docker asks for 2376 only where there is no host
		{"tcp://host:7/path", "", "tcp://host:7/path"},
		{"unix:///x/docker.sock", "DOCKER_TLS", "unix:///x/docker.sock"},
		{"http://host", "", "http://host"},
		{"https://host:7", "", "https://host:7"},
		{"ssh://user@host", "DOCKER_TLS", "ssh://user@host"},
	} {
		config := noEnvironment(t)
		if err := os.WriteFile(filepath.Join(config, "ca.pem"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if c.variable != "" {
			t.Setenv(c.variable, "1")
		}
		for _, way := range []string{"option", "DOCKER_HOST"} {
			override := c.host
			if way == "DOCKER_HOST" {
				t.Setenv(way, c.host)
				override = ""
			}
			if endpoint, err := resolve(override); err != nil || endpoint.Host != c.want {
				t.Errorf("%q as %s with %q: %s, error %v, want %s", c.host, way, c.variable, endpoint.Host, err, c.want)
			}
		}
	}
}

// TestAddressWithoutScheme connects to it.
func TestAddressWithoutScheme(t *testing.T) {
	noEnvironment(t)
	server := httptest.NewServer(&fake{})
	defer server.Close()
	address := server.Listener.Addr().String()
	if host, err := tryConnect(t, address); err != nil || host != "tcp://"+address {
		t.Errorf("engine at %s, error %v", host, err)
	}
}

// TestPathBehindSSH: who names a remote's directory as an engine is told what its path is taken for.
func TestPathBehindSSH(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // no ssh
	for url, want := range map[string]string{
		"ssh://me@host.invalid/srv/images": "/srv/images is taken for the engine's socket",
		"ssh://me@host.invalid/":           "DOCKER_HOST",
		"ssh://me@host.invalid":            "DOCKER_HOST",
	} {
		_, err := Connect(t.Context(), Options{URL: url, Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(fault.AdviceOf(err), want) {
			t.Errorf("%s: %v, %s", url, err, fault.AdviceOf(err))
		}
	}
}
