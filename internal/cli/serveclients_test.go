//go:build unix

package cli

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
)

// tool runs a program of .cache/bin that must succeed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../.cache/bin", name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("script/bootstrap test installs %s: %v", name, err)
	}
	return outputOf(t, path, args...)
}

// TestServeCrane: crane lists, pulls, pushes, copies and deletes through serve.
func TestServeCrane(t *testing.T) {
	e, img, remote := servedImage(t, "serve/crane:1")
	_, address := startServe(t, remote, "--writable")
	crane := func(args ...string) string { t.Helper(); return tool(t, "crane", append(args, "--insecure")...) }
	at := address + "/serve/crane"

	if got := crane("catalog", address); got != "serve/crane" {
		t.Errorf("the catalog is %q", got)
	}
	if config := crane("config", at+":1"); image.DigestOf([]byte(config)).String() != img.ID() {
		t.Errorf("the config is %s, want %s", config, img.ID())
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "archive.tar")
	crane("pull", at+":1", archive)
	crane("push", archive, at+":2")
	crane("validate", "--remote", at+":2")
	crane("copy", at+":1", address+"/other/crane:3")
	if got := crane("ls", at); got != "1\n2" {
		t.Errorf("the tags are %q", got)
	}
	// crane compresses the layers of an archive that had none of their own.
	for _, ref := range []string{"serve/crane:2", "other/crane:3"} {
		if _, err := e.Docker(t.Context(), nil, "rmi", "-f", ref); err != nil && !strings.Contains(err.Error(), "No such image") {
			t.Fatal(err)
		}
		run(t, e.Host, "pull", remote, ref)
		saved, err := e.Saved(t.Context(), ref)
		if err == nil {
			err = saved.Check(img)
		}
		if err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
	crane("delete", address+"/other/crane@"+crane("digest", address+"/other/crane:3"))
	if out := run(t, e.Host, "list", remote); strings.Contains(out, "other/crane") {
		t.Errorf("after a deletion the remote lists\n%s", out)
	}
	run(t, e.Host, "verify", remote)
}

// TestServeRegctl: regctl copies, attaches what refers to an image, and finds it again,
// also where the remote has been copied to.
func TestServeRegctl(t *testing.T) {
	e, img, remote := servedImage(t, "serve/regctl:1")
	_, address := startServe(t, remote, "--writable")
	t.Setenv("REGCTL_CONFIG", filepath.Join(t.TempDir(), "config.json"))
	tool(t, "regctl", "registry", "set", "--tls", "disabled", "--skip-check", address)
	regctl := func(args ...string) string { t.Helper(); return tool(t, "regctl", args...) }
	at := address + "/serve/regctl"

	dir := t.TempDir()
	regctl("image", "copy", at+":1", "ocidir://"+filepath.Join(dir, "layout")+":1")
	regctl("image", "copy", "ocidir://"+filepath.Join(dir, "layout")+":1", at+":2")
	if got := regctl("tag", "ls", at); got != "1\n2" {
		t.Errorf("the tags are %q", got)
	}
	note := filepath.Join(dir, "sbom.json")
	if err := os.WriteFile(note, []byte(`{"sbom":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	regctl("artifact", "put", "--artifact-type", "application/vnd.test.sbom", "--subject", at+":2", "--file", note, "--file-media-type", "application/json")

	copied := filepath.Join(dir, "copied")
	run(t, e.Host, "copy", remote, copied, "--all")
	run(t, e.Host, "gc", copied, "--grace", "0s")
	run(t, e.Host, "verify", copied)
	_, address = startServe(t, copied)
	tool(t, "regctl", "registry", "set", "--tls", "disabled", "--skip-check", address)
	at = address + "/serve/regctl"
	if got := regctl("artifact", "get", "--subject", at+":2"); got != `{"sbom":true}` {
		t.Errorf("what refers to the image is %q", got)
	}
	if config := regctl("image", "config", "--format", "raw-body", at+":2"); image.DigestOf([]byte(config)).String() != img.ID() {
		t.Errorf("the config is %s, want %s", config, img.ID())
	}
}

// TestServeContainerd: a containerd whose hosts.toml names serve as docker.io's and
// another registry's mirror takes both from the remote.
func TestServeContainerd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("containerd runs as root only")
	}
	e, _, remote := servedImage(t, "serve-containerd:1")
	run(t, e.Host, "tag", remote, "serve-containerd:1", "quay.test/org/tool:1")
	_, address := startServe(t, remote, "--mirror-of", "docker.io", "--mirror-of", "quay.test")
	ctr := startContainerd(t)
	hosts := t.TempDir()
	for _, of := range []string{"docker.io", "quay.test"} {
		if err := os.MkdirAll(filepath.Join(hosts, of), 0o755); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("server = \"http://127.0.0.1:1\"\n[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", address)
		if err := os.WriteFile(filepath.Join(hosts, of, "hosts.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for ref, path := range map[string]string{"docker.io/library/serve-containerd:1": "serve-containerd", "quay.test/org/tool:1": "quay.test/org/tool"} {
		ctr("images", "pull", "--snapshotter", "native", "--hosts-dir", hosts, ref)
		if out := ctr("images", "check", "--snapshotter", "native", "name=="+ref); !strings.Contains(out, "complete") || !strings.Contains(out, "true") {
			t.Errorf("containerd says of %s\n%s", ref, out)
		}
		res, err := http.Get("http://" + address + "/v2/" + path + "/manifests/1")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		digest := res.Header.Get("Docker-Content-Digest")
		if out := ctr("images", "ls", "name=="+ref); digest == "" || !strings.Contains(out, digest) {
			t.Errorf("containerd has not %q\n%s", digest, out)
		}
	}
}

// servedImage has pushed an image of two layers to a directory.
func servedImage(t *testing.T, ref string) (*enginetest.Engine, *enginetest.Image, string) {
	t.Helper()
	e := enginetest.For(t)
	img := wordsImage(ref, []string{"serve-clients-base", ref})
	if err := e.LoadImage(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	remote := filepath.Join(t.TempDir(), "remote")
	run(t, e.Host, "push", remote, ref)
	return e, img, remote
}

// startContainerd runs a containerd of its own until the test ends, and returns
// its client.
func startContainerd(t *testing.T) (ctr func(args ...string) string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctd") // a short name: it has a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = %q\n", filepath.Join(dir, "root"), filepath.Join(dir, "state"), socket)
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("containerd", "--config", file)
	log := new(output)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("script/bootstrap test installs containerd: %v", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed, or its log says why it ended
		close(exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		os.RemoveAll(dir)
	})
	for deadline := time.Now().Add(time.Minute); ; {
		if exec.Command("ctr", "--address", socket, "version").Run() == nil {
			break
		}
		select {
		case <-exited:
			t.Fatalf("containerd has ended:\n%s", log)
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("containerd does not answer:\n%s", log)
		}
	}
	return func(args ...string) string {
		t.Helper()
		return outputOf(t, "ctr", append([]string{"--address", socket}, args...)...)
	}
}
