//go:build unix

package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
)

// upstream is a stock registry with an image, behind a proxy that counts and breaks.
type upstream struct {
	server *registrytest.Server
	proxy  *registrytest.Proxy
	remote string // of the proxy
	digest image.Digest
	layer  image.Digest // its last one
	config image.Digest
}

func newUpstream(t *testing.T, e *enginetest.Engine, repository string, img *enginetest.Image) *upstream {
	t.Helper()
	if err := e.LoadImage(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	u := &upstream{server: registrytest.Start(t, registrytest.Options{})}
	u.proxy = registrytest.NewProxy(t, u.server)
	u.remote = "registry://" + u.proxy.Host
	run(t, e.Host, "push", "registry://"+u.server.Host, repository+":1")
	doc, err := httpGet(t.Context(), "http://"+u.server.Host+"/v2/"+repository+"/manifests/1", "")
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := image.ParseManifest(doc)
	if err != nil {
		t.Fatal(err)
	}
	u.digest, u.config = image.DigestOf(doc), manifest.Config.Digest
	u.layer = manifest.Layers[len(manifest.Layers)-1].Digest
	return u
}

// asked counts the requests with something in their method and path.
func (u *upstream) asked(what string) (n int) {
	for _, r := range u.proxy.Requests() {
		if strings.Contains(r, what) {
			n++
		}
	}
	return n
}

// TestServeRegistry serves a registry through a cache: docker and skopeo pull from it.
// Each layer comes once, however many ask; a tag is asked for each time; by its digest
// an image comes when the registry answers nobody.
func TestServeRegistry(t *testing.T) {
	e := enginetest.For(t)
	const repository = "serve/proxy"
	img := wordsImage(repository+":1", []string{"serve-proxy-base", "serve-proxy-top"})
	u := newUpstream(t, e, repository, img)
	cache := filepath.Join(t.TempDir(), "cache")
	p, address := startServe(t, u.remote, "--cache", cache)
	blob := "http://" + address + "/v2/" + repository + "/blobs/" + u.layer.String()
	u.proxy.Rule(nil)
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			got, err := httpGet(t.Context(), blob, "")
			if err == nil && image.DigestOf(got) != u.layer {
				err = fmt.Errorf("%d bytes came, and they are others", len(got))
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	pull := func(t *testing.T, e *enginetest.Engine) {
		if _, err := e.Docker(t.Context(), nil, "pull", address+"/"+repository+":1"); err != nil {
			t.Fatal(err)
		}
		saved, err := e.Saved(t.Context(), address+"/"+repository+":1")
		if err == nil {
			err = saved.Check(img)
		}
		if err != nil {
			t.Error(err)
		}
	}
	enginetest.Each(t, pull)
	enginetest.EachContainerd(t, func(t *testing.T, e *enginetest.Engine) { // which keeps layers compressed, as they came
		if _, err := e.Docker(t.Context(), nil, "pull", address+"/"+repository+":1"); err != nil {
			t.Fatal(err)
		}
		if id, ok, err := e.ImageID(t.Context(), address+"/"+repository+":1"); !ok || err != nil || id != u.digest.String() {
			t.Errorf("it has %s, %v, want %s", id, err, u.digest)
		}
	})
	if n := u.asked("GET /v2/" + repository + "/blobs/" + u.layer.String()); n != 1 {
		t.Errorf("the registry sends the layer %d times, not once", n)
	}
	if part, err := httpGet(t.Context(), blob, "bytes=10-19"); err != nil || len(part) != 10 {
		t.Errorf("a part has %d bytes, %v", len(part), err)
	}

	u.proxy.Rule(nil)
	for range 2 {
		if _, err := httpGet(t.Context(), "http://"+address+"/v2/"+repository+"/manifests/1", ""); err != nil {
			t.Error(err)
		}
	}
	if n := u.asked("/manifests/1"); n != 2 || u.asked("GET ") != 0 {
		t.Errorf("for a tag, twice, the registry is asked %q", u.proxy.Requests())
	}

	whole := func() {
		skopeo(t, "copy", "--quiet", "--src-tls-verify=false", "docker://"+address+"/"+repository+"@"+u.digest.String(), "dir:"+filepath.Join(t.TempDir(), "dir"))
	}
	whole() // engines that have a layer did not ask for it

	// Nobody answers.
	u.proxy.Rule(func(*http.Request) registrytest.Fault { return registrytest.Fault{Status: http.StatusForbidden} })
	whole()
	if asked := u.proxy.Requests(); len(asked) != 0 {
		t.Errorf("for what is in the cache the registry is asked %q", asked)
	}
	if _, err := httpGet(t.Context(), "http://"+address+"/v2/"+repository+"/manifests/1", ""); err == nil {
		t.Error("a tag is answered that nobody was asked for")
	}
	p.end(syscall.SIGTERM, 0, "")
}

// TestServeRegistryNames serves a registry without a cache, in its own place as a
// mirror: by names with and without it, with its lists and what refers to an image.
func TestServeRegistryNames(t *testing.T) {
	e := enginetest.For(t)
	const repository = "serve/names"
	u := newUpstream(t, e, repository, wordsImage(repository+":1", []string{"serve-names"}))
	signature := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/x.test",`+
		`"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":%d},"layers":[],"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":1}}`,
		u.config, 1, u.digest)
	refers := image.DigestOf([]byte(signature))
	list := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d}]}`, refers, len(signature))
	at := "http://" + u.server.Host + "/v2/" + repository + "/manifests/"
	putManifest(t, at+refers.String(), signature) // first: the list names it
	putManifest(t, at+strings.Replace(u.digest.String(), ":", "-", 1), list)
	_, address := startServe(t, u.remote, "--mirror-of", u.proxy.Host)
	base := "http://" + address + "/v2/"
	for _, name := range []string{repository + "/manifests/1", repository + "/manifests/1?ns=" + u.proxy.Host, repository + "/manifests/" + u.digest.String()} {
		got, err := httpGet(t.Context(), base+name, "")
		if err != nil || image.DigestOf(got) != u.digest {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	u.proxy.Rule(nil)
	for name, status := range map[string]string{
		repository + "/manifests/1?ns=docker.io":                "404",
		repository + "/manifests/2":                             "404",
		"serve/nothing/manifests/1":                             "404",
		"serve/nothing/tags/list":                               "404",
		repository + "/manifests/" + u.config.String():          "404",
		repository + "/blobs/sha256:" + strings.Repeat("1", 64): "404",
	} {
		if _, err := httpGet(t.Context(), base+name, ""); err == nil || !strings.Contains(err.Error(), status) {
			t.Errorf("%s: %v, want %s", name, err, status)
		}
	}
	if n := u.asked("_catalog"); n != 0 {
		t.Errorf("to answer that something is not there, the registry is asked %q", u.proxy.Requests())
	}
	lists := func(path, field, want string) {
		t.Helper()
		var said map[string]json.RawMessage
		got, err := httpGet(t.Context(), base+path, "")
		if err == nil {
			err = json.Unmarshal(got, &said)
		}
		if err != nil || string(said[field]) != want {
			t.Errorf("%s: %s, %v, want %s", path, got, err, want)
		}
	}
	lists(repository+"/tags/list", "tags", `["1"]`)
	u.proxy.Rule(nil)
	lists("_catalog", "repositories", `["`+repository+`"]`)
	if n := u.asked("/tags/list"); n != 0 {
		t.Error("a list of repositories asks for their tags")
	}
	if got, err := httpGet(t.Context(), base+repository+"/referrers/"+u.digest.String(), ""); err != nil || !strings.Contains(string(got), refers.String()) {
		t.Errorf("what refers to the image: %s, %v", got, err)
	}
	if got, err := httpGet(t.Context(), "http://"+address+"/", ""); err != nil || !strings.Contains(string(got), repository) {
		t.Errorf("the page says %s, %v", got, err)
	}
}

// TestServeRegistryDamaged: a blob that the registry has damaged never arrives whole, and
// is not kept.
func TestServeRegistryDamaged(t *testing.T) {
	e := enginetest.For(t)
	const repository = "serve/damaged"
	u := newUpstream(t, e, repository, wordsImage(repository+":1", []string{"serve-damaged"}))
	at := u.server.Blob(u.layer)
	content, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	damaged := slices.Clone(content)
	damaged[len(damaged)/2] ^= 1
	for _, flags := range [][]string{nil, {"--sealed", "--cache", filepath.Join(t.TempDir(), "cache")}} {
		if err := os.WriteFile(at, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		_, address := startServe(t, u.remote, flags...)
		blob := "http://" + address + "/v2/" + repository + "/blobs/" + u.layer.String()
		for range 2 {
			if got, err := httpGet(t.Context(), blob, ""); err == nil {
				t.Errorf("%v: a damaged blob comes whole, with %d bytes", flags, len(got))
			}
		}
		if err := os.WriteFile(at, content, 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := httpGet(t.Context(), blob, ""); err != nil || image.DigestOf(got) != u.layer {
			t.Errorf("%v: repaired, it does not come: %v", flags, err)
		}
	}
}

// putManifest stores a document in a registry.
func putManifest(t *testing.T, url, doc string) {
	t.Helper()
	var kind struct{ MediaType string }
	if err := json.Unmarshal([]byte(doc), &kind); err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind.MediaType)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", url, answer.Status)
	}
}
