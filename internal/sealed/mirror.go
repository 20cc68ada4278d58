package sealed

import (
	"net/http"
	"strings"
)

// Mirror is registry in the place of others, for engines that would go on to those
// for an image that it does not have, and tell of its own answer alone: containerd
// names the registry that it means (`ns`), takes a 404 for the last word, and shows
// nothing else. So that is a refusal, which names the mode. All else passes.
func Mirror(registry http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, reference, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
		if ns := r.URL.Query().Get("ns"); ok && ns != "" {
			separator := ":"
			if strings.Contains(reference, ":") { // a digest
				separator = "@"
			}
			m := &mirrored{ResponseWriter: w, request: r, image: ns + "/" + name + separator + reference}
			registry.ServeHTTP(m, r)
			return
		}
		registry.ServeHTTP(w, r)
	})
}

// mirrored is the answer about a manifest.
type mirrored struct {
	http.ResponseWriter
	request *http.Request
	image   string
	refused bool
}

// WriteHeader implements http.ResponseWriter.
func (m *mirrored) WriteHeader(status int) {
	if status != http.StatusNotFound || m.refused {
		m.ResponseWriter.WriteHeader(status)
		return
	}
	m.refused = true
	m.Header().Del("Content-Length")
	refuse(m.ResponseWriter, m.request, Refused(hostOf(m.image)+" is not in the remote. Have it there first: dogestry copy"))
}

// Write drops what the answer would have said.
func (m *mirrored) Write(p []byte) (int, error) {
	if m.refused {
		return len(p), nil
	}
	return m.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (m *mirrored) Unwrap() http.ResponseWriter { return m.ResponseWriter }
