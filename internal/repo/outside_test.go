package repo_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// TestOutside: a manifest or index that points outside is not stored, also where the
// layer's bytes are there; and what an older version has stored gets no tag.
func TestOutside(t *testing.T) {
	s := mem.New()
	r := open(t, s, codec.None)
	img := remotetest.NewImage(t, "app", remotetest.FileLayer(t, "a", "a"))
	if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, "app:1"), img); err != nil {
		t.Fatal(err)
	}
	manifest := bytes.Replace(img.Manifest(), []byte(`"layers":[{`), []byte(`"layers":[{"urls":["https://user:secret@elsewhere.example/x"],`), 1)
	index := []byte(`{"schemaVersion":2,"manifests":[{"mediaType":"m","size":1,"urls":["https://elsewhere.example"],"digest":"` + image.DigestOf(img.Manifest()).String() + `"}]}`)
	before := len(keys(t, s, ""))
	for _, doc := range [][]byte{manifest, index} {
		err := r.PutDocument(t.Context(), doc)
		if !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "https://elsewhere.example") || strings.Contains(err.Error(), "secret") {
			t.Errorf("stored: %v", err)
		}
	}
	id := image.DigestOf(manifest)
	put(t, s, "images/"+id.Hex()+"/json", manifest)
	if err := r.Tag(t.Context(), remotetest.Ref(t, "app:2"), id); !fault.Is(err, fault.Refused) {
		t.Errorf("tagged: %v", err)
	}
	if got := len(keys(t, s, "")); got != before+1 {
		t.Errorf("%d objects, %d before", got, before)
	}
}
