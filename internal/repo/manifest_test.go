package repo_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// TestManifestOf: the manifest that follows from a config is the same whatever became of the stored one. Nothing is written.
func TestManifestOf(t *testing.T) {
	a := remotetest.FileLayer(t, "a", "a")
	img := remotetest.NewImage(t, "app", a, remotetest.FileLayer(t, "b", "b"), a)
	other := image3(t, "other")
	manifest := img.Manifest()
	pointer, stored := "images/"+img.ID.Hex()+"/manifest", "images/"+image.DigestOf(manifest).Hex()+"/json"
	for name, change := range map[string]func(s storage.Store){
		"all is there":           func(storage.Store) {},
		"no pointer":             func(s storage.Store) { remove(t, s, pointer) },
		"no manifest":            func(s storage.Store) { remove(t, s, stored) },
		"a damaged pointer":      func(s storage.Store) { put(t, s, pointer, []byte("x")) },
		"a pointer without end":  func(s storage.Store) { put(t, s, pointer, make([]byte, 1<<20)) },
		"a damaged manifest":     func(s storage.Store) { put(t, s, stored, []byte("{}")) },
		"another's manifest":     func(s storage.Store) { put(t, s, pointer, []byte(image.DigestOf(other.Manifest()).Hex())) },
		"what is no manifest":    func(s storage.Store) { put(t, s, pointer, []byte(other.ID.Hex())) },
		"the same of other form": func(s storage.Store) { put(t, s, pointer, putDoc(t, s, append(img.Manifest(), '\n'))) },
		"other layers": func(s storage.Store) {
			put(t, s, pointer, putDoc(t, s, image.SynthesizeManifest(img.Config, nil)))
		},
	} {
		s := mem.New()
		pushTo(t, s, "app:1", img)
		pushTo(t, s, "app:2", other)
		change(s)
		before := tree(t, s)
		for _, from := range []remote.Source{open(t, s, codec.LZ4), plainSource{open(t, s, codec.LZ4)}} {
			if got, err := remote.ManifestOf(t.Context(), from, img.ID); err != nil || !bytes.Equal(got, manifest) {
				t.Errorf("%s: %T gives %s, %v", name, from, got, err)
			}
		}
		if after := tree(t, s); len(after) != len(before) {
			t.Errorf("%s: something was written", name)
		}
	}
}

// plainSource is a Source and nothing else. It does not know how large layers are.
type plainSource struct{ remote.Source }

func (p plainSource) Look(ctx context.Context, c remote.Closure, known map[image.Digest]remote.Layer) (*remote.Found, error) {
	found, err := p.Source.Look(ctx, c, known)
	if err != nil {
		return nil, err
	}
	for id, l := range found.Layers {
		l.Size = -1
		found.Layers[id] = l
	}
	return found, nil
}

// putDoc stores a document behind the repository's back, and returns its hex digits.
func putDoc(t *testing.T, s storage.Store, doc []byte) []byte {
	t.Helper()
	put(t, s, "images/"+image.DigestOf(doc).Hex()+"/json", doc)
	return []byte(image.DigestOf(doc).Hex())
}

func TestManifestOfFails(t *testing.T) {
	s := mem.New()
	img := image3(t, "app")
	pushTo(t, s, "app:1", img)
	r := open(t, s, codec.LZ4)
	remove(t, s, "images/"+img.ID.Hex()+"/manifest")
	for name, id := range map[string]image.ID{"a manifest": image.DigestOf(img.Manifest()), "a layer": image.DigestOf(img.Layers[0]), "nothing": {1}} {
		if got, err := r.ManifestOf(t.Context(), id); err == nil || !strings.Contains(err.Error(), id.Short()) {
			t.Errorf("of %s: %s, %v", name, got, err)
		}
	}
	remove(t, s, "images/"+image.DigestOf(img.Layers[1]).Hex()+"/json")
	if got, err := r.ManifestOf(t.Context(), img.ID); !fault.Is(err, fault.Damaged) {
		t.Errorf("without a layer: %s, %v", got, err)
	}
}
