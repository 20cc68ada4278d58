package dist_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/dogestry/dogestry/internal/enginetest"
)

// action is what is read here of a composite action.
type action struct {
	Inputs map[string]struct {
		Default string
	}
	Runs struct {
		Using string
		Steps []struct {
			Name, If, Shell, Run string
			Env                  map[string]string
		}
	}
}

// TestAction runs the steps of the action as a runner does: what the workflow gives as inputs reaches them by the
// environment alone, where a shell takes it for words and not for commands.
func TestAction(t *testing.T) {
	var a action
	parse(t, "github/action.yml", &a)
	if a.Runs.Using != "composite" || len(a.Runs.Steps) != 2 {
		t.Fatalf("%+v", a.Runs)
	}
	remote, image := t.TempDir(), "dist-action:1"
	e := engineWith(t, image)
	server, sum := downloads(t, "linux_amd64")
	inputs := map[string]string{"version": "1.0.0", "sha256": sum, "url": server, "remote": remote, "images": image + "\n", "flags": "--if-absent --quiet"}

	run := func(step int, runner string, change map[string]string) (string, error) {
		s := a.Runs.Steps[step]
		if s.Shell != "bash" || strings.Contains(s.Run, "${{") {
			t.Fatalf("%s: its shell is %q, its text\n%s", s.Name, s.Shell, s.Run)
		}
		env := []string{"RUNNER_OS=Linux", "RUNNER_ARCH=X64", "RUNNER_TEMP=" + runner, "GITHUB_PATH=" + filepath.Join(runner, "path")}
		for name, expression := range s.Env {
			input, ok := strings.CutPrefix(expression, "${{ inputs.")
			input, closed := strings.CutSuffix(input, " }}")
			if _, known := a.Inputs[input]; !ok || !closed || !known {
				t.Fatalf("%s: %s is %s", s.Name, name, expression)
			}
			value, changed := change[input]
			if !changed {
				value = inputs[input]
			}
			env = append(env, name+"="+value)
		}
		if path, err := os.ReadFile(filepath.Join(runner, "path")); err == nil {
			env = append(env, "PATH="+strings.TrimSpace(string(path))+":"+os.Getenv("PATH"))
		}
		return shell(t, e, s.Run, env...)
	}

	runner := t.TempDir()
	if out, err := run(0, runner, map[string]string{"sha256": strings.Repeat("0", 64)}); err == nil || !strings.Contains(out, "FAILED") {
		t.Errorf("another checksum: %v\n%s", err, out)
	}
	if path, err := os.ReadFile(filepath.Join(runner, "path")); err == nil {
		t.Fatalf("what has another checksum is installed in %s", path)
	}
	if out, err := run(0, runner, map[string]string{"version": "2.0.0"}); err == nil || !strings.Contains(out, "404") {
		t.Errorf("another version: %v\n%s", err, out)
	}
	if out, err := run(0, runner, nil); err != nil || !strings.Contains(out, "dogestry dev (") {
		t.Fatalf("install: %v\n%s", err, out)
	}
	if out, err := run(1, runner, map[string]string{"images": "$(touch " + remote + "/owned) ;"}); err == nil {
		t.Errorf("images that are commands:\n%s", out)
	}
	if entries, err := os.ReadDir(remote); err != nil || len(entries) > 0 {
		t.Errorf("the remote has %v, %v", entries, err)
	}
	if out, err := run(1, runner, nil); err != nil {
		t.Fatalf("push: %v\n%s", err, out)
	}
	tagIn(t, remote, "dist-action/1")
}

// TestGitLab runs the job's steps as a runner does: all of before_script and script in one shell.
func TestGitLab(t *testing.T) {
	var jobs map[string]struct {
		Variables map[string]string
		Before    []string `yaml:"before_script"`
		Script    []string
		Tokens    map[string]any `yaml:"id_tokens"`
	}
	parse(t, "gitlab/example.gitlab-ci.yml", &jobs)
	job := jobs["ship"]
	remote, image := t.TempDir(), "dist-gitlab:1"
	e := engineWith(t, image)
	server, sum := downloads(t, "linux_amd64")
	if len(job.Script) != 2 || !strings.HasPrefix(job.Script[0], "docker build ") || job.Tokens["AWS_TOKEN"] == nil {
		t.Fatalf("%+v", job)
	}
	script := strings.Join(append(job.Before, "docker image inspect "+image+" >/dev/null", strings.ReplaceAll(job.Script[1], "myapp:", "dist-gitlab:")), "\n")
	script += "\nstat -c %a \"$AWS_WEB_IDENTITY_TOKEN_FILE\"; wc -c <\"$AWS_WEB_IDENTITY_TOKEN_FILE\""
	run := func(change ...string) (string, error) {
		env := []string{"TMPDIR=" + t.TempDir(), "CI_COMMIT_TAG=1", "CI_JOB_ID=7", "AWS_TOKEN=a-token-of-tests"}
		for name, value := range job.Variables {
			env = append(env, name+"="+value)
		}
		env = append(env, "DOGESTRY_URL="+server, "DOGESTRY_SHA256="+sum, "REMOTE="+remote)
		return shell(t, e, script, append(env, change...)...)
	}
	if out, err := run("DOGESTRY_SHA256=" + strings.Repeat("0", 64)); err == nil || !strings.Contains(out, "FAILED") || strings.Contains(out, "dogestry dev") {
		t.Errorf("another checksum: %v\n%s", err, out)
	}
	out, err := run()
	if err != nil || !strings.HasSuffix(out, "600\n16\n") || strings.Contains(out, "a-token-of-tests") {
		t.Fatalf("%v\n%s", err, out)
	}
	tagIn(t, remote, "dist-gitlab/1")
}

// TestWorkflow: the example gives the action what it takes, and asks for no more rights than it needs.
func TestWorkflow(t *testing.T) {
	var a action
	parse(t, "github/action.yml", &a)
	var workflow struct {
		Permissions map[string]string
		Jobs        map[string]struct {
			Steps []struct {
				Uses, Run string
				With      map[string]string
			}
		}
	}
	parse(t, "github/example.yml", &workflow)
	if len(workflow.Permissions) != 2 || workflow.Permissions["contents"] != "read" || workflow.Permissions["id-token"] != "write" {
		t.Errorf("permissions: %v", workflow.Permissions)
	}
	used := false
	for _, s := range workflow.Jobs["ship"].Steps {
		if strings.Contains(s.Run, "${{") {
			t.Errorf("an expression in a shell's text: %s", s.Run)
		}
		if strings.HasPrefix(s.Uses, "dogestry/dogestry/dist/github@") {
			used = true
			for input := range s.With {
				if _, ok := a.Inputs[input]; !ok {
					t.Errorf("the action has no input %s", input)
				}
			}
		}
	}
	if !used {
		t.Error("the example does not use the action")
	}
}

func parse(t *testing.T, name string, into any) {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// engineWith is an engine that has an image, until the test ends.
func engineWith(t *testing.T, image string) *enginetest.Engine {
	t.Helper()
	e := enginetest.For(t)
	if err := e.LoadImage(t.Context(), enginetest.NewImage().Tag(image).Layer(enginetest.File("some", 0o644, image))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, e, "rmi", "-f", image) })
	return e
}

// downloads serves the archive of a release 1.0.0, in which this test binary is the program.
func downloads(t *testing.T, platform string) (url, sum string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\n" + asProgram + "=1 exec '" + self + "' \"$@\"\n"
	var archive bytes.Buffer
	packed := gzip.NewWriter(&archive)
	w := tar.NewWriter(packed)
	name := "dogestry_1.0.0_" + platform
	for _, h := range []tar.Header{{Name: name + "/dogestry", Mode: 0o755, Size: int64(len(script))}} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(script)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := packed.Close(); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /1.0.0/"+name+".tar.gz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(archive.Bytes()) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	digest := sha256.Sum256(archive.Bytes())
	return server.URL, hex.EncodeToString(digest[:])
}

// shell has shellcheck look at a script for bash, then runs it.
func shell(t *testing.T, e *enginetest.Engine, script string, env ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Fatal("no shellcheck on this machine: run script/bootstrap test")
	}
	check := exec.CommandContext(t.Context(), "shellcheck", "--shell=bash", "--severity=warning", "-")
	check.Stdin = strings.NewReader(script)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "DOCKER_HOST=" + e.Host, "no_proxy=127.0.0.1"}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func tagIn(t *testing.T, remote, name string) {
	t.Helper()
	if content, err := os.ReadFile(filepath.Join(remote, "repositories", filepath.FromSlash(name))); err != nil || len(content) < 64 {
		t.Errorf("the tag is %q, %v", content, err)
	}
}
