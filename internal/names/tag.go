package names

import (
	"context"
	"errors"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// TagOptions say how Tag goes about it.
type TagOptions struct {
	IfAbsent bool // refuse to move a tag that names another image
	DryRun   bool // look, and write nothing

	Waiting func(what string) // as of remote.Begin
}

// Tagged is what Tag came to.
type Tagged struct {
	Source image.Reference `json:"source"`
	Target image.Reference `json:"target"`
	ID     image.ID        `json:"id"`               // what the target names now
	Before image.ID        `json:"before"`           // what it named before; empty for nothing
	Damage string          `json:"damage,omitempty"` // why it named nothing before, where it was there
	DryRun bool            `json:"dryRun,omitempty"`
}

// followed bounds how often Tag begins again because source has moved.
const followed = 3

// Tag lets target, which has no digest, name the image that source names. The
// image has to be there in full: else a Damaged fault, and the tag stays as it was.
// Where it goes away meanwhile because source moves on, it is what that names then.
func Tag(ctx context.Context, in remote.Remote, source, target image.Reference, o TagOptions) (*Tagged, error) {
	id, err := in.Resolve(ctx, source)
	if err != nil {
		return nil, err
	}
	for attempt := 0; ; attempt++ {
		t, err := tagAs(ctx, in, source, target, id, o)
		var incomplete *remote.IncompleteError
		if errors.As(err, &incomplete) && incomplete.Tagged {
			return t, err
		}
		now, since := remote.Since(ctx, in, source, id, err)
		if since != nil || now == id {
			return t, since
		}
		if attempt == followed {
			return t, err
		}
		id = now
	}
}

// tagAs is Tag of the image that source names.
func tagAs(ctx context.Context, in remote.Remote, source, target image.Reference, id image.ID, o TagOptions) (_ *Tagged, err error) {
	if _, err := in.Document(ctx, id); errors.Is(err, remote.ErrOriginal) {
		return nil, fault.Wrap(fault.Refused, remote.ErrOriginal, "%s cannot be given another name", source).
			Advise("`dogestry upgrade` makes an image of today of it, by the same name.")
	}
	t := &Tagged{Source: source, Target: target, ID: id, DryRun: o.DryRun}
	switch t.Before, err = in.Resolve(ctx, target); {
	case fault.Is(err, fault.NotFound):
	case fault.Is(err, fault.Damaged):
		t.Damage = err.Error()
	case err != nil:
		return nil, err
	}
	to := remote.Target(in)
	if !o.DryRun { // as a push does
		var end func(context.Context)
		to, end = remote.Begin(in, o.Waiting)
		defer end(ctx)
	}
	write := to.Tag
	if o.IfAbsent {
		creator, ok := to.(remote.TagCreator)
		if !ok {
			return nil, fault.Wrap(fault.Refused, errors.ErrUnsupported, "this kind of remote cannot promise that a tag is not overwritten").
				Advise("Do it without --if-absent.")
		}
		if err := creator.MayCreate(ctx, target, id, !o.DryRun); err != nil {
			return nil, err
		}
		write = creator.CreateTag
	}
	if o.DryRun {
		return t, whole(ctx, in, id)
	}
	err = write(ctx, target, id)
	var incomplete *remote.IncompleteError
	if errors.As(err, &incomplete) {
		f := fault.Wrap(fault.Damaged, err, "cannot tag %s", target)
		if incomplete.Tagged {
			f.Message = "tagged " + target.String() + ", and then part of its image was gone"
		}
		return nil, f.Advise("Push the image again to complete it.")
	}
	return t, err
}

// whole is what Tag looks at before it writes: its error names what an image lacks.
func whole(ctx context.Context, from remote.Source, id image.ID) error {
	tree, err := remote.ReadTree(ctx, from, id, nil)
	if err != nil {
		return err
	}
	closure, err := remote.ClosureOf(tree)
	if err != nil {
		return fault.Wrap(fault.Other, err, "%s is no image that this version can tag", id.Short())
	}
	found, err := from.Look(ctx, closure, nil)
	if err != nil {
		return err
	}
	for _, d := range closure.Layers {
		if err := found.Torn[d]; err != nil {
			return err
		}
	}
	return nil
}
