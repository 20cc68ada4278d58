package signature

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestKeysAreReadAsWritten(t *testing.T) {
	k, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	private, err := k.PEM()
	if err != nil {
		t.Fatal(err)
	}
	public, err := k.PublicKey.PEM()
	if err != nil {
		t.Fatal(err)
	}
	for _, around := range []string{"%s", "a comment\n%s", "%sa comment\n", "\n\n%s\n\n"} {
		p, err := ParsePrivate(fmt.Appendf(nil, around, private))
		if err != nil || !p.private.Equal(k.private) || p.ID() != k.ID() {
			t.Errorf("%q: %v", around, err)
		}
		q, err := ParsePublic(fmt.Appendf(nil, around, public))
		if err != nil || !q.public.Equal(k.public) || q.ID() != k.ID() {
			t.Errorf("%q: %v", around, err)
		}
	}
	if id, err := ParseKeyID(string(k.ID())); err != nil || id != k.ID() {
		t.Errorf("%s: %v", k.ID(), err)
	}
	other, err := Generate()
	if err != nil || other.ID() == k.ID() {
		t.Errorf("two keys are %s, %v", k.ID(), err)
	}
	if bytes.Contains(public, []byte("PRIVATE")) || !bytes.Contains(private, []byte("secret")) {
		t.Errorf("%s%s", private, public)
	}
}

// TestPrivateKeyIsNotPrinted: a key that finds its way into a log or an error
// shows its ID.
func TestPrivateKeyIsNotPrinted(t *testing.T) {
	k := newKey(t, "one")
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, k); got != string(k.ID()) {
			t.Errorf("%s prints %s", format, got)
		}
	}
}

func TestWhatIsNoKey(t *testing.T) {
	k := newKey(t, "one")
	private, _ := k.PEM()
	public, _ := k.PublicKey.PEM()
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(curve)
	pkix, _ := x509.MarshalPKIXPublicKey(&curve.PublicKey)
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	for what, c := range map[string]struct {
		text            []byte
		private, public string // what the errors say
	}{
		"nothing":       {nil, "no key", "no key"},
		"text":          {[]byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA someone"), "no key", "no key"},
		"a private key": {private, "", ErrPrivate.Error()},
		"a public key":  {public, ErrPublic.Error(), ""},
		"two":           {append(bytes.Clone(private), private...), "more than one", "more than one"},
		"a pair":        {append(bytes.Clone(public), private...), "more than one", "more than one"},
		"a passphrase":  {block(encryptedBlock, []byte("x")), "passphrase", ErrPrivate.Error()},
		"a certificate": {block("CERTIFICATE", []byte("x")), `"CERTIFICATE"`, `"CERTIFICATE"`},
		"damage":        {block(privateBlock, []byte("x")), "damaged", ErrPrivate.Error()},
		"public damage": {block(publicBlock, []byte("x")), ErrPublic.Error(), "damaged"},
		"a curve":       {block(privateBlock, pkcs8), "not an Ed25519 key", ErrPrivate.Error()},
		"a curve's":     {block(publicBlock, pkix), ErrPublic.Error(), "not an Ed25519 key"},
	} {
		_, err := ParsePrivate(c.text)
		if ok := c.private == ""; (err == nil) != ok || !ok && !strings.Contains(err.Error(), c.private) {
			t.Errorf("%s as a private key: %v, want %q", what, err, c.private)
		}
		_, err = ParsePublic(c.text)
		if ok := c.public == ""; (err == nil) != ok || !ok && !strings.Contains(err.Error(), c.public) {
			t.Errorf("%s as a public key: %v, want %q", what, err, c.public)
		}
	}
	if _, err := ParsePrivate(public); !errors.Is(err, ErrPublic) {
		t.Error(err)
	}
}

// FuzzKeys: whatever is read as a key is written as the same key, and signs.
func FuzzKeys(f *testing.F) {
	k := newKey(f, "one")
	private, _ := k.PEM()
	public, _ := k.PublicKey.PEM()
	f.Add(private)
	f.Add(public)
	f.Add(append(bytes.Clone(public), private...))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if p, err := ParsePrivate(text); err == nil {
			again, err := p.PEM()
			if err != nil {
				t.Fatal(err)
			}
			if q, err := ParsePrivate(again); err != nil || !q.private.Equal(p.private) {
				t.Errorf("%q: %v", again, err)
			}
			if _, err := p.Verify(sign(t, p, "myapp:1", someImage, someTime), reference(t, "myapp:1"), someImage); err != nil {
				t.Errorf("%q does not verify what it signs: %v", text, err)
			}
		}
		if p, err := ParsePublic(text); err == nil {
			again, err := p.PEM()
			if err != nil {
				t.Fatal(err)
			}
			if q, err := ParsePublic(again); err != nil || q.ID() != p.ID() {
				t.Errorf("%q: %v", again, err)
			}
		}
	})
}
