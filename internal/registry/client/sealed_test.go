package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/sealed"
)

// TestSealed: a registry sends a client to others for tokens and for blobs, and its
// credentials may be a helper's: none is asked, unless it is named.
func TestSealed(t *testing.T) {
	var asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); w.WriteHeader(http.StatusForbidden) }))
	defer other.Close()
	var answer http.HandlerFunc
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r) }))
	defer registry.Close()
	config := t.TempDir()
	try := func(o sealed.Options) error {
		o.From = "--sealed"
		seal, err := sealed.New(o)
		if err != nil {
			t.Fatal(err)
		}
		address, err := Parse("registry://" + registry.Listener.Addr().String() + "?plain-http=true")
		if err != nil {
			t.Fatal(err)
		}
		r, err := Open(Options{Address: address, Name: "the-registry", Seal: seal, Credentials: DockerCredentials(config, seal)})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		ref, err := image.ParseReference("app:1")
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Resolve(t.Context(), ref)
		return err
	}
	refused := func(what string, err error, says string) {
		t.Helper()
		if fault.KindOf(err) != fault.Refused || !errors.Is(err, sealed.ErrSealed) || !strings.Contains(err.Error(), says) || !strings.Contains(fault.AdviceOf(err), "sealed-") || asked.Load() > 0 {
			t.Errorf("%s: %v (%s), asked %d times", what, err, fault.AdviceOf(err), asked.Load())
		}
	}
	host := other.Listener.Addr().String()
	answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+other.URL+`/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
	refused("token", try(sealed.Options{}), host+" was not contacted")
	names := net.DefaultResolver // others have kept the pointer
	preferGo, dial := names.PreferGo, names.Dial
	names.PreferGo, names.Dial = true, func(context.Context, string, string) (net.Conn, error) {
		asked.Add(1)
		return nil, errors.New("no name server")
	}
	defer func() { names.PreferGo, names.Dial = preferGo, dial }()
	answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://tokens.example.test/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
	refused("token service with a name", try(sealed.Options{}), "tokens.example.test:80 was not contacted")
	answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+other.URL+`/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
	if err := try(sealed.Options{Allow: []string{host}}); errors.Is(err, sealed.ErrSealed) || asked.Load() == 0 {
		t.Errorf("a token service that is named: %v", err)
	}
	asked.Store(0)
	answer = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}
	refused("redirect", try(sealed.Options{}), host+" was not contacted")
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(`{"credsStore":"dogestry-test"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
	refused("helper", try(sealed.Options{}), "docker-credential-dogestry-test was not run")
	if err := try(sealed.Options{Programs: []string{"docker-credential-dogestry-test"}}); errors.Is(err, sealed.ErrSealed) {
		t.Errorf("a helper that is named: %v", err)
	}
}
