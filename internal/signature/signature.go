// Package signature is the signatures of docs/format.md, "Signed tags": the
// statement that a tag names an image, its bytes, and the keys that sign and
// verify them. It does no input or output.
package signature

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

const (
	// domain begins what is signed: nobody who signs something else with the same
	// key signs this. The number is the version of all that follows.
	domain  = "dogestry signed tag "
	version = "1"

	// timeForm is RFC 3339 in UTC, with always three digits behind the point.
	timeForm = "2006-01-02T15:04:05.000Z"
)

// MaxSize is how large a signature can be, in bytes. The longest names make one
// of some 700.
const MaxSize = 4 << 10

// Tick is the smallest step between two times that a signature can tell apart.
const Tick = time.Millisecond

// Statement is what a key signs: at this time the tag names this image.
type Statement struct {
	Tag   image.Reference // has a repository and a tag, and no digest
	Image image.ID
	Time  time.Time // a multiple of Tick, of the years 1970 to 9999
}

// Signed is a statement with the signature that was found below it. It is true
// only once Verify has said so.
type Signed struct {
	Statement
	Key KeyID // who is said to have signed

	signed    []byte // the lines above the signature
	signature []byte
}

// message returns the bytes that are signed. Its error says that no statement
// can be made of s.
func (s Statement) message(key KeyID) ([]byte, error) {
	ref, err := image.ParseReference(s.Tag.Repository + ":" + s.Tag.Tag)
	if err != nil || ref != s.Tag || ref.Tag == "" {
		return nil, fmt.Errorf("%.300q is not the name of a tag", s.Tag.String())
	}
	if s.Image.IsZero() {
		return nil, errors.New("it names no image")
	}
	t := s.Time.UTC()
	if t.Year() < 1970 || t.Year() > 9999 || !t.Equal(t.Truncate(Tick)) {
		return nil, fmt.Errorf("the time %s cannot be written", t.Format(time.RFC3339Nano))
	}
	return fmt.Appendf(nil, "%s%s\nrepository %s\ntag %s\nimage %s\ntime %s\nkey %s\n",
		domain, version, ref.Repository, ref.Tag, s.Image, t.Format(timeForm), key), nil
}

// Sign returns a signature of s, as it is stored.
func (k PrivateKey) Sign(s Statement) ([]byte, error) {
	message, err := s.message(k.ID())
	if err != nil {
		return nil, err
	}
	return marshal(message, ed25519.Sign(k.private, message)), nil
}

func marshal(message, signature []byte) []byte {
	return fmt.Appendf(bytes.Clone(message), "signature %s\n", base64.StdEncoding.EncodeToString(signature))
}

// Parse reads a signature as Sign writes it, and refuses every other sequence of
// bytes: there is one way to write one. It verifies nothing.
func Parse(content []byte) (*Signed, error) {
	if len(content) > MaxSize {
		return nil, fmt.Errorf("larger than %d bytes", MaxSize)
	}
	head, rest, _ := strings.Cut(string(content), "\n")
	switch v, ours := strings.CutPrefix(head, domain); {
	case !ours:
		return nil, errors.New("not a signature of a tag")
	case v != version:
		return nil, fmt.Errorf("of the version %.20q, and this dogestry knows %s", v, version)
	}
	var values [6]string
	for i, name := range []string{"repository", "tag", "image", "time", "key", "signature"} {
		line, after, whole := strings.Cut(rest, "\n")
		value, found := strings.CutPrefix(line, name+" ")
		if !whole || !found {
			return nil, fmt.Errorf("its line %q is missing or cut short", name)
		}
		values[i], rest = value, after
	}
	s := &Signed{Key: KeyID(values[4])}
	s.Tag = image.Reference{Repository: values[0], Tag: values[1]}
	var err error
	if s.Image, err = image.ParseDigest(values[2]); err != nil {
		return nil, err
	}
	if s.Time, err = time.Parse(timeForm, values[3]); err != nil {
		return nil, fmt.Errorf("%.40q is not a time", values[3])
	}
	if _, err := ParseKeyID(values[4]); err != nil {
		return nil, err
	}
	if s.signature, err = base64.StdEncoding.DecodeString(values[5]); err != nil || len(s.signature) != ed25519.SignatureSize {
		return nil, errors.New("its last line is no signature")
	}
	if s.signed, err = s.message(s.Key); err != nil {
		return nil, err
	}
	if !bytes.Equal(content, marshal(s.signed, s.signature)) {
		return nil, errors.New("not written as signatures are")
	}
	return s, nil
}

// Stays reports whether there, which a remote has as a signature, is not to be
// replaced by another of the same name that came from elsewhere: it is a statement,
// and what came is none, or is of the same and not newer. Nothing is verified: who
// can write there can do worse.
func Stays(there, came []byte) bool {
	was, err := Parse(there)
	if err != nil {
		return false
	}
	now, err := Parse(came)
	return err != nil || was.Tag == now.Tag && was.Image == now.Image && was.Key == now.Key && !was.Time.Before(now.Time)
}

// Verify returns nil if k has signed the statement.
func (s *Signed) Verify(k PublicKey) error {
	if s.Key != k.ID() {
		return fmt.Errorf("of the key %s", s.Key)
	}
	if !ed25519.Verify(k.public, s.signed, s.signature) {
		return fmt.Errorf("not made with the key %s", k.ID())
	}
	return nil
}

// Verify returns the time at which k has signed that tag names id. Its error
// says what is wrong with content instead.
func (k PublicKey) Verify(content []byte, tag image.Reference, id image.ID) (time.Time, error) {
	s, err := Parse(content)
	if err != nil {
		return time.Time{}, err
	}
	if err := s.Verify(k); err != nil {
		return time.Time{}, err
	}
	switch {
	case s.Tag != tag:
		return time.Time{}, fmt.Errorf("of %s", s.Tag)
	case s.Image != id:
		return time.Time{}, fmt.Errorf("of the image %s", s.Image.Short())
	}
	return s.Time, nil
}
