package signature

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// KeyID is the name of a key pair: the first 16 hex digits of the sha256 of the
// public key's DER. It is short enough to be forged, so it proves nothing.
type KeyID string

const keyDigits = 16

// ParseKeyID reads 16 lower-case hex digits.
func ParseKeyID(s string) (KeyID, error) {
	if len(s) != keyDigits || strings.Trim(s, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%.40q is not the ID of a key: want %d lower-case hex digits", s, keyDigits)
	}
	return KeyID(s), nil
}

// PublicKey verifies. The zero value is no key.
type PublicKey struct {
	public ed25519.PublicKey
	id     KeyID
}

// PrivateKey signs. Whatever prints it shows its ID.
type PrivateKey struct {
	PublicKey
	private ed25519.PrivateKey
}

// Kinds of PEM blocks (RFC 7468).
const (
	privateBlock   = "PRIVATE KEY" // PKCS #8
	encryptedBlock = "ENCRYPTED PRIVATE KEY"
	publicBlock    = "PUBLIC KEY" // PKIX
)

// Errors of ParsePrivate and ParsePublic for the other half of the right key.
var (
	ErrPublic  = errors.New("it is a public key, which signs nothing")
	ErrPrivate = errors.New("it is a private key, which only who signs should have")
)

// Generate makes a key pair.
func Generate() (PrivateKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return PrivateKey{}, err
	}
	return newPrivate(private)
}

func newPrivate(private ed25519.PrivateKey) (PrivateKey, error) {
	public, err := newPublic(private.Public().(ed25519.PublicKey))
	return PrivateKey{public, private}, err
}

func newPublic(public ed25519.PublicKey) (PublicKey, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return PublicKey{}, err
	}
	sum := sha256.Sum256(der)
	return PublicKey{public, KeyID(hex.EncodeToString(sum[:])[:keyDigits])}, nil
}

// ID returns the name of the pair.
func (k PublicKey) ID() KeyID { return k.id }

// String returns the ID.
func (k PublicKey) String() string { return string(k.id) }

// GoString returns the ID: no form of printing shows more.
func (k PrivateKey) GoString() string { return string(k.id) }

// PEM returns the key as ParsePublic reads it, below a line for people.
func (k PublicKey) PEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.public)
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, "dogestry key %s: verifies signed tags\n", k.id), pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der})...), nil
}

// PEM returns the key as ParsePrivate reads it, below a line for people.
func (k PrivateKey) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, "dogestry key %s: signs tags, keep it secret\n", k.id), pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der})...), nil
}

// ParsePrivate reads an Ed25519 key in PKCS #8 and PEM, without a passphrase.
// Text around its one block does not matter. No error shows any of it.
func ParsePrivate(text []byte) (PrivateKey, error) {
	block, err := oneBlock(text)
	if err != nil {
		return PrivateKey{}, err
	}
	switch block.Type {
	case privateBlock:
	case publicBlock:
		return PrivateKey{}, ErrPublic
	case encryptedBlock:
		return PrivateKey{}, errors.New("it has a passphrase, which this version cannot ask for")
	default:
		return PrivateKey{}, fmt.Errorf("it has a block %.40q, not %q", block.Type, privateBlock)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return PrivateKey{}, errors.New("its private key is damaged")
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return PrivateKey{}, errors.New("its key is not an Ed25519 key")
	}
	return newPrivate(private)
}

// ParsePublic reads an Ed25519 key in PKIX and PEM. Text around its one block
// does not matter.
func ParsePublic(text []byte) (PublicKey, error) {
	block, err := oneBlock(text)
	if err != nil {
		return PublicKey{}, err
	}
	switch block.Type {
	case publicBlock:
	case privateBlock, encryptedBlock:
		return PublicKey{}, ErrPrivate
	default:
		return PublicKey{}, fmt.Errorf("it has a block %.40q, not %q", block.Type, publicBlock)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return PublicKey{}, errors.New("its public key is damaged")
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return PublicKey{}, errors.New("its key is not an Ed25519 key")
	}
	return newPublic(public)
}

// oneBlock returns the PEM block of a file that has exactly one.
func oneBlock(text []byte) (*pem.Block, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it has no key in PEM form")
	}
	if more, _ := pem.Decode(rest); more != nil {
		return nil, errors.New("it has more than one key")
	}
	return block, nil
}
