package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// About is what a manifest or index says of itself, beside what it is made of
// (OCI image-spec, manifest.md and image-index.md; distribution-spec, "Listing Referrers").
type About struct {
	Kind         Kind
	MediaType    string            // empty where it does not say
	ArtifactType string            // as referrers are listed with it: of a manifest that does not say its config's media type
	Subject      Descriptor        // what it refers to; zero where that is nothing
	Annotations  map[string]string // nil where there are none
}

// MaxAnnotations bounds the annotations of a manifest or index.
const MaxAnnotations = 1000

// ParseAbout reads a manifest or an index. What decoders could read in two ways is
// an error, and so is a subject without a sha256 or a size.
func ParseAbout(doc []byte) (*About, error) {
	kind, err := KindOf(doc)
	if err != nil {
		return nil, err
	}
	if kind != ManifestKind && kind != IndexKind {
		return nil, fmt.Errorf("a %s, neither manifest nor index", kind)
	}
	keys, err := uniqueKeys(doc, "mediaType", "artifactType", "config", "subject", "annotations")
	if err != nil {
		return nil, err
	}
	a := &About{Kind: kind}
	for name, to := range map[string]*string{"mediaType": &a.MediaType, "artifactType": &a.ArtifactType} {
		if value, ok := keys[name]; ok {
			if err := json.Unmarshal(value, to); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if a.ArtifactType == "" && kind == ManifestKind {
		config, err := ParseDescriptor(keys["config"])
		if err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
		a.ArtifactType = config.MediaType
	}
	if subject, ok := keys["subject"]; ok && string(subject) != "null" {
		if a.Subject, err = ParseDescriptor(subject); err != nil {
			return nil, fmt.Errorf("subject: %w", err)
		}
	}
	if a.Annotations, err = parseAnnotations(keys["annotations"]); err != nil {
		return nil, fmt.Errorf("annotations: %w", err)
	}
	return a, nil
}

// parseAnnotations reads an object of texts, or null.
func parseAnnotations(doc json.RawMessage) (map[string]string, error) {
	if len(doc) == 0 || string(doc) == "null" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not an object")
	}
	var annotations map[string]string
	for d.More() {
		if len(annotations) == MaxAnnotations {
			return nil, fmt.Errorf("more than %d", MaxAnnotations)
		}
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, value := t.(string), "" // the decoder lets nothing else be a key
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		if _, twice := annotations[key]; twice {
			return nil, fmt.Errorf("%q occurs twice", clip(key))
		}
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[key] = value
	}
	return annotations, nil
}
