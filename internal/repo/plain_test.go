package repo_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/storage"
)

// plain reads a repository as docs/format.md says. It shares nothing with
// package repo, so that what the one takes for whole the other may not.
type plain struct{ store storage.Store }

var hexID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// check returns the content of every tag by its key, and an error unless all of
// them reach whole images, and the root marker was there before them.
func (p plain) check() (map[string]string, error) {
	tags := map[string]string{}
	var bad []error
	for info, err := range p.store.List(context.Background(), "repositories/") {
		if err != nil {
			return nil, err
		}
		content, err := p.get(info.Key)
		if err != nil {
			return nil, err
		}
		tags[info.Key] = string(content)
		if err := p.image(string(content)); err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", info.Key, err))
		}
	}
	if marker, err := p.get("VERSION"); len(tags) > 0 && string(marker) != "2.0" {
		bad = append(bad, fmt.Errorf("tags, and the root marker is %q: %w", marker, err))
	}
	return tags, errors.Join(bad...)
}

func (p plain) get(key string) ([]byte, error) {
	r, err := p.store.Get(context.Background(), key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// document returns a json that is what its name says.
func (p plain) document(id string) ([]byte, error) {
	if !hexID.MatchString(id) {
		return nil, fmt.Errorf("%q is no id", id)
	}
	doc, err := p.get("images/" + id + "/json")
	if err != nil {
		return nil, err
	}
	if digest(doc) != id {
		return nil, fmt.Errorf("images/%s/json is not what its name says", id)
	}
	return doc, nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// image proves that an image is whole: its config, its layers, its manifest.
func (p plain) image(id string) error {
	doc, err := p.document(id)
	if err != nil {
		return err
	}
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(doc, &config); err != nil {
		return err
	}
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":`+
		`{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%d},"layers":[`, id, len(doc))
	for i, diffID := range config.RootFS.DiffIDs {
		size, err := p.layer(strings.TrimPrefix(diffID, "sha256:"))
		if err != nil {
			return err
		}
		if i > 0 {
			manifest += ","
		}
		manifest += fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":%d}`, diffID, size)
	}
	manifest += "]}"
	pointer, err := p.get("images/" + id + "/manifest")
	if err != nil {
		return err
	}
	if string(pointer) != digest([]byte(manifest)) {
		return fmt.Errorf("images/%s/manifest is %q, not %s", id, pointer, digest([]byte(manifest)))
	}
	_, err = p.document(string(pointer))
	return err
}

// layer proves a layer's file, the one that a reader takes, and returns the decoded size.
func (p plain) layer(id string) (int, error) {
	content, err := p.get("images/" + id + "/json")
	if err != nil {
		return 0, err
	}
	var m struct {
		DiffID string `json:"diffID"`
		Size   int    `json:"size"`
		File   string `json:"file"`
	}
	if digest(content) == id {
		m.DiffID, m.Size = "sha256:"+id, len(content)
	} else if err := json.Unmarshal(content, &m); err != nil {
		return 0, err
	}
	if m.DiffID != "sha256:"+id {
		return 0, fmt.Errorf("images/%s/json is about %s", id, m.DiffID)
	}
	found := false
	for name, c := range map[string]codec.Codec{"layer.tar.lz4": codec.LZ4, "layer.tar.zst": codec.Zstd, "layer.tar": codec.None} {
		stored, err := p.get("images/" + id + "/" + name)
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		if err != nil {
			return 0, err
		}
		r := c.Decode(bytes.NewReader(stored))
		tar, err := io.ReadAll(r)
		err = errors.Join(err, r.Close())
		if name != m.File && m.File != "" {
			continue // no reader takes it; what a torn copy left, perhaps
		}
		if err != nil || digest(tar) != id || len(tar) != m.Size {
			return 0, fmt.Errorf("images/%s/%s has %d bytes of %s: %w", id, name, len(tar), digest(tar), err)
		}
		found = found || m.File == "" || m.File == name
	}
	if !found {
		return 0, fmt.Errorf("layer %s has no file", id)
	}
	return m.Size, nil
}

// order returns an error where a key is there before one that the write order
// of docs/format.md has before it: W1, W3, W9.
func (p plain) order() error {
	there := map[string]bool{}
	for info, err := range p.store.List(context.Background(), "") {
		if err != nil {
			return err
		}
		there[info.Key] = true
	}
	var bad []error
	for key := range there {
		parts := strings.Split(key, "/")
		switch {
		case parts[0] == "repositories" && !there["VERSION"]:
			bad = append(bad, fmt.Errorf("W9: %s is there, and no root marker", key))
		case parts[0] != "images" || len(parts) != 3:
		case parts[2] == "manifest":
			id, err := p.get(key)
			if _, docErr := p.document(string(id)); err != nil || docErr != nil {
				bad = append(bad, fmt.Errorf("W3: %s is there, and its manifest is not: %w", key, errors.Join(err, docErr)))
			}
		case parts[2] == "json":
			if !there["images/"+parts[1]+"/VERSION"] {
				bad = append(bad, fmt.Errorf("W1: %s is there, and no VERSION", key))
			}
			if _, err := p.document(parts[1]); err == nil {
				continue
			}
			if _, err := p.layer(parts[1]); err != nil {
				bad = append(bad, fmt.Errorf("W1: %s is there, and its file is not: %w", key, err))
			}
		}
	}
	return errors.Join(bad...)
}
