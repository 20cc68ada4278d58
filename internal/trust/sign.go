// Package trust lets a push sign the tags that it writes, and a pull take only
// those that an accepted key has signed and that are not older than what it has
// seen: docs/format.md, "Signed tags". It reads and writes key files and the file
// in which a user's pulls remember what they accepted.
package trust

import (
	"context"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/signature"
)

// Signer signs tags of one remote. It is safe for concurrent use.
type Signer struct {
	Key signature.PrivateKey
	To  remote.Signatures

	now func() time.Time // time.Now where it is nil
}

// Sign stores that the key says that ref names id, and returns the key's ID. The
// tag is to be written after it. The time is the clock's, or right behind that of the key's
// signature of what the tag names now: a clock that was put back makes no
// signature that readers take for a replayed one.
func (s *Signer) Sign(ctx context.Context, ref image.Reference, id image.ID) (by string, err error) {
	key := string(s.Key.ID())
	last, err := s.last(ctx, ref, key)
	if err != nil {
		return "", err
	}
	now := time.Now
	if s.now != nil {
		now = s.now
	}
	t := now().UTC().Truncate(signature.Tick)
	if !t.After(last) {
		t = last.Add(signature.Tick)
	}
	content, err := s.Key.Sign(signature.Statement{Tag: ref, Image: id, Time: t})
	if err != nil {
		return "", fault.Wrap(fault.Other, err, "cannot sign %s", ref)
	}
	return key, s.To.PutSignature(ctx, ref, id, key, content)
}

// last returns the time at which the key has signed what ref names now; the zero
// time where there is no such signature, or none that the key has made.
func (s *Signer) last(ctx context.Context, ref image.Reference, key string) (time.Time, error) {
	content, err := s.To.CurrentSignature(ctx, ref, key)
	switch {
	case fault.Is(err, fault.NotFound), fault.Is(err, fault.Damaged):
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, err
	}
	signed, err := signature.Parse(content)
	if err != nil || signed.Tag != ref || signed.Verify(s.Key.PublicKey) != nil {
		return time.Time{}, nil // somebody else's: readers refuse it too
	}
	return signed.Time, nil
}
