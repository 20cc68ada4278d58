package transfer

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// fakeParcel is named once what lacks is through, one closure at a time.
type fakeParcel struct {
	closure             remote.Closure
	lacks               []remote.Closure
	sent, named, mended int
}

func (p *fakeParcel) needs() remote.Closure      { return p.closure }
func (p *fakeParcel) send(context.Context) error { p.sent++; return nil }
func (p *fakeParcel) vanishing(err error) *fault.Error {
	return fault.Wrap(fault.Other, err, "it keeps vanishing")
}

func (p *fakeParcel) name(context.Context) error {
	p.named++
	if len(p.lacks) == 0 {
		return nil
	}
	lost := p.lacks[0]
	p.lacks = p.lacks[1:]
	return &remote.IncompleteError{Missing: lost}
}

func (p *fakeParcel) mend(lost remote.Closure) error {
	p.mended++
	if _, foreign := outside(p.closure, lost); foreign {
		return errForeign
	}
	return nil
}

var errForeign = errors.New("another platform lacks something")

// TestDeliverForeign: what another platform lacks may be nobody's a moment later; what it goes on lacking is told, and what
// the image itself lacks is sent.
func TestDeliverForeign(t *testing.T) {
	own, other := image.DigestOf([]byte("own")), image.DigestOf([]byte("other"))
	lost := func(id image.Digest) remote.Closure { return remote.Closure{Layers: []image.Digest{id}} }
	for name, c := range map[string]struct {
		lacks               []remote.Closure
		err                 error
		sent, named, mended int
	}{
		"nothing":                 {nil, nil, 1, 1, 0},
		"own":                     {[]remote.Closure{lost(own)}, nil, 2, 2, 1},
		"another's, for now":      {[]remote.Closure{lost(other)}, nil, 1, 2, 0},
		"another's, then own":     {[]remote.Closure{lost(other), lost(own)}, nil, 2, 3, 1},
		"another's, and it stays": {[]remote.Closure{lost(other), lost(other), lost(other), lost(other)}, errForeign, 1, 4, 1},
	} {
		p := &fakeParcel{closure: lost(own), lacks: c.lacks}
		err := deliver(t.Context(), p, slog.New(slog.DiscardHandler))
		if !errors.Is(err, c.err) || p.sent != c.sent || p.named != c.named || p.mended != c.mended {
			t.Errorf("%s: %v, sent %d, named %d, mended %d times", name, err, p.sent, p.named, p.mended)
		}
	}
}
