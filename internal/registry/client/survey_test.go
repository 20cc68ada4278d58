package client_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

// TestSurvey: who knows nothing of earlier pushes finds the layers of the tag that is
// about to be written, and of latest, whatever other tags there are, also in an index.
func TestSurvey(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	r := open(t, s.Host, nil)
	other := image2(t, "other")
	for i := range 20 {
		push(t, r, fmt.Sprintf("app:z%02d", i), other)
	}
	own, latest := image2(t, "own"), image2(t, "latest")
	push(t, r, "app:a", own)
	push(t, r, "app:b", latest)
	id, err := r.Resolve(t.Context(), remotetest.Ref(t, "app:b"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := r.In("app").Document(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	putManifest(t, s.Host, "app", "latest", fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[`+
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%d,"platform":{"os":"linux","architecture":"amd64"}}]}`, id, len(doc)))
	for name, img := range map[string]remotetest.Image{"own": own, "latest": latest, "last": other} {
		to := remote.TargetFor(open(t, s.Host, nil), remotetest.Ref(t, "app:a"))
		missing, _, err := to.Missing(t.Context(), remote.Closure{Layers: img.DiffIDs()})
		if err != nil || len(missing.Layers) > 0 {
			t.Errorf("%s: missing %v, %v", name, missing, err)
		}
	}
}

// TestSurveyEnds: of a list that does not end some pages are read.
func TestSurveyEnds(t *testing.T) {
	var pages atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !strings.HasSuffix(req.URL.Path, "/tags/list") || pages.Load() > 50 {
			http.NotFound(w, req)
			return
		}
		w.Header().Set("Link", fmt.Sprintf(`<%s?last=%d>; rel="next"`, req.URL.Path, pages.Add(1)))
		fmt.Fprint(w, `{"name":"app","tags":[]}`)
	}))
	defer server.Close()
	r := open(t, strings.TrimPrefix(server.URL, "http://")+"?plain-http=true", func(o *client.Options) { o.Writes = false })
	if _, _, err := r.In("app").Missing(t.Context(), remote.Closure{Layers: []image.Digest{image.DigestOf(nil)}}); err != nil {
		t.Error(err)
	}
	if n := pages.Load(); n == 0 || n > 10 {
		t.Errorf("%d pages are read", n)
	}
}
