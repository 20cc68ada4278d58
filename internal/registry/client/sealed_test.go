package client_test

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/sealed"
)

// TestSealed: a sealed client contacts its registry, and who gives out tokens only
// where that is named; a credential helper runs only where it is.
func TestSealed(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{Token: true})
	img := image2(t, "app")
	push(t, open(t, s.Host, func(o *client.Options) { o.Credentials = known }), "app:1", img)
	tokens, err := url.Parse(s.Tokens.URL)
	if err != nil {
		t.Fatal(err)
	}
	sealing := func(o sealed.Options) *sealed.Seal {
		o.From = "the test"
		seal, err := sealed.New(o)
		if err != nil {
			t.Fatal(err)
		}
		return seal
	}
	closed := sealing(sealed.Options{})
	_, err = open(t, s.Host, func(o *client.Options) { o.Credentials, o.Seal = known, closed }).Resolve(t.Context(), remotetest.Ref(t, "app:1"))
	if !fault.Is(err, fault.Refused) || !errors.Is(err, sealed.ErrSealed) || !strings.Contains(err.Error(), tokens.Host) {
		t.Errorf("the token server is not named: %v", err)
	}
	named := sealing(sealed.Options{Allow: []string{tokens.Host}})
	holds(t, open(t, s.Host, func(o *client.Options) { o.Credentials, o.Seal = known, named }), "app:1", img)

	helped := t.TempDir()
	write(t, filepath.Join(helped, "config.json"), fmt.Sprintf(`{"credHelpers":{%q:"tests"}}`, s.Host))
	_, err = open(t, s.Host, func(o *client.Options) {
		o.Credentials, o.Seal = client.DockerCredentials(helped, named), named
	}).Resolve(t.Context(), remotetest.Ref(t, "app:1"))
	if !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "docker-credential-tests was not run") {
		t.Errorf("a helper that is not named: %v", err)
	}
}
