package remotetest

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Artifact is a small manifest of something else than an image, such as a
// signature or an SBOM: an empty config and one layer that is no tar.
type Artifact struct {
	ID       image.Digest // of Manifest
	Manifest []byte
	Layer    []byte
}

// EmptyConfig is the config of an Artifact.
var EmptyConfig = []byte("{}")

// NewArtifact returns one that refers to a manifest or index, where subject is not nil.
func NewArtifact(t testing.TB, name string, subject []byte) Artifact {
	t.Helper()
	a := Artifact{Layer: fmt.Appendf(nil, `{"of":%q}`, name)}
	refers := ""
	if subject != nil {
		refers = fmt.Sprintf(`,"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d}`, image.DigestOf(subject), len(subject))
	}
	a.Manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.example+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.example+json","digest":%q,"size":%d}]%s}`,
		image.DigestOf(EmptyConfig), len(EmptyConfig), image.DigestOf(a.Layer), len(a.Layer), refers)
	a.ID = image.DigestOf(a.Manifest)
	return a
}

// Closure returns what it needs.
func (a Artifact) Closure() remote.Closure {
	return remote.Closure{Documents: []image.Digest{a.ID, image.DigestOf(EmptyConfig)}, Layers: []image.Digest{image.DigestOf(a.Layer)}}
}

// Put writes it as a registry would: in a session, of which it is left to the caller
// to Begin it. Nobody is told to which repository it belongs.
func (a Artifact) Put(ctx context.Context, to remote.Target) error {
	d := image.Descriptor{MediaType: "application/vnd.example+json", Digest: image.DigestOf(a.Layer), Size: int64(len(a.Layer))}
	if _, err := to.PutLayer(ctx, d, bytes.NewReader(a.Layer)); err != nil {
		return err
	}
	for _, doc := range [][]byte{EmptyConfig, a.Manifest} {
		if err := to.PutDocument(ctx, doc); err != nil {
			return err
		}
	}
	return nil
}

// Attach puts it into a repository, in a session of its own.
func (a Artifact) Attach(ctx context.Context, to remote.Target, repository string) error {
	to, end := remote.Begin(to, nil)
	defer end(ctx)
	if _, _, err := to.Missing(ctx, a.Closure()); err != nil {
		return err
	}
	if err := a.Put(ctx, to); err != nil {
		return err
	}
	members, ok := to.(remote.Memberships)
	if !ok {
		return fmt.Errorf("a %T knows no memberships", to)
	}
	return members.Add(ctx, repository, a.ID)
}
