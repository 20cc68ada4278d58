package client_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/sealed"
)

func wrong(context.Context, string) (client.Credentials, error) {
	return client.Credentials{User: registrytest.User, Password: "another secret"}, nil
}

// TestLogin: credentials are taken or refused by the registry, whatever way it asks for them.
func TestLogin(t *testing.T) {
	for name, o := range map[string]registrytest.Options{"basic": {Basic: true}, "token": {Token: true}, "anybody": {}} {
		t.Run(name, func(t *testing.T) {
			s := registrytest.Start(t, o)
			address, err := client.Parse("registry://" + s.Host)
			if err != nil {
				t.Fatal(err)
			}
			if err := client.Login(t.Context(), client.Options{Address: address, Credentials: known}); err != nil {
				t.Errorf("the right ones: %v", err)
			}
			err = client.Login(t.Context(), client.Options{Address: address, Credentials: wrong})
			if name == "anybody" {
				if err != nil {
					t.Error(err)
				}
			} else if !fault.Is(err, fault.Refused) || strings.Contains(err.Error(), "another secret") {
				t.Errorf("wrong ones: %v", err)
			}
		})
	}
}

// TestStore: what is stored is found again, also by a helper, to which the password goes by
// its stdin alone; what is erased is not.
func TestStore(t *testing.T) {
	given := client.Credentials{User: registrytest.User, Password: registrytest.Password}
	for _, host := range []string{"localhost:5000", "docker.io"} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "config.json"), `{"HttpHeaders":{"X-Mine":"1"},"credsStore":""}`)
		if err := client.StoreCredentials(dir, host, given, nil); err != nil {
			t.Fatal(err)
		}
		if got, err := client.DockerCredentials(dir, nil)(t.Context(), host); err != nil || got != given {
			t.Errorf("%s: %v", host, err)
		}
		if content, err := os.ReadFile(filepath.Join(dir, "config.json")); err != nil || !strings.Contains(string(content), "X-Mine") {
			t.Errorf("what was there is gone: %v", err)
		}
		for _, want := range []bool{true, false} {
			if were, err := client.EraseCredentials(dir, host, nil); err != nil || were != want {
				t.Errorf("%s: erased %t, want %t: %v", host, were, want, err)
			}
		}
	}

	dir, bin := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "config.json"), `{"credsStore":"tests"}`)
	helper := filepath.Join(bin, "docker-credential-tests")
	write(t, helper, fmt.Sprintf("#!/bin/sh\necho \"$*\" >>%s/args\ncat >%s/stdin\n", bin, bin))
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	if err := client.StoreCredentials(dir, "localhost:5000", given, nil); err != nil {
		t.Fatal(err)
	}
	for file, has := range map[string]bool{filepath.Join(bin, "args"): false, filepath.Join(bin, "stdin"): true, filepath.Join(dir, "config.json"): false} {
		if content, err := os.ReadFile(file); err != nil || strings.Contains(string(content), registrytest.Password) != has {
			t.Errorf("%s: the password is there: %t, %v", file, !has, err)
		}
	}
	write(t, helper, "#!/bin/sh\ncat\nexit 1\n") // it says what it was given
	if err := client.StoreCredentials(dir, "localhost:5000", given, nil); err == nil || strings.Contains(err.Error(), registrytest.Password) {
		t.Errorf("a helper that fails: %v", err)
	}
	seal, err := sealed.New(sealed.Options{From: "the test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.StoreCredentials(dir, "localhost:5000", given, seal); !fault.Is(err, fault.Refused) {
		t.Errorf("a sealed one runs a helper: %v", err)
	}
	for _, name := range []string{"pass", "docker-credential-pass", "docker-credential-secretservice"} { // which docker takes by itself
		write(t, filepath.Join(bin, name), "#!/bin/sh\nexit 1\n")
	}
	if err := client.StoreCredentials(t.TempDir(), "localhost:5000", given, seal); runtime.GOOS == "linux" && !fault.Is(err, fault.Refused) {
		t.Errorf("a sealed one runs a helper that nobody has named: %v", err)
	}
}
