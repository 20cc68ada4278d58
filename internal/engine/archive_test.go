package engine

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
)

// entriesOf reads a tar. err is io.EOF where the archive has its end, that is where the bytes stop behind two empty blocks.
func entriesOf(b []byte) (names []string, err error) {
	t := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := t.Next()
		if err != nil {
			if end := make([]byte, 1024); err == io.EOF && !bytes.HasSuffix(b, end) {
				err = io.ErrUnexpectedEOF
			}
			return names, err
		}
		names = append(names, h.Name)
	}
}

// TestArchiveEnd: End is called when all is written but the archive's end, and its error is Write's and leaves that out.
func TestArchiveEnd(t *testing.T) {
	layer := strings.Repeat("layer", 300)
	id := image.DigestOf([]byte(layer))
	config := image.StackConfig(image.Platform{OS: "linux", Architecture: "amd64"}, []image.DiffID{id})
	trouble := errors.New("much trouble")
	for _, want := range []error{nil, trouble} {
		var to bytes.Buffer
		called := 0
		a := Archive{
			Config: config,
			Send:   []image.Descriptor{{Digest: id, Size: int64(len(layer))}},
			Open:   func(image.Descriptor) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(layer)), nil },
		}
		manifest := image.SynthesizeManifest(config, a.Send)
		a.Documents = [][]byte{config, manifest}
		a.Root = image.Descriptor{Digest: image.DigestOf(manifest), Size: int64(len(manifest))}
		a.End = func() error {
			called++
			names, err := entriesOf(to.Bytes())
			if err == io.EOF || !slices.Contains(names, layerPath(id.Hex())) || to.Len()%512 != 0 {
				t.Errorf("before the end there are %q, %v", names, err)
			}
			return want
		}
		err := a.Write(&to)
		if !errors.Is(err, want) || (err == nil) != (want == nil) || called != 1 {
			t.Errorf("error %v, want %v, called %d times", err, want, called)
		}
		if _, err := entriesOf(to.Bytes()); (err == io.EOF) != (want == nil) {
			t.Errorf("End says %v: the archive ends with %v", want, err)
		}
	}
	var to bytes.Buffer
	a := Archive{Config: config, Send: []image.Descriptor{{Digest: id, Size: 1}}, End: func() error { t.Error("called"); return nil }}
	a.Open = func(image.Descriptor) (io.ReadCloser, error) { return nil, trouble }
	if err := a.Write(&to); !errors.Is(err, trouble) {
		t.Errorf("error %v", err)
	}
}
