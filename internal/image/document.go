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

// maxHistory bounds the entries of a config's history: layers, and what made none.
const maxHistory = 10 * MaxLayers

// KindOf tells config, manifest and index apart by their top-level keys alone,
// by the table that docs/format.md freezes: `rootfs` makes a config, `layers`
// a manifest, `manifests` an index. None of them, more than one, the same key
// twice, or in other letter case is an error: such a document could mean
// different images to different readers, engines among them.
func KindOf(doc []byte) (Kind, error) {
	keys, err := uniqueKeys(doc, "rootfs", "layers", "manifests")
	if err != nil {
		return UnknownKind, err
	}
	kind := UnknownKind
	for key := range keys {
		k := map[string]Kind{"rootfs": ConfigKind, "layers": ManifestKind, "manifests": IndexKind}[key]
		if kind != UnknownKind {
			return UnknownKind, fmt.Errorf("mixture of a %s and a %s", min(kind, k), max(kind, k))
		}
		kind = k
	}
	if kind == UnknownKind {
		return UnknownKind, errors.New("neither config, manifest nor index")
	}
	return kind, nil
}

// CheckDocument refuses what is no document: neither config, manifest nor index,
// nor a JSON object that cannot be mistaken for one of them, such as the config
// that a manifest of something else than an image has.
func CheckDocument(doc []byte) error {
	keys, err := uniqueKeys(doc, "rootfs", "layers", "manifests")
	if err != nil || len(keys) == 0 {
		return err
	}
	_, err = KindOf(doc)
	return err
}

// uniqueKeys returns the values of those of the names that the JSON object doc
// has as keys. A name that occurs twice or in other letter case is an error:
// decoders do not agree on which value counts.
func uniqueKeys(doc []byte, names ...string) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(doc))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	found := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		key := t.(string) // the decoder lets nothing else be a key
		for _, name := range names {
			if !strings.EqualFold(key, name) {
				continue
			}
			if _, twice := found[name]; twice || key != name {
				return nil, fmt.Errorf("key %q occurs twice or in other letter case", name)
			}
			found[name] = value
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("JSON with something behind it")
	}
	return found, nil
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
		RootFS       struct {
			Type    string          `json:"type"`
			DiffIDs json.RawMessage `json:"diff_ids"`
		} `json:"rootfs"`
		History json.RawMessage `json:"history"`
	}
	if err := json.Unmarshal(doc, &c); err != nil {
		return nil, fmt.Errorf("not an image config: %w", err)
	}
	top, err := uniqueKeys(doc, "rootfs", "os", "architecture", "variant")
	if err == nil {
		_, err = uniqueKeys(top["rootfs"], "type", "diff_ids")
	}
	if err != nil {
		return nil, fmt.Errorf("not an image config: %w", err)
	}
	if c.RootFS.Type != "layers" {
		return nil, fmt.Errorf("rootfs is of type %q, not \"layers\"", clip(c.RootFS.Type))
	}
	diffIDs, err := decodeList(c.RootFS.DiffIDs, MaxLayers, parseDiffID)
	if err != nil {
		return nil, fmt.Errorf("not an image config: diff_ids: %w", err)
	}
	history, err := decodeList(c.History, maxHistory, func(doc json.RawMessage) (h ocispec.History, err error) {
		err = json.Unmarshal(doc, &h)
		return h, err
	})
	if err != nil {
		return nil, fmt.Errorf("not an image config: history: %w", err)
	}
	return &Config{
		Created:  c.Created,
		Platform: Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant, OSVersion: c.OSVersion},
		DiffIDs:  diffIDs,
		History:  history,
		Run:      c.Config,
	}, nil
}

func parseDiffID(doc json.RawMessage) (d DiffID, err error) {
	if err = json.Unmarshal(doc, &d); err == nil && d.IsZero() { // null, too
		err = errors.New("no digest")
	}
	return d, err
}

// decodeList decodes a JSON array, or null, of at most most elements, without
// first making room for as many as a hostile document may have.
func decodeList[T any](doc json.RawMessage, most int, decode func(json.RawMessage) (T, error)) ([]T, error) {
	if len(doc) == 0 || string(doc) == "null" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New("not a list")
	}
	var list []T
	for d.More() {
		if len(list) == most {
			return nil, fmt.Errorf("more than %d", most)
		}
		var element json.RawMessage
		if err := d.Decode(&element); err != nil {
			return nil, err
		}
		v, err := decode(element)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
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

// StackConfig returns the config of an image that is nothing but a stack of
// layers: equal input gives equal bytes. It is not part of the repository format.
func StackConfig(p Platform, diffIDs []DiffID) []byte {
	b, err := json.Marshal(map[string]any{
		"architecture": p.Architecture, "os": p.OS, "variant": p.Variant, "os.version": p.OSVersion,
		"created": time.Unix(0, 0).UTC(),
		"comment": "part of an image that dogestry was pulling",
		"config":  struct{}{},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	if err != nil {
		panic(err) // none of this can fail
	}
	return b
}
