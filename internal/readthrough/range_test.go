package readthrough_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
)

// TestRange reads parts of a layer: of the remote before the cache has it, and then
// of the cache.
func TestRange(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tar := remotetest.Noise("noise", layerSize)
	r, err := repo.Open(t.Context(), p.store, repo.Options{Name: "the-remote", Codec: codec.None})
	must(t, err)
	_, err = r.PutLayer(t.Context(), image.Descriptor{Digest: image.DigestOf(tar), Size: layerSize}, bytes.NewReader(tar))
	must(t, err)
	from := cacheIn(t, dir, 1<<30, nil).New(p)
	layer := layerOf(t, from, tar)
	look := func() {
		t.Helper()
		body, err := from.OpenRange(t.Context(), layer, 1000, 500)
		must(t, err)
		got, err := io.ReadAll(body)
		if err = errors.Join(err, body.Close()); err != nil || !bytes.Equal(got, tar[1000:1500]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	look()
	if isThere(t, dir, tar) {
		t.Error("a part is kept")
	}
	reads(t, from, tar)
	must(t, p.store.Delete(t.Context(), layer.Object)) // from here on it is the cache's
	look()
}

// TestLive: of a remote that is written to, too, only the remote tells what is there,
// and the bytes come from the cache all the same.
func TestLive(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tar := remotetest.Noise("noise", layerSize)
	img := pushed(t, p, "app:1", tar)
	from := cacheIn(t, dir, 1<<30, nil).NewLive(p)
	for range 2 {
		got, err := remotetest.Pull(t.Context(), from, remotetest.Ref(t, "app:1"))
		if err != nil || img.Diff(got) != "" {
			t.Fatalf("%v: %s", err, img.Diff(got))
		}
	}
	if n := p.since("stored"); n != 1 {
		t.Errorf("the layer came %d times", n)
	}
	layer := layerOf(t, p, tar)
	must(t, p.store.Delete(t.Context(), layer.Object))
	must(t, p.store.Delete(t.Context(), "images/"+img.ID.Hex()+"/json"))
	found, err := from.Look(t.Context(), img.Closure(), nil)
	if err != nil || len(found.Layers) > 0 || len(found.Documents) > 0 {
		t.Errorf("what the remote has lost is there: %+v, %v", found, err)
	}
	if _, err := from.Resolve(t.Context(), image.Reference{Repository: "app", Digest: img.ID}); err == nil {
		t.Error("so is the image")
	}
	if _, err := remotetest.Read(t.Context(), from, layer); err != nil {
		t.Errorf("its bytes are not: %v", err)
	}
}

// TestUnproved: bytes of the cache come as they are to who proves them, and what he
// finds wrong is removed there, and comes from the remote again.
func TestUnproved(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tar := remotetest.Noise("noise", layerSize)
	r, err := repo.Open(t.Context(), p.store, repo.Options{Name: "the-remote", Codec: codec.None})
	must(t, err)
	_, err = r.PutLayer(t.Context(), image.Descriptor{Digest: image.DigestOf(tar), Size: layerSize}, bytes.NewReader(tar))
	must(t, err)
	var told notes
	from := cacheIn(t, dir, 1<<30, told.add).New(p)
	layer := layerOf(t, from, tar)
	decoded := func() []byte {
		t.Helper()
		body, err := from.OpenDecoded(t.Context(), layer)
		must(t, err)
		got, err := io.ReadAll(body)
		must(t, errors.Join(err, body.Close()))
		return got
	}
	for range 2 { // as it comes, and when it is there
		if !bytes.Equal(decoded(), tar) {
			t.Error("other bytes come")
		}
	}
	if !isThere(t, dir, tar) {
		t.Error("the layer is not kept")
	}
	flip(t, layerFile(t, dir, layer.Digest))
	if bytes.Equal(decoded(), tar) {
		t.Error("the cache is not read")
	}
	if err := from.Damage(layer, errors.New("it is wrong")); !fault.Is(err, fault.Damaged) || told.since() == "" {
		t.Errorf("damage is %v", err)
	}
	if isThere(t, dir, tar) {
		t.Error("what is damaged is kept")
	}
	if !bytes.Equal(decoded(), tar) {
		t.Error("it does not come from the remote again")
	}
}
