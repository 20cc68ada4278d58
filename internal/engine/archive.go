package engine

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dogestry/dogestry/internal/image"
)

// Archive is an image as it is sent to an engine: an OCI image layout
// (image-spec, image-layout.md) that is a docker-archive at the same time. It
// is the one form that classic and containerd image stores both take with
// layers left out (docs/decisions/0004-hybrid-archive.md).
type Archive struct {
	Config   []byte
	Manifest []byte
	// Send holds the layers whose bytes the archive carries, each once, in the
	// order they are wanted. The rest of the config's layers are named only.
	Send []image.Descriptor
	// Open opens the tar of one of them. Its reader must prove the digest
	// before it hands out the last byte. It is closed before the next is opened.
	Open func(image.Descriptor) (io.ReadCloser, error)
}

// layerPath is where a blob lies in the archive.
func layerPath(hex string) string { return "blobs/sha256/" + hex }

// Write writes the archive, which names no tag: the caller tags the image once
// it has made sure that the engine has it. After an error w holds a torn
// archive and must not be ended well.
func (a Archive) Write(w io.Writer) error {
	config, err := image.ParseConfig(a.Config)
	if err != nil {
		return err
	}
	id := image.DigestOf(a.Config)
	layers := make([]string, len(config.DiffIDs)) // not null where there are none
	for i, d := range config.DiffIDs {
		layers[i] = layerPath(d.Hex())
	}
	names, err := json.Marshal([]any{map[string]any{"Config": layerPath(id.Hex()), "RepoTags": nil, "Layers": layers}})
	if err != nil {
		return err
	}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{{
			MediaType: ocispec.MediaTypeImageManifest,
			Digest:    digest.Digest(image.DigestOf(a.Manifest).String()),
			Size:      int64(len(a.Manifest)),
		}},
	})
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	for _, f := range []struct {
		name    string
		content []byte
	}{
		{ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`)},
		{ocispec.ImageIndexFile, index},
		{"manifest.json", names},
		{layerPath(id.Hex()), a.Config},
		{layerPath(image.DigestOf(a.Manifest).Hex()), a.Manifest},
	} {
		if err := t.WriteHeader(header(f.name, int64(len(f.content)))); err != nil {
			return err
		}
		if _, err := t.Write(f.content); err != nil {
			return err
		}
	}
	for _, l := range a.Send {
		if err := a.writeLayer(t, l); err != nil {
			return err
		}
	}
	return t.Close()
}

func (a Archive) writeLayer(t *tar.Writer, l image.Descriptor) error {
	r, err := a.Open(l)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := t.WriteHeader(header(layerPath(l.Digest.Hex()), l.Size)); err != nil {
		return err
	}
	n, err := io.CopyBuffer(onlyWriter{t}, r, make([]byte, 256<<10))
	if err != nil {
		return err
	}
	if n != l.Size {
		return fmt.Errorf("layer %s gave %d of %d bytes", l.Digest.Short(), n, l.Size)
	}
	return nil
}

func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatPAX}
}

// onlyWriter hides tar.Writer's ReadFrom, which copies in small pieces.
type onlyWriter struct{ io.Writer }
