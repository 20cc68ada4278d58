package transfer

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// mendings bounds how often what vanished from a remote while it was written is
// written again.
const mendings = 3

// parcel is an image on its way to a remote.
type parcel interface {
	needs() remote.Closure            // known once it was sent
	send(ctx context.Context) error   // what is missing, if anything is
	name(ctx context.Context) error   // an *IncompleteError says what vanished
	mend(lost remote.Closure) error   // plans to send that
	vanishing(err error) *fault.Error // the fault of what goes on vanishing
}

// deliver sends an image and names it, and mends what vanishes meanwhile.
func deliver(ctx context.Context, p parcel, log *slog.Logger) error {
	for attempt := 0; ; attempt++ {
		if err := p.send(ctx); err != nil {
			return err
		}
		err := nameAgain(ctx, p)
		var incomplete *remote.IncompleteError
		if !errors.As(err, &incomplete) {
			return err
		}
		if attempt >= mendings+len(p.needs().Documents)-1 { // documents may be told one by one
			return p.vanishing(err).Advise("Something removes it: look for a clean-up job or a sync with deletion.")
		}
		log.Info("part of the image vanished, writing it again", "image", incomplete.ID, "error", err)
		if err := p.mend(incomplete.Missing); err != nil {
			return err
		}
	}
}

// nameAgain names an image, and a few times more where the remote lacks what is not the image's but of another platform of its
// index: a collection that was at it takes the mark of that platform first, and then its entries (docs/format.md, D3). Who has
// seen the mark, and then lacks an entry, finds the mark gone.
func nameAgain(ctx context.Context, p parcel) error {
	err := p.name(ctx)
	var incomplete *remote.IncompleteError
	for again := 0; again < mendings && errors.As(err, &incomplete); again++ {
		if _, foreign := outside(p.needs(), incomplete.Missing); !foreign {
			break
		}
		err = p.name(ctx)
	}
	return err
}

// outside returns an entry of lost that is none of c.
func outside(c, lost remote.Closure) (id image.Digest, found bool) {
	for _, id := range slices.Concat(lost.Documents, lost.Layers) {
		if !slices.Contains(c.Documents, id) && !slices.Contains(c.Layers, id) {
			return id, true
		}
	}
	return image.Digest{}, false
}
