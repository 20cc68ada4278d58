package page

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// attack is what somebody may write into a config to be more than a text on a page.
const attack = `</code><script>document.title="owned"</script><img src=x onerror=alert(1)>"'<style>*{display:none}</style>`

// step is a line of a Dockerfile; without a layer it is an empty one.
type step struct {
	by    string
	layer []byte
}

// built returns an image of these steps.
func built(t *testing.T, arch string, age time.Duration, steps ...step) remotetest.Image {
	t.Helper()
	created := time.Now().Add(-age).UTC()
	config := ocispec.Image{Created: &created, Platform: ocispec.Platform{OS: "linux", Architecture: arch}}
	config.RootFS.Type = "layers"
	var img remotetest.Image
	for _, s := range steps {
		config.History = append(config.History, ocispec.History{Created: &created, CreatedBy: s.by, EmptyLayer: s.layer == nil})
		if s.layer != nil {
			img.Layers = append(img.Layers, s.layer)
		}
	}
	doc, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	// In the way of the type, which wants another package's digests.
	var plain map[string]any
	if err := json.Unmarshal(doc, &plain); err != nil {
		t.Fatal(err)
	}
	plain["rootfs"] = map[string]any{"type": "layers", "diff_ids": append([]image.DiffID{}, img.DiffIDs()...)}
	if img.Config, err = json.Marshal(plain); err != nil {
		t.Fatal(err)
	}
	img.ID = image.DigestOf(img.Config)
	return img
}

// sample returns a remote as teams have them: a base, an application in some
// versions, an image for several platforms, and one that somebody evil has made.
func sample(t *testing.T) (*repo.Repo, storage.Store) {
	t.Helper()
	store := mem.New()
	r, err := repo.Open(t.Context(), store, repo.Options{Name: "s3://images/prod", Codec: codec.LZ4})
	if err != nil {
		t.Fatal(err)
	}
	push := func(ref string, img remotetest.Image) {
		t.Helper()
		if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, ref), img); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string, size int) []byte {
		return remotetest.FileLayer(t, name, string(remotetest.Noise(name, size)))
	}
	base := []step{
		{"/bin/sh -c #(nop) ADD file:8d2c3a1f90b2 in / ", file("base", 70_000)},
		{`/bin/sh -c #(nop)  CMD ["bash"]`, nil},
	}
	runtime := append(base[:2:2], step{"RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl tzdata && rm -rf /var/lib/apt/lists/*", file("runtime", 30_000)}, step{"ENV LANG=C.UTF-8", nil})
	push("debian:bookworm", built(t, "amd64", 40*24*time.Hour, base...))
	push("debian:bookworm-20260301", built(t, "amd64", 40*24*time.Hour, base...))
	for n := range 9 {
		age := time.Duration(9-n) * 26 * time.Hour
		push(fmt.Sprintf("shop/api:1.%d.0", n), built(t, "amd64", age, append(runtime[:len(runtime):len(runtime)],
			step{"COPY --chown=app:app ./build/ /srv/app/", file(fmt.Sprint("app", n), 4_000)}, step{`ENTRYPOINT ["/srv/app/server","--port=8080"]`, nil})...))
	}
	push("shop/worker:2026-11-25", built(t, "amd64", 20*time.Hour, append(runtime[:len(runtime):len(runtime)], step{"COPY worker /usr/local/bin/worker", file("worker", 9_000)})...))
	push("localhost:5000/team/myapp:V2", built(t, "arm64", 300*24*time.Hour, step{"COPY . /", file("myapp", 5_000)}))
	push("evil/image:1", built(t, attack, time.Hour, step{attack, file("evil", 100)}, step{attack, nil}))
	push("multi/tool:3", built(t, "amd64", time.Hour, step{"COPY tool /", file("tool-amd64", 10_000)}))
	index(t, r, "multi/tool:4", built(t, "amd64", time.Hour, step{"COPY tool /", file("tool-amd64", 10_000)}), built(t, "arm64", time.Hour, step{"COPY tool /", file("tool-arm64", 11_000)}))
	return r, store
}

// index pushes an image of several platforms, and names one more that is not there.
func index(t *testing.T, r *repo.Repo, ref string, images ...remotetest.Image) {
	t.Helper()
	type child struct {
		MediaType string            `json:"mediaType"`
		Digest    image.Digest      `json:"digest"`
		Size      int               `json:"size"`
		Platform  *ocispec.Platform `json:"platform"`
	}
	doc := struct {
		SchemaVersion int     `json:"schemaVersion"`
		MediaType     string  `json:"mediaType"`
		Manifests     []child `json:"manifests"`
	}{2, ocispec.MediaTypeImageIndex, nil}
	var held []image.Digest
	for i, img := range images {
		if err := remotetest.Put(t.Context(), r, img, img.Closure()); err != nil {
			t.Fatal(err)
		}
		manifest := img.Manifest()
		if err := r.PutDocument(t.Context(), manifest); err != nil {
			t.Fatal(err)
		}
		held = append(held, image.DigestOf(manifest))
		doc.Manifests = append(doc.Manifests, child{ocispec.MediaTypeImageManifest, held[i], len(manifest), &ocispec.Platform{OS: "linux", Architecture: []string{"amd64", "arm64"}[i]}})
	}
	doc.Manifests = append(doc.Manifests, child{ocispec.MediaTypeImageManifest, image.DigestOf([]byte("absent")), 6, &ocispec.Platform{OS: "linux", Architecture: "s390x"}})
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.PutDocument(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := r.Hold(t.Context(), image.DigestOf(b), held); err != nil {
		t.Fatal(err)
	}
	if err := r.Tag(t.Context(), remotetest.Ref(t, ref), image.DigestOf(b)); err != nil {
		t.Fatal(err)
	}
}

// open returns the page of a remote.
func open(from remote.Source) *Page {
	o := Options{Remote: "s3://images/prod", Source: from}
	if r, ok := from.(*repo.Repo); ok {
		o.ManifestOf = r.ManifestOf
	}
	return New(o)
}

// get asks a page for a path.
func get(t *testing.T, p http.Handler, path string) (code int, body string, header http.Header) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	r.Host = "registry.example:5000"
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	if w.Header().Get("Content-Security-Policy") == "" || strings.Contains(w.Body.String(), "<script") || strings.Contains(w.Body.String(), "onerror=alert(1)>") {
		t.Errorf("%s is not safe: %v\n%s", path, w.Header(), w.Body)
	}
	return w.Code, w.Body.String(), w.Header()
}
