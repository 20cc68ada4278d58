//go:build unix

package cli

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
)

// startServe starts `dogestry serve` and returns where it listens.
func startServe(t *testing.T, remote string, flags ...string) (p *process, address string) {
	t.Helper()
	p = start(t, "unix:///nowhere.sock", append([]string{"serve", remote, "--listen", "127.0.0.1:0"}, flags...)...)
	at := regexp.MustCompile(`at http://(\S+)\n`)
	p.until("it says where it listens", func() bool { return at.MatchString(p.stdout.String()) })
	return p, at.FindStringSubmatch(p.stdout.String())[1]
}

// TestServe: it says where it listens, answers there, and ends well at a signal,
// after the requests that have begun.
func TestServe(t *testing.T) {
	e := enginetest.For(t)
	const ref = "serve/signal:1"
	if err := e.LoadImage(t.Context(), wordsImage(ref, []string{"serve-signal"})); err != nil {
		t.Fatal(err)
	}
	remote := filepath.Join(t.TempDir(), "remote")
	run(t, e.Host, "push", remote, ref)
	p, address := startServe(t, remote)
	p.until("it says how to pull", func() bool { return strings.Contains(p.stderr.String(), "docker pull "+address+"/REPOSITORY:TAG") })
	// A request of which the head has come, and whose answer is being read.
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if _, err := io.WriteString(connection, "GET /v2/serve/signal/manifests/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(connection)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
		t.Errorf("it answers %q, %v", answer, err)
	}
	p.end(syscall.SIGTERM, 0, "")

	p = start(t, "unix:///nowhere.sock", "serve", "--json", remote, "--listen", "127.0.0.1:0")
	p.until("it says where it listens", func() bool { return strings.HasSuffix(p.stdout.String(), "}\n") })
	var said struct{ Remote, Address string }
	if err := json.Unmarshal([]byte(p.stdout.String()), &said); err != nil || said.Remote != remote {
		t.Errorf("--json says %s", p.stdout.String())
	}
	res, err := http.Get("http://" + said.Address + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	p.end(syscall.SIGINT, 0, "")
}

// TestServePull: what one engine pushed to a directory, engines of all kinds pull
// through serve; it is the same image, and it is the same for skopeo.
func TestServePull(t *testing.T) {
	e := enginetest.For(t)
	const ref = "serve/pull:1"
	img := wordsImage(ref, []string{"serve-pull-base", "serve-pull-top"})
	if err := e.LoadImage(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	remote := filepath.Join(t.TempDir(), "remote")
	run(t, e.Host, "push", remote, ref)
	_, address := startServe(t, remote)
	served := address + "/" + ref
	pull := func(t *testing.T, e *enginetest.Engine) {
		if _, err := e.Docker(t.Context(), nil, "pull", served); err != nil {
			t.Fatal(err)
		}
		saved, err := e.Saved(t.Context(), served)
		if err == nil {
			err = saved.Check(img)
		}
		if err != nil {
			t.Error(err)
		}
	}
	enginetest.Each(t, pull)
	enginetest.EachContainerd(t, pull)
	enginetest.EachPodman(t, func(t *testing.T, e *enginetest.Engine) {
		podman(t, e, "pull", "--quiet", "--tls-verify=false", served)
		if id := podman(t, e, "inspect", "--format", "sha256:{{.Id}}", served); id != img.ID() {
			t.Errorf("podman has %s, want %s", id, img.ID())
		}
	})

	dir := filepath.Join(t.TempDir(), "dir")
	skopeo(t, "copy", "--quiet", "--src-tls-verify=false", "docker://"+served, "dir:"+dir)
	if out := skopeo(t, "list-tags", "--tls-verify=false", "docker://"+address+"/serve/pull"); !strings.Contains(out, `"1"`) {
		t.Errorf("skopeo lists %s", out)
	}
	digest := skopeo(t, "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+served)
	if manifest, err := os.ReadFile(filepath.Join(dir, "manifest.json")); err != nil || image.DigestOf(manifest).String() != digest {
		t.Errorf("skopeo says the digest is %s, and has copied another manifest: %v", digest, err)
	}
}

// TestServePushedBack: docker pulls a plain layer and pushes it back as a compressed
// one, by the same digest. It is copied as what it is, and stays one image.
func TestServePushedBack(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, e *enginetest.Engine) {
		img := wordsImage("serve/back:1", []string{"serve-back-base", "serve-back-" + filepath.Base(t.Name())})
		if err := e.LoadImage(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		remote := filepath.Join(dir, "remote")
		run(t, e.Host, "push", remote, "serve/back:1")
		if _, err := e.Docker(t.Context(), nil, "rmi", "serve/back:1"); err != nil {
			t.Fatal(err)
		}
		_, address := startServe(t, remote, "--writable")
		for _, args := range [][]string{
			{"pull", address + "/serve/back:1"}, {"tag", address + "/serve/back:1", address + "/serve/back:2"}, {"push", address + "/serve/back:2"},
		} {
			if _, err := e.Docker(t.Context(), nil, args...); err != nil {
				t.Fatal(err)
			}
		}
		run(t, e.Host, "copy", remote, filepath.Join(dir, "copied"), "--all")
		run(t, e.Host, "copy", "registry://"+address, filepath.Join(dir, "fetched"), "--all")
		for _, copied := range []string{"copied", "fetched"} {
			run(t, e.Host, "verify", filepath.Join(dir, copied))
			run(t, e.Host, "pull", filepath.Join(dir, copied), "serve/back:2")
			saved, err := e.Saved(t.Context(), "serve/back:2")
			if err == nil {
				err = saved.Check(img)
			}
			if err != nil {
				t.Errorf("%s: %v", copied, err)
			}
		}
	})
}

// TestServePush: what engines, Podman and skopeo push through serve, dogestry pulls, and
// it is the same image; what it pulled there is not moved again.
func TestServePush(t *testing.T) {
	to := enginetest.For(t)
	remote := filepath.Join(t.TempDir(), "remote")
	_, address := startServe(t, remote, "--writable")
	pulls := func(t *testing.T, ref string, img *enginetest.Image) {
		t.Helper()
		if _, err := to.Docker(t.Context(), nil, "rmi", "-f", ref); err != nil && !strings.Contains(err.Error(), "No such image") {
			t.Fatal(err)
		}
		run(t, to.Host, "pull", remote, ref)
		saved, err := to.Saved(t.Context(), ref)
		if err == nil {
			err = saved.Check(img)
		}
		if err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
	push := func(t *testing.T, e *enginetest.Engine) {
		ref := "serve/push:" + strings.ToLower(filepath.Base(t.Name()))
		img := wordsImage(address+"/"+ref, []string{"serve-push-base", ref})
		if err := e.LoadImage(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Docker(t.Context(), nil, "push", address+"/"+ref); err != nil {
			t.Fatal(err)
		}
		pulls(t, ref, img)
		// Pushed by dogestry, it is pulled from serve.
		if _, err := e.Docker(t.Context(), nil, "rmi", "-f", address+"/"+ref); err != nil {
			t.Fatal(err)
		}
		run(t, to.Host, "push", remote, ref, "--as", ref+"-again")
		if _, err := e.Docker(t.Context(), nil, "pull", address+"/"+ref+"-again"); err != nil {
			t.Error(err)
		}
	}
	enginetest.Each(t, push)
	enginetest.EachContainerd(t, push)
	enginetest.EachPodman(t, func(t *testing.T, e *enginetest.Engine) {
		const ref = "serve/push:podman"
		img := wordsImage(ref, []string{"serve-push-base", ref})
		if err := e.LoadImage(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		podman(t, e, "push", "--quiet", "--tls-verify=false", ref, address+"/"+ref)
		pulls(t, ref, img)
	})

	const ref = "serve/push:skopeo"
	img := wordsImage(ref, []string{"serve-push-base", ref})
	archive := filepath.Join(t.TempDir(), "archive.tar")
	if err := os.WriteFile(archive, img.ArchiveBytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	skopeo(t, "copy", "--quiet", "--dest-tls-verify=false", "docker-archive:"+archive, "docker://"+address+"/"+ref)
	pulls(t, ref, img)
	run(t, to.Host, "verify", remote)
	skopeo(t, "delete", "--tls-verify=false", "docker://"+address+"/"+ref)
	if out := run(t, to.Host, "list", remote); strings.Contains(out, "skopeo") {
		t.Errorf("after a deletion the remote lists\n%s", out)
	}
}

// podman runs the podman command on the store of an engine.
func podman(t *testing.T, e *enginetest.Engine, args ...string) string {
	t.Helper()
	return outputOf(t, "podman", append(e.PodmanArgs(), args...)...)
}

func skopeo(t *testing.T, args ...string) string {
	t.Helper()
	return outputOf(t, "skopeo", append([]string{"--insecure-policy"}, args...)...)
}

// outputOf runs a program that must succeed, and returns what it prints, without spaces around it.
func outputOf(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// TestServeMirror: an engine of which serve is the mirror takes docker.io's images
// from the remote.
func TestServeMirror(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts engines of its own")
	}
	e := enginetest.For(t)
	enginetest.NeedPrivate(t, e.Private())
	const ref = "serve-mirror:1" // docker.io/library/serve-mirror:1
	img := wordsImage(ref, []string{"serve-mirror"})
	if err := e.LoadImage(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	remote := filepath.Join(t.TempDir(), "remote")
	run(t, e.Host, "push", remote, ref)
	_, address := startServe(t, remote, "--mirror-of", "docker.io")
	for _, k := range enginetest.Kinds() {
		if k.Podman {
			continue
		}
		t.Run(k.Name, func(t *testing.T) {
			o := k.Options
			o.Args = append(o.Args, "--registry-mirror=http://"+address)
			mirrored := enginetest.StartFor(t, o)
			if _, err := mirrored.Docker(t.Context(), nil, "pull", ref); err != nil {
				t.Fatal(err)
			}
			saved, err := mirrored.Saved(t.Context(), ref)
			if err == nil {
				err = saved.Check(img)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}
