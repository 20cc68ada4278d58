package readthrough_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
)

// TestRange reads parts of a layer: of the remote before the cache has it, and then
// of the cache, whose object has another version once it was written again.
func TestRange(t *testing.T) {
	p, dir := newProbe(t), t.TempDir()
	tar := remotetest.Noise("noise", layerSize)
	r, err := repo.Open(t.Context(), p.store, repo.Options{Name: "the-remote", Codec: codec.None})
	must(t, err)
	_, err = r.PutLayer(t.Context(), image.Descriptor{Digest: image.DigestOf(tar), Size: layerSize}, bytes.NewReader(tar))
	must(t, err)
	from := cacheIn(t, dir, 1<<30, nil).New(p)
	layer := layerOf(t, from, tar)
	versions := map[string]bool{}
	look := func() {
		t.Helper()
		body, err := from.OpenRange(t.Context(), layer, 1000, 500)
		must(t, err)
		got, err := io.ReadAll(body)
		if err = errors.Join(err, body.Close()); err != nil || !bytes.Equal(got, tar[1000:1500]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		version, err := from.ObjectVersion(t.Context(), layer)
		must(t, err)
		if again, err := from.ObjectVersion(t.Context(), layer); err != nil || again != version {
			t.Errorf("the version is %q, and then %q, %v", version, again, err)
		}
		if versions[version] {
			t.Errorf("the version is %q once more", version)
		}
		versions[version] = true
	}
	look()
	if isThere(t, dir, tar) {
		t.Error("a part is kept")
	}
	reads(t, from, tar)
	must(t, p.store.Delete(t.Context(), layer.Object)) // from here on it is the cache's
	look()
	file := layerFile(t, dir, layer.Digest)
	content, err := os.ReadFile(file)
	must(t, err)
	before, err := os.Stat(file)
	must(t, err)
	for after := before; after.ModTime().Equal(before.ModTime()); { // clocks tick in milliseconds
		must(t, os.WriteFile(file, content, 0o644))
		after, err = os.Stat(file)
		must(t, err)
	}
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
