package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Kind tells what a document is.
type Kind int

// The kinds of documents.
const (
	UnknownKind  Kind = iota
	ConfigKind        // OCI image-spec config.md, and Docker's image JSON
	ManifestKind      // OCI image-spec manifest.md, and Docker's schema 2
	IndexKind         // OCI image-spec image-index.md, and Docker's manifest list
)

func (k Kind) String() string {
	return [...]string{"unknown document", "config", "manifest", "index"}[k]
}

// MaxLayers bounds the layers of an image. Engines stop at 128 or less.
const MaxLayers = 1000

// maxHistory bounds the entries of a config's history: layers and what made none.
const maxHistory = 10 * MaxLayers

// KindOf tells config, manifest and index apart by their top-level keys alone,
// by the table that docs/format.md freezes: `rootfs` makes a config, `layers`
// a manifest, `manifests` an index. None of them, more than one, the same key
// twice, or one in other case (some readers do not mind case) is an error: a
// mixture could mean different images to different readers.
func KindOf(doc []byte) (Kind, error) {
	kind := UnknownKind
	err := eachKey(doc, func(key string) error {
		k, err := kindOfKey(key)
		switch {
		case err != nil:
			return err
		case k == UnknownKind:
			return nil
		case kind != UnknownKind:
			return fmt.Errorf("mixture of a %s and a %s", kind, k)
		}
		kind = k
		return nil
	})
	if err != nil {
		return UnknownKind, err
	}
	if kind == UnknownKind {
		return UnknownKind, errors.New("neither config, manifest nor index")
	}
	return kind, nil
}

func kindOfKey(key string) (Kind, error) {
	for name, kind := range map[string]Kind{"rootfs": ConfigKind, "layers": ManifestKind, "manifests": IndexKind} {
		if key == name {
			return kind, nil
		}
		if strings.EqualFold(key, name) {
			return UnknownKind, fmt.Errorf("key %q: %w", key, errCase)
		}
	}
	return UnknownKind, nil
}

var errCase = errors.New("it is told from another by case alone")

// eachKey calls f with every key of a JSON object, in order, and fails where doc
// is anything but one.
func eachKey(doc []byte, f func(key string) error) error {
	d := json.NewDecoder(bytes.NewReader(doc))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		var skip json.RawMessage
		if err := d.Decode(&skip); err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		if err := f(key.(string)); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("JSON with something behind it")
	}
	return nil
}

// decodeObject is json.Unmarshal for an object whose keys names must be there
// once at most, and not in other case: readers differ in which one they take.
func decodeObject(doc []byte, v any, names ...string) error {
	seen := map[string]bool{}
	err := eachKey(doc, func(key string) error {
		for _, name := range names {
			if key != name && strings.EqualFold(key, name) {
				return fmt.Errorf("key %q: %w", key, errCase)
			}
		}
		if seen[key] && slices.Contains(names, key) {
			return fmt.Errorf("key %q is there twice", key)
		}
		seen[key] = true
		return nil
	})
	if err != nil {
		return err
	}
	return json.Unmarshal(doc, v)
}

// decodeList decodes an array of at most most elements (none for null, and for
// no bytes at all), without first making room for all that a hostile one has.
func decodeList[T any](doc json.RawMessage, most int, what string, decode func(json.RawMessage, *T) error) ([]T, error) {
	if len(doc) == 0 || string(doc) == "null" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, fmt.Errorf("%s is not a list", what)
	}
	var list []T
	for d.More() {
		if len(list) == most {
			return nil, fmt.Errorf("%s has more than %d elements", what, most)
		}
		var element json.RawMessage
		if err := d.Decode(&element); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		var v T
		if err := decode(element, &v); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		list = append(list, v)
	}
	return list, nil
}

// Config is what dogestry needs to know of an image config (OCI image-spec config.md).
type Config struct {
	Created  *time.Time
	Platform Platform
	DiffIDs  []DiffID // bottom first; the same one may occur again
	History  []ocispec.History
	Run      ocispec.ImageConfig // entry point, environment, …
}

// ParseConfig reads a config of at most MaxLayers layers.
func ParseConfig(doc []byte) (*Config, error) {
	kind, err := KindOf(doc)
	if err != nil {
		return nil, err
	}
	if kind != ConfigKind {
		return nil, fmt.Errorf("a %s, not a config", kind)
	}
	var c struct {
		Created      *time.Time          `json:"created"`
		Architecture string              `json:"architecture"`
		OS           string              `json:"os"`
		Variant      string              `json:"variant"`
		OSVersion    string              `json:"os.version"`
		Config       ocispec.ImageConfig `json:"config"`
		RootFS       json.RawMessage     `json:"rootfs"`
		History      json.RawMessage     `json:"history"`
	}
	err = decodeObject(doc, &c, "created", "architecture", "os", "variant", "os.version", "config", "rootfs", "history")
	if err != nil {
		return nil, fmt.Errorf("not an image config: %w", err)
	}
	diffIDs, err := parseRootFS(c.RootFS)
	if err != nil {
		return nil, fmt.Errorf("not an image config: %w", err)
	}
	history, err := decodeList(c.History, maxHistory, "history", func(doc json.RawMessage, h *ocispec.History) error {
		return json.Unmarshal(doc, h)
	})
	if err != nil {
		return nil, fmt.Errorf("not an image config: %w", err)
	}
	return &Config{
		Created:  c.Created,
		Platform: Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant, OSVersion: c.OSVersion},
		DiffIDs:  diffIDs,
		History:  history,
		Run:      c.Config,
	}, nil
}

func parseRootFS(doc json.RawMessage) ([]DiffID, error) {
	var r struct {
		Type    string          `json:"type"`
		DiffIDs json.RawMessage `json:"diff_ids"`
	}
	if err := decodeObject(doc, &r, "type", "diff_ids"); err != nil {
		return nil, fmt.Errorf("rootfs: %w", err)
	}
	if r.Type != "layers" {
		return nil, fmt.Errorf("rootfs is of type %q, not \"layers\"", clip(r.Type))
	}
	return decodeList(r.DiffIDs, MaxLayers, "diff_ids", func(doc json.RawMessage, d *DiffID) error {
		if err := json.Unmarshal(doc, d); err != nil {
			return err
		}
		if d.IsZero() { // null, too
			return errors.New("no digest")
		}
		return nil
	})
}

// Platform is what an image runs on (OCI image-spec image-index.md, "platform").
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
	OSVersion    string `json:"os.version,omitempty"`
}

// String returns "os/architecture" or "os/architecture/variant".
func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// Descriptor is a digest and its size in bytes. Of a layer: of the decoded tar.
type Descriptor struct {
	Digest Digest `json:"digest"`
	Size   int64  `json:"size"`
}

// SynthesizeManifest returns the manifest of an image of which only the config
// is known, by the rules that docs/format.md freezes: an OCI manifest without
// white space, plain-tar layers, keys in the order of the specification. Equal
// input gives equal bytes on every machine, hence the same digest.
func SynthesizeManifest(config []byte, layers []Descriptor) []byte {
	b := []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":`)
	b = appendDescriptor(b, ocispec.MediaTypeImageConfig, Descriptor{DigestOf(config), int64(len(config))})
	b = append(b, `,"layers":[`...)
	for i, l := range layers {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendDescriptor(b, ocispec.MediaTypeImageLayer, l)
	}
	return append(b, `]}`...)
}

func appendDescriptor(b []byte, mediaType string, d Descriptor) []byte {
	return fmt.Appendf(b, `{"mediaType":"%s","digest":"%s","size":%d}`, mediaType, d.Digest, d.Size)
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
	if err := decodeObject(doc, &m, "config", "layers"); err != nil {
		return nil, fmt.Errorf("not an image manifest: %w", err)
	}
	var parsed Manifest
	if err := parseDescriptor(m.Config, &parsed.Config); err != nil {
		return nil, fmt.Errorf("not an image manifest: config: %w", err)
	}
	if parsed.Layers, err = decodeList(m.Layers, MaxLayers, "layers", parseDescriptor); err != nil {
		return nil, fmt.Errorf("not an image manifest: %w", err)
	}
	return &parsed, nil
}

func parseDescriptor(doc json.RawMessage, into *Descriptor) error {
	var d struct {
		Digest Digest `json:"digest"`
		Size   *int64 `json:"size"`
	}
	if err := decodeObject(doc, &d, "digest", "size"); err != nil {
		return fmt.Errorf("descriptor: %w", err)
	}
	if d.Digest.IsZero() || d.Size == nil || *d.Size < 0 {
		return errors.New("descriptor without digest or size")
	}
	*into = Descriptor{Digest: d.Digest, Size: *d.Size}
	return nil
}
