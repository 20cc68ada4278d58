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
	Root      image.Descriptor // the manifest or index that it is of
	Documents [][]byte         // configs, manifests and indexes, Root's among them
	// Config is that of the docker-archive; nil makes an image layout only, for the
	// containerd image store.
	Config []byte
	// Send holds the layers whose bytes the archive carries, each once, in the
	// order they are wanted. The rest of the layers are named only.
	Send []image.Descriptor
	// Open opens the tar of one of them. Its reader must prove the digest
	// before it hands out the last byte. It is closed before the next is opened.
	Open func(image.Descriptor) (io.ReadCloser, error)
	// End is called before the archive's last bytes are written, and its error is
	// Write's; may be nil. An engine uses nothing of an archive before they come.
	End func() error
}

// layerPath is where a blob lies in the archive.
func layerPath(hex string) string { return "blobs/sha256/" + hex }

// Write writes the archive, which names no tag: the caller tags the image once
// it has made sure that the engine has it. After an error w holds a torn
// archive and must not be ended well.
func (a Archive) Write(w io.Writer) error {
	t := tar.NewWriter(w)
	if err := a.writeDocuments(t); err != nil {
		return err
	}
	for _, l := range a.Send {
		if err := a.writeLayer(t, l); err != nil {
			return err
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if a.End != nil {
		if err := a.End(); err != nil {
			return err
		}
	}
	return t.Close()
}

func (a Archive) writeDocuments(t *tar.Writer) error {
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{{
			MediaType: a.Root.MediaType,
			Digest:    digest.Digest(a.Root.Digest.String()),
			Size:      a.Root.Size,
		}},
	})
	if err != nil {
		return err
	}
	if err := writeFile(t, ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`)); err != nil {
		return err
	}
	if err := writeFile(t, ocispec.ImageIndexFile, index); err != nil {
		return err
	}
	if a.Config != nil {
		names, err := dockerManifest(a.Config)
		if err != nil {
			return err
		}
		if err := writeFile(t, "manifest.json", names); err != nil {
			return err
		}
	}
	for _, doc := range a.Documents {
		if err := writeFile(t, layerPath(image.DigestOf(doc).Hex()), doc); err != nil {
			return err
		}
	}
	return nil
}

// dockerManifest is the manifest.json of a docker-archive.
func dockerManifest(doc []byte) ([]byte, error) {
	config, err := image.ParseConfig(doc)
	if err != nil {
		return nil, err
	}
	layers := make([]string, len(config.DiffIDs)) // not null where there are none
	for i, d := range config.DiffIDs {
		layers[i] = layerPath(d.Hex())
	}
	return json.Marshal([]any{map[string]any{"Config": layerPath(image.DigestOf(doc).Hex()), "RepoTags": nil, "Layers": layers}})
}

func writeFile(t *tar.Writer, name string, content []byte) error {
	if err := t.WriteHeader(header(name, int64(len(content)))); err != nil {
		return err
	}
	_, err := t.Write(content)
	return err
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
