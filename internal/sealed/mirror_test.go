package sealed

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestMirror: what is there passes, and what is not is refused where a client names
// the registry that it means.
func TestMirror(t *testing.T) {
	s := httptest.NewServer(Mirror(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "there") {
			io.WriteString(w, "manifest") //nolint:errcheck
			return
		}
		http.Error(w, "MANIFEST_UNKNOWN", http.StatusNotFound)
	})))
	defer s.Close()
	defer s.Client().CloseIdleConnections()
	for path, want := range map[string]string{
		"GET /v2/library/there/manifests/1?ns=docker.io":               "200 OK manifest",
		"GET /v2/library/debian/manifests/bookworm":                    "404 Not Found MANIFEST_UNKNOWN\n",
		"GET /v2/library/debian/blobs/sha256:1?ns=docker.io":           "404 Not Found MANIFEST_UNKNOWN\n",
		"GET /v2/library/debian/manifests/bookworm?ns=docker.io":       "403 dogestry is sealed: docker.io/library/debian:bookworm is not in the remote. Have it there first: dogestry copy {\"errors\":",
		"HEAD /v2/library/debian/manifests/sha256:1?ns=docker.io":      "403 dogestry is sealed: docker.io/library/debian@sha256:1 is not in the remote. Have it there first: dogestry copy ",
		"GET /v2/a%0d%0aX:%20y/manifests/b?ns=docker.io%0d%0aX:%20y":   "403 dogestry is sealed: docker.io??X:?y/a??X:?y:b is not in the remote. ",
		"GET /v2/" + strings.Repeat("a", 500) + "/manifests/b?ns=d.io": "403 dogestry is sealed: d.io/aaa",
	} {
		method, where, _ := strings.Cut(path, " ")
		request, err := http.NewRequest(method, s.URL+where, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := s.Client().Do(request)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if got := answer.Status + " " + string(body); err != nil || !strings.HasPrefix(got, want) || answer.Header.Get("X") != "" {
			t.Errorf("%s: %s, %v", path, got, err)
		}
	}
}
