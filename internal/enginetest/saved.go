package enginetest

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
)

// Saved is one image as an archive holds it.
type Saved struct {
	Config []byte
	Tags   []string
	// Layers are the digests of the layer files as they are in the archive ("sha256:…"), from the bottom up: diffIDs,
	// where they are not compressed.
	Layers []string
	// Sizes are the lengths of those files, in bytes.
	Sizes []int64
}

// ID is the digest of the config.
func (s Saved) ID() string {
	sum := sha256.Sum256(s.Config)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Check tells how the saved image differs from the one that was made, or nil.
func (s Saved) Check(m *Image) error {
	if s.ID() != m.ID() {
		return fmt.Errorf("config differs: saved\n%s\nmade\n%s", s.Config, m.Config())
	}
	want := m.DiffIDs()
	if len(s.Layers) != len(want) {
		return fmt.Errorf("%d layers saved, %d made", len(s.Layers), len(want))
	}
	for i := range want {
		if s.Layers[i] != want[i] {
			return fmt.Errorf("layer %d: saved bytes are %s, made were %s", i, s.Layers[i], want[i])
		}
	}
	return nil
}

// ReadSaved reads what `docker save` wrote, to its end, and hashes every file; of the layers nothing is held. It trusts no
// name: a digest is always that of the bytes.
func ReadSaved(r io.Reader) ([]Saved, error) {
	const document = 4 << 20 // a shorter file without a suffix may be a config, and is held
	type file struct {
		digest string
		size   int64
		held   []byte
	}
	files := map[string]file{}
	links := map[string]string{}
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeSymlink:
			links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			links[name] = path.Clean(h.Linkname)
		case tar.TypeReg:
			f := file{size: h.Size}
			sum := sha256.New()
			if path.Ext(name) == ".json" || h.Size < document && path.Ext(name) == "" {
				if f.held, err = io.ReadAll(io.TeeReader(t, sum)); err != nil {
					return nil, err
				}
			} else if _, err := io.Copy(sum, t); err != nil {
				return nil, err
			}
			f.digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
			files[name] = f
		}
	}
	find := func(name string) (file, error) {
		name = path.Clean(name)
		for range 10 { // links may lead to links, but not for ever
			if f, ok := files[name]; ok {
				return f, nil
			}
			name = links[name]
		}
		return file{}, fmt.Errorf("the archive has no file %s", name)
	}
	index, err := find("manifest.json")
	if err != nil {
		return nil, err
	}
	var manifests []archiveManifest
	if err := json.Unmarshal(index.held, &manifests); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	var all []Saved
	for _, m := range manifests {
		config, err := find(m.Config)
		if err != nil {
			return nil, err
		}
		s := Saved{Config: config.held, Tags: m.RepoTags}
		for _, name := range m.Layers {
			l, err := find(name)
			if err != nil {
				return nil, err
			}
			s.Layers, s.Sizes = append(s.Layers, l.digest), append(s.Sizes, l.size)
		}
		all = append(all, s)
	}
	return all, nil
}

// Saved saves ref and reads what comes.
func (e *Engine) Saved(ctx context.Context, ref string) (Saved, error) {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(e.Save(ctx, w, ref))
	}()
	all, err := ReadSaved(r)
	if err == nil {
		_, err = io.Copy(io.Discard, r) // how the command ended
	}
	_ = r.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // after an error the command writes into nothing, and ends
	<-done
	if err != nil {
		return Saved{}, fmt.Errorf("save %s: %w", ref, err)
	}
	if len(all) != 1 {
		return Saved{}, fmt.Errorf("save %s: %d images", ref, len(all))
	}
	return all[0], nil
}
