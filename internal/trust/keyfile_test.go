package trust

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
)

func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "release.key")
	id, err := WriteKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ReadPrivateKey(path)
	if err != nil || string(private.ID()) != id {
		t.Errorf("%s, %v, want %s", private.ID(), err, id)
	}
	public, err := ReadPublicKey(path + ".pub")
	if err != nil || string(public.ID()) != id {
		t.Errorf("%s, %v, want %s", public.ID(), err, id)
	}
	if files := filesIn(t, dir)[1:]; !slices.Equal(files, []string{"release.key -rw-------", "release.key.pub -rw-r--r--"}) {
		t.Errorf("files %q", files)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o601, 0o610} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPrivateKey(path); !fault.Is(err, fault.Refused) || !strings.Contains(fault.AdviceOf(err), "chmod 600") {
			t.Errorf("%o: %v", mode, err)
		}
	}
	for _, mode := range []os.FileMode{0o600, 0o400} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPrivateKey(path); err != nil {
			t.Errorf("%o: %v", mode, err)
		}
	}
}

// TestNoKeyIsOverwritten, neither half, and no other half is left.
func TestNoKeyIsOverwritten(t *testing.T) {
	for _, there := range []string{"release.key", "release.key.pub"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, there), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := WriteKeys(filepath.Join(dir, "release.key")); !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), there+" exists") {
			t.Errorf("%s: %v", there, err)
		}
		content, err := os.ReadFile(filepath.Join(dir, there))
		if err != nil || string(content) != "precious" || len(filesIn(t, dir)) != 2 {
			t.Errorf("%s has %q, %v; files %q", there, content, err, filesIn(t, dir))
		}
	}
	if _, err := WriteKeys(filepath.Join(t.TempDir(), "nowhere", "key")); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestKeyFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "release.key")
	if _, err := WriteKeys(path); err != nil {
		t.Fatal(err)
	}
	huge := filepath.Join(dir, "huge")
	if err := os.WriteFile(huge, make([]byte, maxKeyFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, []byte("no key"), 0o644); err != nil {
		t.Fatal(err)
	}
	private := func(p string) error { _, err := ReadPrivateKey(p); return err }
	public := func(p string) error { _, err := ReadPublicKey(p); return err }
	for what, c := range map[string]struct {
		err  error
		kind fault.Kind
		says string
	}{
		"no private key":        {private(filepath.Join(dir, "nowhere")), fault.NotFound, "nowhere"},
		"no public key":         {public(filepath.Join(dir, "nowhere")), fault.NotFound, "nowhere"},
		"a public key signs":    {private(path + ".pub"), fault.Usage, "is a public key"},
		"a private key is read": {public(path), fault.Usage, "is a private key"},
		"open to all":           {private(open), fault.Refused, "0644"},
		"huge, to sign":         {private(huge), fault.Usage, "larger"},
		"huge, to verify":       {public(huge), fault.Usage, "larger"},
		"a directory":           {public(dir), fault.Other, "cannot read the key"},
	} {
		if fault.KindOf(c.err) != c.kind || !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%s: %v", what, c.err)
		}
	}
}
