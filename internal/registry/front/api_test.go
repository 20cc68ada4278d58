package front

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestAPI: what stands before a registry stands before an API, too: who may only read
// changes nothing there, bodies are bounded, and browsers of other pages write nothing.
func TestAPI(t *testing.T) {
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "api %s %d %v", r.URL.Path, n, err)
	})
	s := start(t, Options{API: api, Tokens: write(t, "", "robot write "+sumOf("robot-token")+"\nlooker read "+sumOf("looker-token")+"\n")}, http.NotFound)
	s.metrics.Also(func(w io.Writer) { fmt.Fprintln(w, "more 1") })
	ask := func(method, path, token string, body io.Reader, header ...string) answer {
		r := s.request(t, method, path, body)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		return s.do(t, r)
	}
	for _, c := range []struct {
		method, token string
		code          int
	}{
		{"POST", "", 401},
		{"POST", "wrong", 401},
		{"POST", "looker-token", 403},
		{"POST", "robot-token", 200},
		{"GET", "", 401},
		{"GET", "looker-token", 200},
		{"GET", "robot-token", 200},
	} {
		got := ask(c.method, "/v1/x", c.token, nil)
		if got.code != c.code || (c.code == 200) != strings.HasPrefix(got.body, "api /v1/x") || got.header.Get("Docker-Distribution-Api-Version") != "" {
			t.Errorf("%s with %q: %d %s", c.method, c.token, got.code, got.body)
		}
	}
	if got := ask("POST", "/v1/x", "robot-token", strings.NewReader(strings.Repeat("x", maxOther+1))); got.code != http.StatusRequestEntityTooLarge {
		t.Errorf("a large body: %d %s", got.code, got.body)
	}
	if got := ask("POST", "/v1/x", "robot-token", nil, "Origin", "http://elsewhere"); got.code != http.StatusForbidden {
		t.Errorf("another page's: %d %s", got.code, got.body)
	}
	if got := ask("GET", "/v2/", "robot-token", nil); got.code != http.StatusNotFound {
		t.Errorf("a registry: %d %s", got.code, got.body)
	}
	if got := s.get(t, "/metrics"); !strings.Contains(got.body, `route="api"`) || !strings.HasSuffix(got.body, "\nmore 1\n") {
		t.Errorf("metrics: %s", got.body)
	}

	without := start(t, Options{}, http.NotFound)
	if got := without.get(t, "/v1/x"); got.code != http.StatusNotFound {
		t.Errorf("where there is no API: %d %s", got.code, got.body)
	}
}
