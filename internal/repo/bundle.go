package repo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// maxBundleList bounds the list of a bundle, in bytes: some 60,000 layers and
// documents, which is what a lease has room for.
const maxBundleList = 16 << 20

// perComma is how many bytes of a list there are at least for each comma, a digest
// being one of 70. It keeps what is read of it from being much larger than it is.
const perComma = 16

// WriteBundleList writes what a bundle says of itself, as one line of JSON.
func WriteBundleList(w io.Writer, b *remote.Bundle) error {
	content, err := encodeBundle(b)
	if err == nil {
		_, err = w.Write(content)
	}
	return err
}

func encodeBundle(b *remote.Bundle) ([]byte, error) {
	listed := *b // lists are never null
	listed.Version = remote.BundleVersion
	listed.Tags = append([]remote.BundleTag{}, b.Tags...)
	listed.Documents = append([]image.Digest{}, b.Documents...)
	listed.Layers = append([]remote.BundleLayer{}, b.Layers...)
	listed.Without = append([]image.Digest{}, b.Without...)
	content, err := json.Marshal(listed)
	if err == nil && len(content) >= maxBundleList {
		err = fmt.Errorf("a list of %d bytes is too long for a bundle: export fewer images at a time", len(content))
	}
	return append(content, '\n'), err
}

// ReadBundleList reads the list of a bundle: from a bundle itself, of which no
// more is read, or from what WriteBundleList wrote. Name is the file's, for messages.
func ReadBundleList(r io.Reader, name string) (*remote.Bundle, error) {
	head := make([]byte, 1)
	n, err := io.ReadFull(r, head)
	if n == 1 && head[0] == '{' {
		return parseBundle(io.MultiReader(bytes.NewReader(head), r), name)
	}
	if err != nil && err != io.EOF {
		return nil, fault.Wrap(fault.Other, err, "cannot read %s", name)
	}
	b, err := OpenBundle(io.MultiReader(bytes.NewReader(head[:n]), r), name)
	if err != nil {
		return nil, err
	}
	return b.Bundle(), nil
}

// parseBundle reads a list to its end.
func parseBundle(r io.Reader, name string) (*remote.Bundle, error) {
	content, err := io.ReadAll(io.LimitReader(r, maxBundleList+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxBundleList {
		return nil, wrongList(name, errors.New("it is too long"))
	}
	if most := 64 + len(content)/perComma; bytes.Count(content, []byte{','}) > most {
		return nil, wrongList(name, errors.New("it names too much that is nothing"))
	}
	var version struct {
		Version int `json:"bundle"`
	}
	if err := json.Unmarshal(content, &version); err != nil {
		return nil, wrongList(name, err)
	}
	if version.Version > remote.BundleVersion {
		return nil, fault.New(fault.Refused, "%s is a bundle of version %d; this dogestry knows %d", name, version.Version, remote.BundleVersion).
			Advise("Use a newer dogestry.")
	}
	b := new(remote.Bundle)
	if err := json.Unmarshal(content, b); err != nil {
		return nil, wrongList(name, err)
	}
	if err := checkBundle(b); err != nil {
		return nil, wrongList(name, err)
	}
	return b, nil
}

// checkBundle refuses a list that makes no sense.
func checkBundle(b *remote.Bundle) error {
	if b.Version < 1 {
		return errors.New("it has no version")
	}
	named := map[image.Reference]bool{}
	for _, t := range b.Tags {
		if t.Image.Tag == "" || !t.Image.Digest.IsZero() || t.ID.IsZero() || named[t.Image] {
			return fmt.Errorf("the tag %q is none, or is there twice", t.Image.String())
		}
		named[t.Image] = true
	}
	if nothing := (image.Digest{}); slices.Contains(b.Documents, nothing) || slices.Contains(b.Without, nothing) {
		return errors.New("a digest is none")
	}
	seen := map[image.Digest]bool{}
	for _, l := range b.Layers {
		if l.ID.IsZero() || seen[l.ID] || l.Size < 0 || l.Stored < 0 {
			return fmt.Errorf("the layer %s is none, or is there twice", l.ID.Short())
		}
		seen[l.ID] = true
	}
	return nil
}

func wrongList(name string, cause error) error {
	return fault.Wrap(fault.Damaged, cause, "the list of the bundle %s is wrong", name).
		Advise("Copy the bundle again, or export it again.")
}
