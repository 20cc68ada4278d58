package enginetest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"
)

// created is the one time in crafted images: they are the same bytes on every day.
var created = time.Date(2015, time.March, 14, 9, 26, 53, 0, time.UTC)

// Image is an image that is made rather than built: its bytes are known before any engine sees them, and the same on
// every run. The methods that add to it return it, for chaining, and must not run beside any other.
type Image struct {
	layers  []*Layer
	history []history
	tags    []string
	command []string
	edit    func(config []byte) []byte
}

type history struct {
	Created    time.Time `json:"created"`
	CreatedBy  string    `json:"created_by"`
	EmptyLayer bool      `json:"empty_layer,omitempty"`
}

// NewImage starts an image of no layers and no tags for the architecture of this machine.
func NewImage() *Image { return &Image{} }

// Layer adds a layer of entries on top.
func (m *Image) Layer(entries ...Entry) *Image { return m.Add(NewLayer(entries...)) }

// Add adds layers on top; a layer may occur more than once, and in several images.
func (m *Image) Add(layers ...*Layer) *Image {
	for _, l := range layers {
		m.layers = append(m.layers, l)
		m.history = append(m.history, history{Created: created, CreatedBy: fmt.Sprintf("enginetest layer %d", len(m.layers))})
	}
	return m
}

// Step adds a line of history that made no layer, as ENV in a Dockerfile does.
func (m *Image) Step(createdBy string) *Image {
	m.history = append(m.history, history{Created: created, CreatedBy: createdBy, EmptyLayer: true})
	return m
}

// Tag adds names, each with its tag.
func (m *Image) Tag(refs ...string) *Image {
	m.tags = append(m.tags, refs...)
	return m
}

// Entrypoint sets the command that the image runs.
func (m *Image) Entrypoint(command ...string) *Image {
	m.command = command
	return m
}

// EditConfig changes the bytes of the config at last: for spaces, unknown fields and damage.
func (m *Image) EditConfig(edit func(config []byte) []byte) *Image {
	m.edit = edit
	return m
}

// Layers are the layers from the bottom up.
func (m *Image) Layers() []*Layer { return slices.Clone(m.layers) }

// Tags are the names, as they were given.
func (m *Image) Tags() []string { return slices.Clone(m.tags) }

// DiffIDs are the digests of the layer tars, "sha256:…", from the bottom up.
func (m *Image) DiffIDs() []string {
	ids := make([]string, len(m.layers))
	for i, l := range m.layers {
		ids[i] = l.DiffID()
	}
	return ids
}

// Config is the image config, the bytes whose digest is the ID.
func (m *Image) Config() []byte {
	type rootfs struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	type run struct {
		Env        []string `json:"Env,omitempty"`
		Entrypoint []string `json:"Entrypoint,omitempty"`
	}
	config, err := json.Marshal(struct {
		Architecture string    `json:"architecture"`
		Config       run       `json:"config"`
		Created      time.Time `json:"created"`
		History      []history `json:"history"`
		OS           string    `json:"os"`
		RootFS       rootfs    `json:"rootfs"`
	}{
		Architecture: runtime.GOARCH,
		Config:       run{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, Entrypoint: m.command},
		Created:      created,
		History:      m.history,
		OS:           "linux",
		RootFS:       rootfs{Type: "layers", DiffIDs: m.DiffIDs()},
	})
	if err != nil {
		panic(fmt.Sprintf("enginetest: %v", err))
	}
	if m.edit != nil {
		config = m.edit(config)
	}
	return config
}

// ID is the image ID on an engine that names images by their config: "sha256:…".
func (m *Image) ID() string {
	sum := sha256.Sum256(m.Config())
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Archive writes the image as `docker load` takes it: layers, config, manifest.json. Generated layers are not held, and
// are generated once only.
func (m *Image) Archive(w io.Writer) error {
	t := tar.NewWriter(w)
	names := make([]string, len(m.layers))
	path := map[*Layer]string{}
	for i, l := range m.layers {
		if path[l] == "" {
			path[l] = fmt.Sprintf("%d/layer.tar", i)
			if err := t.WriteHeader(archiveHeader(path[l], l.Size())); err != nil {
				return err
			}
			if _, err := l.WriteTo(t); err != nil {
				return err
			}
		}
		names[i] = path[l]
	}
	config := m.Config()
	sum := sha256.Sum256(config)
	configName := hex.EncodeToString(sum[:]) + ".json"
	manifest, err := json.Marshal([]archiveManifest{{Config: configName, RepoTags: m.tags, Layers: names}})
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{{configName, config}, {"manifest.json", manifest}} {
		if err := t.WriteHeader(archiveHeader(f.name, int64(len(f.content)))); err != nil {
			return err
		}
		if _, err := t.Write(f.content); err != nil {
			return err
		}
	}
	return t.Close()
}

// ArchiveBytes is the whole archive. Not for big images.
func (m *Image) ArchiveBytes() []byte {
	var b bytes.Buffer
	if err := m.Archive(&b); err != nil {
		panic(fmt.Sprintf("enginetest: %v", err))
	}
	return b.Bytes()
}

func archiveHeader(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: created}
}

// archiveManifest is an element of manifest.json.
type archiveManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}
