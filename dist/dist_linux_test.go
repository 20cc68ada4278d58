// Package dist_test looks that what is handed to administrators works.
package dist_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/cli"
	"github.com/dogestry/dogestry/internal/enginetest"
)

// asProgram names the environment variable that makes this test binary dogestry.
const asProgram = "DOGESTRY_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	enginetest.Main(m)
}

// TestUnit: systemd understands every line of the units, and calls them hardened. Where there is no
// systemd, its lines are looked at by nobody.
func TestUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("no systemd-analyze on this machine")
	}
	for _, command := range []string{"serve", "agent"} {
		t.Run(command, func(t *testing.T) { testUnit(t, command) })
	}
}

func testUnit(t *testing.T, command string) {
	name := "dogestry-" + command + ".service"
	content, err := os.ReadFile(filepath.Join("systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	const program = "/usr/local/bin/dogestry"
	if !strings.Contains(string(content), program+" "+command+" ") {
		t.Fatal("it starts another program")
	}
	unit := filepath.Join(t.TempDir(), name) // with a program that is there
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(content), program, "/bin/true")), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", unit).CombinedOutput()
	if err != nil || strings.Contains(string(out), unit) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	out, err = exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--threshold=25", unit).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

// TestImage builds the image without a network, and serves a remote out of a container.
func TestImage(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: builds the program")
	}
	e := enginetest.For(t)
	program := filepath.Join(t.TempDir(), "dogestry")
	run(t, "CGO_ENABLED=0", "go", "build", "-trimpath", "-o", program, "./cmd/dogestry")
	const image = enginetest.Repository + "/dogestry:dist"
	run(t, "DOCKER_HOST="+e.Host, "script/image", image, program)
	t.Cleanup(func() { remove(t, e, "rmi", "-f", image) })

	golden, err := filepath.Abs("../testdata/golden/2.0")
	if err != nil {
		t.Fatal(err)
	}
	id, err := e.Docker(t.Context(), nil, "run", "-d", "--network=host", "-v", golden+":/images:ro", image, "serve", "/images", "--listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	container := strings.TrimSpace(string(id))
	t.Cleanup(func() { remove(t, e, "rm", "-f", container) })

	// The log is followed to its first line: where it listens.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, w := io.Pipe()
	go func() { w.CloseWithError(e.DockerStream(ctx, nil, w, "logs", "-f", container)) }()
	defer r.Close()
	line := make([]byte, 0, 200)
	for len(line) < cap(line) && !strings.HasSuffix(string(line), "\n") {
		n, err := r.Read(line[len(line) : len(line)+1])
		line = line[:len(line)+n]
		if err != nil {
			t.Fatalf("it says %q: %v", line, err)
		}
	}
	at := regexp.MustCompile(`at (http://\S+)\n`).FindSubmatch(line)
	if at == nil {
		t.Fatalf("it says %q", line)
	}
	for path, want := range map[string]string{"/healthz": "ok", "/v2/myapp/tags/list": `"by-hand"`} {
		res, err := http.Get(string(at[1]) + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s, %q, %v", path, res.Status, body, err)
		}
	}
	// It trusts authorities, and stops well.
	if _, err := e.Docker(t.Context(), nil, "stop", container); err != nil {
		t.Fatal(err)
	}
	code, err := e.Docker(t.Context(), nil, "wait", container)
	if err != nil || strings.TrimSpace(string(code)) != "0" {
		t.Errorf("it ended with %s, %v", code, err)
	}
	archive, err := e.Docker(t.Context(), nil, "cp", container+":/etc/ssl/certs/ca-certificates.crt", "-")
	if err != nil || !strings.Contains(string(archive), "BEGIN CERTIFICATE") {
		t.Errorf("no certificates: %v", err)
	}
}

// run runs a program at the root of the module.
func run(t *testing.T, env, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), env)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func remove(t *testing.T, e *enginetest.Engine, args ...string) {
	if _, err := e.Docker(context.WithoutCancel(t.Context()), nil, args...); err != nil {
		t.Error(err)
	}
}
