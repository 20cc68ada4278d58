package enginetest

import (
	"fmt"
	"strings"
	"testing"
)

// TestRealImages builds what the cache lacks, which takes a minute and a Debian mirror the first time, with -every five.
func TestRealImages(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: would build the real images if the cache lacks them")
	}
	e := For(t)
	ctx := t.Context()
	images := []struct {
		name            ImageName
		layers          int
		least, greatest int64 // bytes of layer tars
	}{
		{Debian, 1, 60e6, 250e6},
		{Apt, 6, 380e6, 650e6},
		{AptChanged, 7, 380e6, 650e6},
	}
	if !*every {
		images = images[:1]
	}
	for _, want := range images {
		saved, err := e.Saved(ctx, e.LoadFor(t, want.name))
		if err != nil {
			t.Fatal(err)
		}
		var total int64
		for _, n := range saved.Sizes {
			total += n
		}
		t.Logf("%s: %d bytes in layers of %d", want.name, total, saved.Sizes)
		if len(saved.Sizes) != want.layers || total < want.least || total > want.greatest {
			t.Errorf("%s has %d layers of %d bytes together", want.name, len(saved.Sizes), total)
		}
	}
	if !*every {
		return
	}
	out, err := e.Docker(ctx, nil, "run", "--rm", "--network=none", string(AptChanged))
	if err != nil || !strings.Contains(string(out), " 1000000 ") {
		t.Errorf("%s runs with %q (%v)", AptChanged, out, err)
	}
}

func TestBigImageIsWhatItPromises(t *testing.T) {
	const layers, layerBytes = 2, bigFile + 12345
	m := BigImage(layers, layerBytes)
	if got, want := m.Tags()[0], fmt.Sprintf("%s/big:2x%d", Repository, int64(layerBytes)); got != want {
		t.Errorf("named %s, want %s", got, want)
	}
	for i, l := range m.Layers() {
		if n := int64(len(l.Bytes())); n != l.Size() {
			t.Errorf("layer %d has %d bytes, says %d", i, n, l.Size())
		}
	}
	if again := BigImage(layers, layerBytes); again.ID() != m.ID() {
		t.Error("made twice, it differs")
	}
	if ids := m.DiffIDs(); ids[0] == ids[1] {
		t.Error("its layers are the same")
	}
	e := For(t)
	if err := e.LoadImage(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	saved, err := e.Saved(t.Context(), m.Tags()[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := saved.Check(m); err != nil {
		t.Error(err)
	}
}
