package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Descriptor is a digest and the size in bytes of what has it (OCI image-spec,
// descriptor.md).
type Descriptor struct {
	MediaType string `json:"mediaType,omitempty"` // empty for the plain tar of a layer
	Digest    Digest `json:"digest"`
	Size      int64  `json:"size"`
}

// UnknownMediaType is that of bytes of which nobody has said what they are, such as
// those that come to a registry before the manifest that names them (RFC 2046, section 4.5.1).
const UnknownMediaType = "application/octet-stream"

// The media types of layers' tars: OCI's and those of Docker's schema 2, also of
// layers that were not to be distributed. What follows them names a compression
// ("+gzip", ".gzip", "+zstd", …).
var tarTypes = []string{
	ocispec.MediaTypeImageLayer,
	"application/vnd.docker.image.rootfs.diff.tar",
	"application/vnd.oci.image.layer.nondistributable.v1.tar",
	"application/vnd.docker.image.rootfs.foreign.diff.tar",
}

// Tar reports whether d is a layer's tar, and if so, whether it is compressed.
func (d Descriptor) Tar() (tar, compressed bool) {
	if d.MediaType == "" {
		return true, false
	}
	for _, t := range tarTypes {
		if rest, ok := strings.CutPrefix(d.MediaType, t); ok {
			return true, rest != ""
		}
	}
	return false, false
}

// MediaTypeOf returns the media type that a manifest or index says it has, else
// fallback.
func MediaTypeOf(doc []byte, fallback string) string {
	var m struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(doc, &m) != nil || m.MediaType == "" {
		return fallback
	}
	return m.MediaType
}

// SynthesizeManifest returns the manifest of an image of which only the config
// is known, by the rules that docs/format.md freezes: an OCI manifest without
// white space, plain-tar layers, keys in the order of the specification. Equal
// input gives equal bytes on every machine, hence the same digest.
func SynthesizeManifest(config []byte, layers []Descriptor) []byte {
	plain := make([]Descriptor, len(layers))
	for i, l := range layers {
		plain[i] = Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: l.Digest, Size: l.Size}
	}
	return StackManifest(config, plain)
}

// StackManifest returns the manifest of a config and layers with media types.
// Equal input gives equal bytes.
func StackManifest(config []byte, layers []Descriptor) []byte {
	b := []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":`)
	b = appendDescriptor(b, ocispec.MediaTypeImageConfig, Descriptor{Digest: DigestOf(config), Size: int64(len(config))})
	b = append(b, `,"layers":[`...)
	for i, l := range layers {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendDescriptor(b, l.MediaType, l)
	}
	return append(b, `]}`...)
}

func appendDescriptor(b []byte, mediaType string, d Descriptor) []byte {
	quoted, err := json.Marshal(mediaType)
	if err != nil {
		panic(err) // a string is always JSON
	}
	return fmt.Appendf(b, `{"mediaType":%s,"digest":"%s","size":%d}`, quoted, d.Digest, d.Size)
}

// Manifest is what dogestry needs to know of an image manifest.
type Manifest struct {
	Config Descriptor
	Layers []Descriptor // bottom first
}

// ParseManifest reads a manifest of at most MaxLayers layers.
func ParseManifest(doc []byte) (*Manifest, error) {
	kind, err := KindOf(doc)
	if err == nil {
		_, err = uniqueKeys(doc, "config")
	}
	if err != nil {
		return nil, err
	}
	if kind != ManifestKind {
		return nil, fmt.Errorf("a %s, not a manifest", kind)
	}
	var m struct {
		Config json.RawMessage `json:"config"`
		Layers json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(doc, &m); err != nil {
		return nil, fmt.Errorf("not an image manifest: %w", err)
	}
	config, err := ParseDescriptor(m.Config)
	if err != nil {
		return nil, fmt.Errorf("not an image manifest: config: %w", err)
	}
	layers, err := decodeList(m.Layers, MaxLayers, ParseDescriptor)
	if err != nil {
		return nil, fmt.Errorf("not an image manifest: layers: %w", err)
	}
	return &Manifest{Config: config, Layers: layers}, nil
}

// ParseDescriptor reads a descriptor (OCI image-spec, descriptor.md). One without
// a sha256 or a size is an error, and so is one that decoders could read in two ways.
func ParseDescriptor(doc json.RawMessage) (Descriptor, error) {
	keys, err := uniqueKeys(doc, "digest", "size", "mediaType")
	if err != nil {
		return Descriptor{}, fmt.Errorf("descriptor: %w", err)
	}
	var d Descriptor
	if err := json.Unmarshal(doc, &d); err != nil {
		return Descriptor{}, err
	}
	if d.Digest.IsZero() || d.Size < 0 || len(keys["size"]) == 0 || string(keys["size"]) == "null" {
		return Descriptor{}, errors.New("descriptor without digest or size")
	}
	return d, nil
}

// MaxManifests bounds the manifests that an index names.
const MaxManifests = 1000

// Index is what dogestry needs to know of an image index.
type Index struct {
	Manifests []Child
}

// Child is a manifest that an index names.
type Child struct {
	Descriptor
	Platform Platform // zero where the index does not say
	Attests  Digest   // of an attestation: the manifest that it is about; else zero
}

// What BuildKit writes beside an attestation manifest
// (https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md).
const (
	annotationType    = "vnd.docker.reference.type"
	annotationDigest  = "vnd.docker.reference.digest"
	attestationOfType = "attestation-manifest"
)

// ParseIndex reads an index of at most MaxManifests manifests.
func ParseIndex(doc []byte) (*Index, error) {
	kind, err := KindOf(doc)
	if err != nil {
		return nil, err
	}
	if kind != IndexKind {
		return nil, fmt.Errorf("a %s, not an index", kind)
	}
	var x struct {
		Manifests json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(doc, &x); err != nil {
		return nil, fmt.Errorf("not an image index: %w", err)
	}
	children, err := decodeList(x.Manifests, MaxManifests, parseChild)
	if err != nil {
		return nil, fmt.Errorf("not an image index: %w", err)
	}
	return &Index{Manifests: children}, nil
}

func parseChild(doc json.RawMessage) (Child, error) {
	d, err := ParseDescriptor(doc)
	if err == nil {
		_, err = uniqueKeys(doc, "platform", "annotations")
	}
	if err != nil {
		return Child{}, err
	}
	var more struct {
		Platform    Platform          `json:"platform"`
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(doc, &more); err != nil {
		return Child{}, err
	}
	c := Child{Descriptor: d, Platform: more.Platform}
	if more.Annotations[annotationType] == attestationOfType {
		if c.Attests, err = ParseDigest(more.Annotations[annotationDigest]); err != nil {
			return Child{}, fmt.Errorf("attestation: %w", err)
		}
	}
	return c, nil
}
