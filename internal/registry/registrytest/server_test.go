package registrytest

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStart: each registry that starts is one of its own, and answers.
func TestStart(t *testing.T) {
	at := map[string]bool{}
	for range 3 {
		s := Start(t, Options{})
		resp, err := http.Get("http://" + s.Host + "/v2/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Docker-Distribution-Api-Version"); got != "registry/2.0" || at[s.Host] {
			t.Errorf("at %s answers %q", s.Host, got)
		}
		at[s.Host] = true
	}
}

// TestStartSaysWhy: a registry that ends at its start is not waited for, and its own words are told.
func TestStartSaysWhy(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "registry")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho no such storage\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := &Server{dir: t.TempDir()}
	err := s.launch(t, broken, Options{})
	if err == nil || !strings.Contains(err.Error(), "ended at its start") || !strings.Contains(err.Error(), "no such storage") {
		t.Errorf("error %v", err)
	}
}
