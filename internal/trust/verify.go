package trust

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/signature"
)

// Source is a remote with signed tags.
type Source interface {
	remote.Signatures
	Resolve(ctx context.Context, ref image.Reference) (image.ID, error)
}

// Verifier decides whether a tag of one remote may be taken for what it says. It
// is safe for concurrent use.
type Verifier struct {
	From   Source
	Name   string                // the remote as the user named it, for messages
	Keys   []signature.PublicKey // one of them suffices
	Memory Memory                // of this remote

	AllowRollback bool // take what is older than what was accepted before, and go on from there
	DryRun        bool // remember nothing
}

// Verify makes sure that an accepted key has signed that ref, which has a tag and
// no digest, names id, and that nothing newer was accepted before. It remembers
// the time and returns the key's ID. What does not hold is a Refused fault.
func (v *Verifier) Verify(ctx context.Context, ref image.Reference, id image.ID) (by string, err error) {
	found, wrong, err := v.newest(ctx, ref, id)
	if err != nil {
		return "", err
	}
	if found.Key == "" {
		return "", v.unsigned(ctx, ref, id, wrong)
	}
	switch {
	case !v.DryRun:
		err = v.Memory.Accept(ctx, ref, found, v.AllowRollback)
	case !v.AllowRollback:
		err = v.Memory.Check(ref, found)
	}
	var older *OlderError
	if errors.As(err, &older) {
		err = v.rolledBack(ctx, ref, found, older)
	}
	if err != nil {
		return "", err
	}
	return found.Key, nil
}

// newest reads what each of the keys has signed of ref and id, by name: what else
// lies beside it in the remote costs nothing. It returns the newest, and what is wrong
// with those that prove nothing.
func (v *Verifier) newest(ctx context.Context, ref image.Reference, id image.ID) (found Seen, wrong []string, err error) {
	for _, key := range v.Keys {
		content, err := v.From.Signature(ctx, ref, id, string(key.ID()))
		switch {
		case fault.Is(err, fault.NotFound):
			continue
		case fault.Is(err, fault.Damaged): // larger than signatures are
			wrong = append(wrong, err.Error())
			continue
		case err != nil:
			return Seen{}, nil, err
		}
		t, err := key.Verify(content, ref, id)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("what lies there as the signature by the key %s is %s", key, err))
			continue
		}
		if found.Key == "" || t.After(found.Time) {
			found = Seen{Time: t, Image: id, Key: string(key.ID())}
		}
	}
	return found, wrong, nil
}

// unsigned says why no signature was good, and what there is instead.
func (v *Verifier) unsigned(ctx context.Context, ref image.Reference, id image.ID, wrong []string) error {
	if len(wrong) > 0 {
		return fault.New(fault.Refused, "the signature of %s in %s is not valid: %s", ref, v.Name, strings.Join(wrong, "; ")).
			Advise("Somebody has changed it, or a copy is damaged. If the image is the one that you want, push it again with --sign-key; else find out who writes to %s.", v.Name)
	}
	others := v.signers(ctx, ref, id)
	f := fault.New(fault.Refused, "%s in %s is not signed by %s", ref, v.Name, v.keys())
	switch {
	case len(others) > 0:
		return f.Advise("There are signatures by other keys: %s. Where you trust one of them, give its public key with --verify-key, too.", strings.Join(others, ", "))
	case len(v.signers(ctx, ref, image.ID{})) > 0:
		return f.Advise("What the tag named before was signed: somebody has moved it to %s without --sign-key. Push the image again with --sign-key, or find out who moved it.", id.Short())
	default:
		return f.Advise("Nothing of that name is signed there. Push the image with --sign-key, or pull it without --verify-key if you trust all who can write to %s.", v.Name)
	}
}

// signers returns some keys that are said to have signed ref: one image, or any
// where id is zero. Where there is an error, something else is told already.
func (v *Verifier) signers(ctx context.Context, ref image.Reference, id image.ID) (keys []string) {
	const most = 5
	for s, err := range v.From.Signed(ctx, ref, id) {
		if err != nil || len(keys) == most {
			break
		}
		if !slices.Contains(keys, s.Key) {
			keys = append(keys, s.Key)
		}
	}
	return keys
}

// keys names the accepted keys.
func (v *Verifier) keys() string {
	if len(v.Keys) == 1 {
		return "the key " + v.Keys[0].String()
	}
	var ids []string
	for _, k := range v.Keys {
		ids = append(ids, k.String())
	}
	return "any of the keys " + strings.Join(ids, ", ")
}

// rolledBack tells of a signature that is good and too old. A tag that has moved
// since it was read, while another pull accepted the newer one, is no such case.
func (v *Verifier) rolledBack(ctx context.Context, ref image.Reference, found Seen, older *OlderError) error {
	if now, err := v.From.Resolve(ctx, ref); err == nil && now != found.Image {
		return fault.New(fault.Other, "%s in %s moved while it was read", ref, v.Name).Advise("Run the same command again.")
	}
	return fault.Wrap(fault.Refused, older, "%s in %s was rolled back to an image that was signed %s", ref, v.Name, moment(found.Time)).
		Advise("Somebody may have put back an old tag with its old signature. To go back on purpose, push the old image again with --sign-key;\n"+
			"to take what is there now, and to forget the newer one, pull with --allow-rollback. This is remembered in %s.", older.File)
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000 UTC") }
