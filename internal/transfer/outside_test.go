package transfer

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

const elsewhere = "https://elsewhere.example/layer"

// pointsOutside fails the test unless err says that something points outside.
func pointsOutside(t *testing.T, what string, err error) {
	t.Helper()
	if fault.KindOf(err) != fault.Refused || !strings.Contains(fmt.Sprint(err), "points outside") || !strings.Contains(fmt.Sprint(err), "https://elsewhere.example") {
		t.Errorf("%s: %v", what, err)
	}
}

// TestOutsideIsRefused: by no way does an image whose manifest points outside come
// into a remote, though all its bytes are there, and nothing of it moves.
func TestOutsideIsRefused(t *testing.T) {
	img := remotetest.NewImage(t, "app", remotetest.FileLayer(t, "a", "a"))
	plain := bytes.Replace(img.Manifest(), []byte(`{`), []byte("{\n"), 1) // the other one is there anyway
	out := bytes.Replace(plain, []byte(`"layers":[{`), []byte(`"layers":[{"urls":["`+elsewhere+`"],`), 1)
	id, plainID := image.DigestOf(out), image.DigestOf(plain)

	store := mem.New() // as an older version left it
	from := remoteOn(t, store, codec.LZ4)
	if _, err := remotetest.Push(t.Context(), from, reference(t, "app:1"), img); err != nil {
		t.Fatal(err)
	}
	must(t, from.PutDocument(t.Context(), plain))
	must(t, from.Tag(t.Context(), reference(t, "plain:1"), plainID))
	put(t, store, "images/"+id.Hex()+"/json", string(out))
	put(t, store, "repositories/out/1", id.Hex())

	target := mem.New()
	to := remoteOn(t, target, codec.LZ4)
	_, err := Copy(t.Context(), from, to, copies(t, "out:1"), CopyOptions{})
	pointsOutside(t, "copy", err)
	_, err = Copy(t.Context(), from, layoutIn(t, t.TempDir()), copies(t, "out:1"), CopyOptions{})
	pointsOutside(t, "copy to a layout", err)
	pointsOutside(t, "export", export(t, from, nil, &bytes.Buffer{}, "out:1"))

	dir := t.TempDir()
	l := layoutIn(t, dir)
	if _, err := remotetest.Push(t.Context(), l, reference(t, "app:1"), img); err != nil {
		t.Fatal(err)
	}
	must(t, l.PutDocument(t.Context(), out))
	must(t, l.Tag(t.Context(), reference(t, "out:1"), id))
	_, err = Copy(t.Context(), layoutIn(t, dir), to, copies(t, "out:1"), CopyOptions{})
	pointsOutside(t, "copy of a layout", err)
	if all := objects(t, target); len(all) > 0 {
		t.Errorf("there is %v", all)
	}

	bundle := members(t, mustExport(t, from, nil, "plain:1"))
	for i := range bundle {
		m := &bundle[i]
		if m.content == string(plain) {
			m.content = string(out)
		}
		m.Name = strings.ReplaceAll(m.Name, plainID.Hex(), id.Hex())
		m.content = strings.ReplaceAll(m.content, plainID.Hex(), id.Hex())
		m.Size = int64(len(m.content))
	}
	_, err = importFrom(t, bytes.NewReader(pack(t, bundle)), to)
	pointsOutside(t, "import", err)
	if tags := tagsOf(t, to); len(tags) > 0 {
		t.Errorf("tags %v", tags)
	}
}

// TestOutsideStaysInTheEngine: a push from a containerd image store refuses it, by
// both ways to its documents.
func TestOutsideStaysInTheEngine(t *testing.T) { enginetest.EachContainerd(t, testOutsideStays) }

func testOutsideStays(t *testing.T, e *enginetest.Engine) {
	var l enginetest.Layout
	loadLayout(t, e, &l, l.Elsewhere(layered("outside", "outside-a", "outside-b"), elsewhere), "outside:1")
	defer removeAll(t, e, "outside:1")
	for _, use := range []engine.StoreUse{engine.StoreAuto, engine.StoreOff} {
		store := mem.New()
		_, err := Push(t.Context(), connectWith(t, engine.Options{URL: e.Host, Store: use}), remoteOn(t, store, codec.LZ4), pushes(t, "outside:1"), Options{})
		pointsOutside(t, "push, "+string(use), err)
		for key := range objects(t, store) {
			// By an export it is known last what the image is made of.
			if strings.HasPrefix(key, "repositories/") || strings.HasPrefix(key, "images/") && use == engine.StoreAuto {
				t.Errorf("%s: there is %s", use, key)
			}
		}
	}
}
