//go:build unix

package cli

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/dogestry/dogestry/internal/enginetest"
)

// Who may do what in these tests.
const (
	reader, readerPassword = "reader", "r3ad"
	writer, writerPassword = "writer", "wr1te"
	robotToken             = "t0ken-of-a-robot"
)

// loginFlags returns the flags of a registry with a reader, a writer and a robot.
func loginFlags(t *testing.T) []string {
	t.Helper()
	users := ""
	for name, password := range map[string]string{reader: readerPassword, writer: writerPassword} {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		users += name + ":" + string(hash) + "\n"
	}
	dir := t.TempDir()
	htpasswd, tokens := filepath.Join(dir, "users"), filepath.Join(dir, "tokens")
	sum := strings.Fields(outputOf(t, "sh", "-c", "printf %s "+robotToken+" | sha256sum"))[0] // as docs/serve-operations.md says
	for name, content := range map[string]string{htpasswd: users, tokens: "robot write " + sum + "\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"--htpasswd", htpasswd, "--write-users", writer, "--tokens", tokens}
}

// tlsFlags returns the flags of a registry with a certificate for this machine, and
// the folder with ca.crt that clients want.
func tlsFlags(t *testing.T) (flags []string, certs string) {
	t.Helper()
	certs = t.TempDir()
	cert, key := filepath.Join(certs, "ca.crt"), filepath.Join(t.TempDir(), "key.pem")
	outputOf(t, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
		"-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert)
	return []string{"--tls-cert", cert, "--tls-key", key}, certs
}

// serveFront is startServe for a registry that may be encrypted.
func serveFront(t *testing.T, remote string, flags ...string) (p *process, address string) {
	t.Helper()
	p = start(t, "unix:///nowhere.sock", append([]string{"serve", remote, "--listen", "127.0.0.1:0"}, flags...)...)
	at := regexp.MustCompile(`at https?://(\S+)\n`)
	p.until("it says where it listens", func() bool { return at.MatchString(p.stdout.String()) })
	return p, at.FindStringSubmatch(p.stdout.String())[1]
}

// TestServeLogin: docker logs in, by a password or a token, pulls, and pushes where it may.
func TestServeLogin(t *testing.T) {
	p, address := serveFront(t, filepath.Join(t.TempDir(), "remote"), append(loginFlags(t), "--writable")...)
	test := func(t *testing.T, e *enginetest.Engine) {
		config := t.TempDir()
		docker := func(args ...string) error {
			_, err := e.Docker(t.Context(), nil, append([]string{"--config", config}, args...)...)
			return err
		}
		must := func(args ...string) {
			t.Helper()
			if err := docker(args...); err != nil {
				t.Fatal(err)
			}
		}
		mustNot := func(why string, args ...string) {
			t.Helper()
			if err := docker(args...); err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("docker %s: %v, want %q", args[0], err, why)
			}
		}
		ref := address + "/" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")) + ":1"
		if err := e.LoadImage(t.Context(), wordsImage(ref, []string{"serve-login", ref})); err != nil {
			t.Fatal(err)
		}
		id, _, err := e.ImageID(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		mustNot("auth", "push", ref) // "no basic auth credentials", or another text with it
		mustNot("nauthorized", "login", "-u", writer, "-p", readerPassword, address)
		must("login", "-u", writer, "-p", writerPassword, address)
		must("push", ref)
		must("logout", address)
		must("rmi", ref)
		mustNot("auth", "pull", ref)
		must("login", "-u", reader, "-p", readerPassword, address)
		must("pull", ref)
		if got, _, err := e.ImageID(t.Context(), ref); err != nil || got != id {
			t.Errorf("pulled image %s, pushed %s, error %v", got, id, err)
		}
		must("tag", ref, ref+"-more")
		mustNot("you may read, and not write", "push", ref+"-more")
		must("login", "-u", "robot", "-p", robotToken, address)
		must("push", ref+"-more")
	}
	enginetest.Each(t, test)
	enginetest.EachContainerd(t, test)

	res, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	metrics, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`code="201"`, `code="401"`, `code="403"`, `dogestry_logins_total{result="token"}`, `route="uploads"`} {
		if !strings.Contains(string(metrics), want) {
			t.Errorf("no %s in\n%s", want, metrics)
		}
	}
	p.end(syscall.SIGTERM, 0, "")
	log := p.stderr.String()
	for _, secret := range []string{readerPassword, writerPassword, robotToken, "Basic "} {
		if strings.Contains(log, secret) {
			t.Errorf("%s is in the log", secret)
		}
	}
	if !strings.Contains(log, "user=robot") || !strings.Contains(log, "code=403") {
		t.Errorf("log: %s", log)
	}
}

// TestServeTLS: clients that know the authority copy over TLS, with a login; others do not.
func TestServeTLS(t *testing.T) {
	e := enginetest.For(t)
	const ref = "serve/tls:1"
	img := wordsImage(ref, []string{"serve-tls"})
	if err := e.LoadImage(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	remote := filepath.Join(t.TempDir(), "remote")
	run(t, e.Host, "push", remote, ref)
	encrypted, certs := tlsFlags(t)
	_, address := serveFront(t, remote, append(append(loginFlags(t), "--writable"), encrypted...)...)
	dir := filepath.Join(t.TempDir(), "dir")
	from := "docker://" + address + "/" + ref

	skopeo(t, "copy", "--quiet", "--src-cert-dir", certs, "--src-creds", reader+":"+readerPassword, from, "dir:"+dir)
	skopeo(t, "copy", "--quiet", "--dest-cert-dir", certs, "--dest-creds", writer+":"+writerPassword, "dir:"+dir, "docker://"+address+"/serve/copied:1")
	skopeo(t, "inspect", "--cert-dir", certs, "--creds", "robot:"+robotToken, "docker://"+address+"/serve/copied:1")
	run(t, e.Host, "inspect", remote, "serve/copied:1")
	for what, args := range map[string][]string{
		"of nobody":               {"inspect", "--cert-dir", certs, from},
		"of a wrong password":     {"inspect", "--cert-dir", certs, "--creds", reader + ":" + writerPassword, from},
		"of a stranger":           {"inspect", "--creds", reader + ":" + readerPassword, from},
		"that may not write":      {"copy", "--dest-cert-dir", certs, "--dest-creds", reader + ":" + readerPassword, "dir:" + dir, "docker://" + address + "/serve/refused:1"},
		"of a token that is none": {"inspect", "--cert-dir", certs, "--creds", "robot:another", from},
	} {
		if out, err := exec.CommandContext(t.Context(), "skopeo", append([]string{"--insecure-policy"}, args...)...).CombinedOutput(); err == nil {
			t.Errorf("skopeo %s: %s", what, out)
		}
	}
	enginetest.EachPodman(t, func(t *testing.T, e *enginetest.Engine) {
		auth := filepath.Join(t.TempDir(), "auth.json")
		podman(t, e, "login", "--authfile", auth, "--cert-dir", certs, "-u", reader, "-p", readerPassword, address)
		podman(t, e, "pull", "--quiet", "--authfile", auth, "--cert-dir", certs, address+"/"+ref)
		if id := podman(t, e, "inspect", "--format", "sha256:{{.Id}}", address+"/"+ref); id != img.ID() {
			t.Errorf("podman has %s, want %s", id, img.ID())
		}
	})
	ca, err := os.ReadFile(filepath.Join(certs, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	for path, want := range map[string]int{"/healthz": 200, "/v2/": 401, "/metrics": 200} {
		res, err := (&http.Client{Transport: transport}).Get("https://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}

// TestServeDamageIsCounted: who watches the figures learns of damage before somebody needs the image.
func TestServeDamageIsCounted(t *testing.T) {
	remote := filepath.Join(t.TempDir(), "remote")
	if err := os.CopyFS(remote, os.DirFS(filepath.Join("..", "..", "testdata", "golden", "2.0"))); err != nil {
		t.Fatal(err)
	}
	layers, err := filepath.Glob(filepath.Join(remote, "images", "*", "layer.tar.lz4"))
	if err != nil || len(layers) == 0 {
		t.Fatalf("%v, %v", layers, err)
	}
	content, err := os.ReadFile(layers[0])
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.Remove(layers[0]); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(layers[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
	p, address := serveFront(t, remote)
	get := func(path string) (string, error) {
		res, err := http.Get("http://" + address + path)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return string(body), err
	}
	_, _ = get("/v2/myapp/blobs/sha256:" + filepath.Base(filepath.Dir(layers[0])))
	metrics, err := get("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(metrics, "\ndogestry_damaged_reads_total 1\n") {
		t.Errorf("it is not counted:\n%s", metrics)
	}
	p.end(syscall.SIGTERM, 0, "")
	if log := p.stderr.String(); !strings.Contains(log, "level=ERROR") {
		t.Errorf("log: %s", log)
	}
}
