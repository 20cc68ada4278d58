package verify_test

import (
	"bytes"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/verify"
)

// TestOutside: with Sealed, and not else, what points outside is found, alone and in
// an index; it hides no entry, and nothing mends it.
func TestOutside(t *testing.T) {
	w := newWorld(t)
	doc, err := w.repo(t).Document(t.Context(), w.manifest)
	if err != nil {
		t.Fatal(err)
	}
	// As an older version may have stored it: today's refuses it.
	out := bytes.Replace(doc, []byte(`"layers":[{`), []byte(`"layers":[{"urls":["https://user:secret@elsewhere.example/x?sig=secret"],`), 1)
	id := image.DigestOf(out)
	put(t, w.store, fileOf(id, "json"), out)
	put(t, w.store, "repositories/out/1", []byte(id.Hex()))
	expect(t, "not sealed", w.verify(t, verify.Options{}))
	for range 2 {
		r := w.verify(t, verify.Options{Sealed: true, Mender: liar{}})
		if len(r.Findings) != 1 || r.Left() != 1 || r.LeftOf(verify.Outside) != 1 || r.Unreferenced == nil {
			t.Fatalf("%s, %+v", findings(r), r)
		}
		f := r.Findings[0]
		if f.Object != fileOf(id, "json") || f.Detail != "it lets a layer or another part be fetched from https://elsewhere.example" || f.Images[0].String() != "out:1" {
			t.Errorf("%+v", f)
		}
		index := []byte(`{"schemaVersion":2,"manifests":[{"mediaType":"m","size":1,"digest":"` + id.String() + `"}]}`)
		put(t, w.store, fileOf(image.DigestOf(index), "json"), index)
		put(t, w.store, fileOf(image.DigestOf(index), "held-"+id.Hex()), nil)
		put(t, w.store, "repositories/out/1", []byte(image.DigestOf(index).Hex()))
	}
}
