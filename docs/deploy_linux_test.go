// Package docs_test runs what the pages tell people to type.
package docs_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// sshStandIn is the ssh of the test: hosts with even numbers are one engine, those with odd ones another, and others are not there.
const sshStandIn = `#!/bin/bash
set -eu
while [[ $1 = -* ]]; do
	case $1 in -l | -p | -o) shift ;; esac
	shift
done
if [[ ! $1 =~ ^web([0-9]+)\.example$ ]]; then echo "ssh: no route to $1" >&2; exit 255; fi
engine=ENGINE_$((BASH_REMATCH[1] % 2))
shift
exec env -u REMOTE DOCKER_HOST="${!engine}" sh -c "$*"
`

// dockerStandIn is docker, notes what hosts are told, and lets the two builds of the page differ, as those of two days do.
const dockerStandIn = `#!/bin/bash
set -eu
case $1 in
--host) echo "$2 $3" >>"$HOSTS_LOG" ;;
build) set -- build --build-arg DOGESTRY_TEST=$RANDOM$RANDOM "${@:2}" ;;
esac
exec "$REAL_DOCKER" "$@"
`

// TestDeploy runs the walk-through of deploy.md, block by block in one shell, with a bucket of a real S3 server; then it looks where that has
// led. Behind the twelve hosts are two engines, as root, else one: to be the same engine is no failure of a host's.
func TestDeploy(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: runs more than a hundred commands")
	}
	e := enginetest.For(t)
	hello, err := e.Load(t.Context(), enginetest.Hello)
	if err != nil {
		t.Fatal(err)
	}
	other := e
	if os.Getuid() == 0 {
		other = enginetest.StartFor(t, enginetest.Options{})
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
	write(t, filepath.Join(bin, "docker"), dockerStandIn, 0o755)
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Fatal("no docker on this machine: run script/bootstrap test")
	}

	var script strings.Builder
	script.WriteString("set -euo pipefail\n")
	for _, b := range blocksOf(t, "deploy.md") {
		if b.language == "sh" {
			script.WriteString(strings.ReplaceAll(b.text, "s3://acme-images/prod", remote))
		}
	}
	// A host that is not there fails a deployment before anything is live, or restarted.
	script.WriteString("cp \"$HOSTS_LOG\" before\necho ssh://deploy@gone.example >>hosts\nif ./deploy 20131211; then exit 1; fi\ncmp before \"$HOSTS_LOG\"\n")
	for _, engine := range []*enginetest.Engine{e, other} {
		script.WriteString("docker -H " + engine.Host + " inspect --format '{{.Config.Image}} {{.State.ExitCode}} of " + engine.Host + "' myapp\n")
		t.Cleanup(func() {
			removed(t, engine, "rm", "--force", "myapp")
			removed(t, engine, "rmi", "--force", "myapp:live", "myapp:20131210", "myapp:20131211")
		})
	}
	log := filepath.Join(dir, "hosts.log")
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script.String())
	cmd.Dir = dir
	cmd.Env = append(s3test.Clean(os.Environ()), server.Environment()...)
	cmd.Env = append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+dir, "TMPDIR="+t.TempDir(), "XDG_CACHE_HOME="+t.TempDir(), "HOSTS_LOG="+log, "REAL_DOCKER="+docker,
		"ENGINE_0="+e.Host, "ENGINE_1="+other.Host, "DOCKER_HOST="+e.Host, "DOCKER_BUILDKIT=0", "AWS_ENDPOINT_URL_S3="+server.Endpoint)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	for _, want := range []string{"ssh: no route to gone.example", "\nmyapp:live 0 of " + e.Host + "\n", "\nmyapp:live 0 of " + other.Host + "\n"} {
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
	for _, engine := range []*enginetest.Engine{e, other} {
		if id, ok, err := engine.ImageID(t.Context(), "myapp:live"); err != nil || !ok || !strings.HasSuffix(id, tag("live")) {
			t.Errorf("%s has %s, %v, %v", engine.Host, id, ok, err)
		}
	}
	told, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	restart := func(n int) {
		fmt.Fprintf(&want, "ssh://deploy@web%[1]d.example rm\nssh://deploy@web%[1]d.example run\n", n)
	}
	for range 3 {
		for i := range 12 {
			restart(i + 1)
		}
	}
	restart(12)
	if string(told) != want.String() {
		t.Errorf("hosts are told\n%s", told)
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
