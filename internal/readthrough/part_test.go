package readthrough_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

// withParts is a remote that counts the parts it gives.
type withParts struct {
	*probe
	parts int
}

func (w *withParts) OpenPart(ctx context.Context, layer remote.Layer, offset, n int64) (io.ReadCloser, error) {
	w.parts++
	return w.probe.OpenPart(ctx, layer, offset, n)
}

// TestParts: parts of a layer come from the remote, and are not kept, until the cache has the layer.
func TestParts(t *testing.T) {
	p := newProbe(t)
	img := pushed(t, p, "app:1", remotetest.Noise("noise", large))
	w := &withParts{probe: p}
	from := cacheIn(t, t.TempDir(), 1<<30, nil).New(w)
	read := func() []byte {
		t.Helper()
		found, err := from.Look(t.Context(), remote.Closure{Layers: img.DiffIDs()}, nil)
		must(t, err)
		body, err := from.OpenPart(t.Context(), found.Layers[img.DiffIDs()[0]], 1000, 500)
		must(t, err)
		defer body.Close()
		b, err := io.ReadAll(body)
		must(t, err)
		return b
	}
	first := read()
	read()
	if len(first) != 500 || w.parts != 2 {
		t.Errorf("%d bytes, and the remote was asked %d times", len(first), w.parts)
	}
	if _, err := remotetest.Pull(t.Context(), from, remotetest.Ref(t, "app:1")); err != nil {
		t.Fatal(err)
	}
	if again := read(); !bytes.Equal(again, first) || w.parts != 2 {
		t.Errorf("out of the cache %d bytes, and the remote was asked %d times", len(again), w.parts)
	}

	plain := cacheIn(t, t.TempDir(), 1<<30, nil).New(struct{ remote.Source }{p})
	layers, err := remote.Layers(t.Context(), plain, []image.Digest{img.DiffIDs()[0]})
	must(t, err)
	if _, err := plain.OpenPart(t.Context(), layers[0], 0, 1); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a remote without parts: %v", err)
	}
}
