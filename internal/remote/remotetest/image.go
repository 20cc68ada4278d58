package remotetest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Image is a small image in memory.
type Image struct {
	ID     image.ID // the digest of Config
	Config []byte
	Layers [][]byte // tars, bottom first; one may occur again
}

// NewImage returns an image of these layers. Its name stands in its config, so
// that images of the same layers differ.
func NewImage(t testing.TB, name string, layers ...[]byte) Image {
	t.Helper()
	type rootfs struct {
		Type    string         `json:"type"`
		DiffIDs []image.DiffID `json:"diff_ids"`
	}
	i := Image{Layers: layers}
	config, err := json.Marshal(struct {
		Created      time.Time         `json:"created"`
		Architecture string            `json:"architecture"`
		OS           string            `json:"os"`
		Config       map[string]string `json:"config"`
		RootFS       rootfs            `json:"rootfs"`
	}{
		Created:      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Architecture: "amd64",
		OS:           "linux",
		Config:       map[string]string{"User": name},
		RootFS:       rootfs{Type: "layers", DiffIDs: append([]image.DiffID{}, i.DiffIDs()...)},
	})
	if err != nil {
		t.Fatal(err)
	}
	i.Config, i.ID = config, image.DigestOf(config)
	return i
}

// DiffIDs returns the names of the layers, bottom first, as often as they occur.
func (i Image) DiffIDs() []image.DiffID {
	var ids []image.DiffID
	for _, l := range i.Layers {
		ids = append(ids, image.DigestOf(l))
	}
	return ids
}

// Closure returns what a push asks for: the config, and each layer once.
func (i Image) Closure() remote.Closure {
	return remote.Closure{Documents: []image.Digest{i.ID}, Layers: image.Distinct(i.DiffIDs())}
}

// Layer returns the tar with that name, nil where the image has none.
func (i Image) Layer(id image.DiffID) []byte {
	for _, l := range i.Layers {
		if image.DigestOf(l) == id {
			return l
		}
	}
	return nil
}

// Diff says what of got is not as in i, "" where all is.
func (i Image) Diff(got Image) string {
	switch {
	case got.ID != i.ID:
		return fmt.Sprintf("it is image %s, not %s", got.ID.Short(), i.ID.Short())
	case !bytes.Equal(got.Config, i.Config):
		return fmt.Sprintf("its config is %.300q, not %.300q", got.Config, i.Config)
	case len(got.Layers) != len(i.Layers):
		return fmt.Sprintf("it has %d layers, not %d", len(got.Layers), len(i.Layers))
	}
	for n, l := range i.Layers {
		if !bytes.Equal(got.Layers[n], l) {
			return fmt.Sprintf("layer %d has %d other bytes than its %d", n, len(got.Layers[n]), len(l))
		}
	}
	return ""
}

// Manifest returns the manifest that docs/format.md synthesises for the image.
func (i Image) Manifest() []byte {
	layers := make([]image.Descriptor, len(i.Layers))
	for n, l := range i.Layers {
		layers[n] = image.Descriptor{Digest: image.DigestOf(l), Size: int64(len(l))}
	}
	return image.SynthesizeManifest(i.Config, layers)
}

// Entry is a file, link or directory of a layer.
type Entry struct {
	tar.Header
	Content string
}

// Tar returns a layer with these entries. Those without a mode are readable by
// all; Size is that of Content.
func Tar(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		h.Size = int64(len(e.Content))
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.Content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// FileLayer returns a layer of one file.
func FileLayer(t testing.TB, name, content string) []byte {
	t.Helper()
	return Tar(t, Entry{Header: tar.Header{Name: name}, Content: content})
}

// Noise returns size bytes that no codec makes smaller, the same for the same seed.
func Noise(seed string, size int) []byte {
	b := make([]byte, 0, size+64)
	for d := image.DigestOf([]byte(seed)); len(b) < size; d = image.DigestOf(d[:]) {
		b = append(b, d[:]...)
	}
	return b[:size]
}

// Ref parses a reference.
func Ref(t testing.TB, s string) image.Reference {
	t.Helper()
	ref, err := image.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}
