package remote

import (
	"context"
	"errors"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// ErrRemoved is in the chain of a NotFound fault that says that an image was
// removed while it was read.
var ErrRemoved = errors.New("somebody has removed it, and a garbage collection what it needed")

// Since says what is behind a failure to read the image id, which ref named at
// first. Of an image that others remove meanwhile parts are missing, which is no
// damage of the remote: where err is a Damaged fault it asks again what ref names.
// It returns another ID, and no error, where that has moved; id and a NotFound fault
// with ErrRemoved where it is gone; else id and err as they are.
func Since(ctx context.Context, from Source, ref image.Reference, id image.ID, err error) (image.ID, error) {
	if !fault.Is(err, fault.Damaged) {
		return id, err
	}
	now, again := from.Resolve(ctx, ref)
	switch {
	case fault.Is(again, fault.NotFound):
		return id, fault.Wrap(fault.NotFound, ErrRemoved, "%s is not there any more", ref).Advise("%s", fault.AdviceOf(again))
	case again != nil || now == id:
		return id, err
	}
	return now, nil
}
