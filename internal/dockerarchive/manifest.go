package dockerarchive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/dogestry/dogestry/internal/image"
)

// manifestFile says what images there are (github.com/moby/docker-image-spec,
// "Combined Image JSON + Filesystem Changeset Format").
const manifestFile = "manifest.json"

// What bounds the images of an archive, and their names together.
const (
	maxImages = 10_000
	maxTags   = 20_000
)

// saved is an image as manifest.json has it.
type saved struct {
	Config   string // name of the file
	RepoTags texts  // null where there are none
	Layers   texts  // names of files, bottom first

	// LayerSources is written by classic image stores alone: there an image's ID is
	// its config's digest, whatever manifest is in the archive.
	LayerSources json.RawMessage `json:",omitempty"`
}

func (s saved) classic() bool {
	return len(s.LayerSources) > 0 && string(s.LayerSources) != "null"
}

// texts is a list of at most maxTags texts: more take many times the memory that
// they take in the document.
type texts []string

func (l *texts) UnmarshalJSON(doc []byte) error {
	d := json.NewDecoder(bytes.NewReader(doc))
	switch t, err := d.Token(); {
	case err != nil:
		return err
	case t == nil: // null
		return nil
	case t != json.Delim('['):
		return errors.New("a list was expected")
	}
	for d.More() {
		if len(*l) == maxTags {
			return fmt.Errorf("a list of more than %d texts", maxTags)
		}
		var s string
		if err := d.Decode(&s); err != nil {
			return err
		}
		*l = append(*l, s)
	}
	return nil
}

// parseManifest reads a manifest.json.
func parseManifest(doc []byte) ([]saved, error) {
	d := json.NewDecoder(bytes.NewReader(doc))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New("it is no list")
	}
	var images []saved
	named := 0
	for d.More() {
		if len(images) == maxImages {
			return nil, fmt.Errorf("more than %d images", maxImages)
		}
		var s saved
		if err := d.Decode(&s); err != nil {
			return nil, err
		}
		switch {
		case s.Config == "":
			return nil, errors.New("an image without a config")
		case len(s.Layers) > image.MaxLayers:
			return nil, fmt.Errorf("an image of more than %d layers", image.MaxLayers)
		}
		if named += len(s.RepoTags); named > maxTags {
			return nil, fmt.Errorf("more than %d names", maxTags)
		}
		images = append(images, s)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something is behind it")
	}
	return images, nil
}
