// Package docs_test runs what the pages tell people to type.
package docs_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/cli"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// TestMain makes this test binary dogestry where it is called so.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "dogestry" {
		os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	enginetest.Main(m)
}

// block is a fenced block of a page.
type block struct{ language, text string }

// blocksOf reads the fenced blocks of a page, in their order.
func blocksOf(t *testing.T, page string) (blocks []block) {
	t.Helper()
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for line := range strings.Lines(string(content)) {
		switch fence, ok := strings.CutPrefix(line, "```"); {
		case ok && inside:
			inside = false
		case ok:
			inside = true
			blocks = append(blocks, block{language: strings.TrimSpace(fence)})
		case inside:
			blocks[len(blocks)-1].text += line
		}
	}
	return blocks
}

// sshStandIn is the ssh of the test: every host is this machine, in an empty directory, without what the caller's shell has set.
const sshStandIn = `#!/bin/bash
set -eu
if [ "$1" = -n ]; then shift; exec </dev/null; fi
host=$1; shift
echo "$host: $*" >>"$SSH_LOG"
cd "$(mktemp -d)"
exec env -u REMOTE -u VERSION sh -c "$*"
`

// TestDeploy runs the walk-through of deploy.md, block by block in one shell, with a bucket of a real S3 server and a real engine behind
// all twelve hosts; then it looks where that has led.
func TestDeploy(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: runs more than a hundred commands")
	}
	e := enginetest.For(t)
	hello, err := e.Load(t.Context(), enginetest.Hello)
	if err != nil {
		t.Fatal(err)
	}
	server := s3test.For(t)
	bucket := server.Bucket(t)
	remote := "s3://" + bucket + "/prod"

	dir, bin := t.TempDir(), t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "dogestry")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(bin, "ssh"), sshStandIn, 0o755)
	write(t, filepath.Join(dir, "Dockerfile"), "FROM "+hello+"\nCOPY hosts /hosts\nARG DOGESTRY_TEST\nENV VERSION=$DOGESTRY_TEST\n", 0o644)
	// The page builds twice. The two images have to differ, as those of two days do.
	write(t, filepath.Join(bin, "docker"), "#!/bin/bash\nif [ \"$1\" = build ]; then shift; set -- build --build-arg DOGESTRY_TEST=$RANDOM$RANDOM \"$@\"; fi\nPATH=${PATH#*:} exec docker \"$@\"\n", 0o755)

	var script strings.Builder
	script.WriteString("set -euo pipefail\n")
	for _, b := range blocksOf(t, "deploy.md") {
		if b.language == "sh" {
			script.WriteString(strings.ReplaceAll(b.text, "s3://acme-images/prod", remote))
		}
	}
	script.WriteString("docker inspect --format '{{.Config.Image}} {{.State.ExitCode}}' myapp\ndogestry list \"$REMOTE\" --quiet\n")
	t.Cleanup(func() {
		removed(t, e, "rm", "--force", "myapp")
		removed(t, e, "rmi", "--force", "myapp:live", "myapp:20131210", "myapp:20131211")
	})
	log := filepath.Join(dir, "ssh.log")
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script.String())
	cmd.Dir = dir
	cmd.Env = append(s3test.Clean(os.Environ()), server.Environment()...)
	cmd.Env = append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+dir, "TMPDIR="+t.TempDir(), "XDG_CACHE_HOME="+t.TempDir(), "SSH_LOG="+log,
		"DOCKER_HOST="+e.Host, "DOCKER_BUILDKIT=0", "AWS_ENDPOINT_URL_S3="+server.Endpoint)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	for _, want := range []string{"web12.example runs myapp:20131211\n", "web1.example runs myapp:20131210\n", "\nmyapp:live 0\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	tag := func(name string) string {
		content, err := os.ReadFile(filepath.Join(server.Dir(bucket), "prod/repositories/myapp", name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(content))
	}
	if first, second, live := tag("20131210"), tag("20131211"), tag("live"); live != first || first == second {
		t.Errorf("live is %s, of %s and %s", live, first, second)
	}
	if id, ok, err := e.ImageID(t.Context(), "myapp:live"); err != nil || !ok || !strings.HasSuffix(id, tag("live")) {
		t.Errorf("the engine has %s, %v, %v", id, ok, err)
	}
	asked, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	// Of each deployment, all hosts have the image before the first one starts it.
	lines := strings.Split(strings.TrimSpace(string(asked)), "\n")
	if len(lines) != 3*(12+24)+2 {
		t.Fatalf("%d commands on hosts:\n%s", len(lines), asked)
	}
	for i := range 3 {
		first := lines[i*36:][:12]
		slices.Sort(first)
		if hosts := slices.Compact(first); len(hosts) != 12 || slices.ContainsFunc(hosts, func(l string) bool { return strings.Contains(l, "live") }) {
			t.Errorf("deployment %d begins with\n%s", i, strings.Join(hosts, "\n"))
		}
	}
}

// TestDeployUnits: systemd understands the units of the page.
func TestDeployUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("no systemd-analyze on this machine")
	}
	dir := t.TempDir()
	var files []string
	for _, b := range blocksOf(t, "deploy.md") {
		if b.language != "ini" {
			continue
		}
		name := filepath.Join(dir, "dogestry-clean.service")
		if strings.Contains(b.text, "[Timer]") {
			name = filepath.Join(dir, "dogestry-clean.timer")
		}
		write(t, name, strings.ReplaceAll(b.text, "/usr/bin/dogestry", "/bin/true"), 0o644)
		files = append(files, name)
	}
	if len(files) != 2 {
		t.Fatalf("units: %q", files)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", append([]string{"verify", "--man=no"}, files...)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "dogestry-clean") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func write(t *testing.T, name, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func removed(t *testing.T, e *enginetest.Engine, args ...string) {
	if _, err := e.Docker(context.WithoutCancel(t.Context()), nil, args...); err != nil {
		t.Log(err)
	}
}
