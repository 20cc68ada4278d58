package readthrough

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// isAway reports whether err says that a remote cannot be asked.
func isAway(err error) bool {
	var away *awayError
	return errors.As(err, &away) || err != nil && fault.KindOf(err) == fault.Other && !fault.Interrupted(err)
}

// awayError marks the error of a remote that could not be opened.
type awayError struct{ error }

func (e *awayError) Unwrap() error { return e.error }

// Away is a remote that could not be opened: every method fails with the reason.
// Read through a cache it gives what that has, by digest.
type Away struct{ Reason error }

var (
	_ remote.Source       = Away{}
	_ remote.StoredSource = Away{}
	_ remote.Holder       = Away{}
	_ remote.Signatures   = Away{}
	_ remote.Originals    = Away{}
)

func (a Away) err(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return &awayError{a.Reason}
}

// Resolve fails.
func (a Away) Resolve(ctx context.Context, _ image.Reference) (image.ID, error) {
	return image.ID{}, a.err(ctx)
}

// Document fails.
func (a Away) Document(ctx context.Context, _ image.Digest) ([]byte, error) { return nil, a.err(ctx) }

// Look fails.
func (a Away) Look(ctx context.Context, _ remote.Closure, _ map[image.Digest]remote.Layer) (*remote.Found, error) {
	return nil, a.err(ctx)
}

// Open fails.
func (a Away) Open(ctx context.Context, _ remote.Layer) (io.ReadCloser, error) {
	return nil, a.err(ctx)
}

// OpenStored fails.
func (a Away) OpenStored(ctx context.Context, _ remote.Layer) (remote.Stored, error) {
	return remote.Stored{}, a.err(ctx)
}

// Damage is that of any layer.
func (a Away) Damage(layer remote.Layer, cause error) error {
	return fault.Wrap(fault.Damaged, cause, "layer %s is damaged", layer.Digest.Short())
}

// References yields the reason.
func (a Away) References(ctx context.Context, _ string) iter.Seq2[remote.Tag, error] {
	return func(yield func(remote.Tag, error) bool) { yield(remote.Tag{}, a.err(ctx)) }
}

// Held fails.
func (a Away) Held(ctx context.Context, _ image.Digest) ([]image.Digest, error) {
	return nil, a.err(ctx)
}

// Hold fails.
func (a Away) Hold(ctx context.Context, _ image.Digest, _ []image.Digest) error { return a.err(ctx) }

// PutSignature fails.
func (a Away) PutSignature(ctx context.Context, _ image.Reference, _ image.ID, _ string, _ []byte) error {
	return a.err(ctx)
}

// Signature fails.
func (a Away) Signature(ctx context.Context, _ image.Reference, _ image.ID, _ string) ([]byte, error) {
	return nil, a.err(ctx)
}

// CurrentSignature fails.
func (a Away) CurrentSignature(ctx context.Context, _ image.Reference, _ string) ([]byte, error) {
	return nil, a.err(ctx)
}

// Signed yields the reason.
func (a Away) Signed(ctx context.Context, _ image.Reference, _ image.ID) iter.Seq2[remote.Signature, error] {
	return func(yield func(remote.Signature, error) bool) { yield(remote.Signature{}, a.err(ctx)) }
}

// Original fails.
func (a Away) Original(ctx context.Context, _ image.Digest) (remote.Original, error) {
	return remote.Original{}, a.err(ctx)
}

// OpenOriginal fails.
func (a Away) OpenOriginal(ctx context.Context, _ remote.Layer) (io.ReadCloser, error) {
	return nil, a.err(ctx)
}
