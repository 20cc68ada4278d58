package catalog

import (
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

// memory is what lists remember. Nothing in it is trusted for more than a row:
// everything stands under the version that the remote told when it was read,
// and counts only while the remote tells the same version. So it cannot be
// older than what a list without it would read.
type memory struct {
	Tags   map[string]tagMemory // by reference
	Images map[image.ID]imageMemory
	Layers map[image.Digest]layerMemory
}

// tagMemory is what a tag names, in a version of the tag.
type tagMemory struct {
	Version string
	ID      image.ID
}

// imageMemory is what an image's documents say, which follows from its ID. The
// versions of the objects tell whether they are still those bytes.
type imageMemory struct {
	Version string
	summary
}

// summary is what a row needs of an image's documents.
type summary struct {
	Created   *time.Time
	Platform  string
	Layers    []image.Digest // each once
	Documents []image.Digest `json:",omitempty"` // besides the one that the ID is the digest of
}

// small reports whether s is of a size that images have. Others are not
// remembered: they would take the place of thousands.
func (s summary) small() bool { return len(s.Platform) <= 256 && len(s.Documents) <= 64 }

// version joins the versions of all documents of an image; it is empty where one
// is not there or has none.
func (s summary) version(id image.ID, there map[image.Digest]string) string {
	version := there[id]
	for _, d := range s.Documents {
		if version == "" || there[d] == "" {
			return ""
		}
		version += "," + there[d]
	}
	return version
}

// layerMemory is what a layer's metadata says, in a version of it. Metadata is
// proved by pulls alone; where it is mended, its version is another.
type layerMemory struct {
	Version string
	Size    int64 // bytes, decoded
}

func newMemory() memory {
	return memory{
		Tags:   map[string]tagMemory{},
		Images: map[image.ID]imageMemory{},
		Layers: map[image.Digest]layerMemory{},
	}
}

// equal reports whether m and o remember the same.
func (m memory) equal(o memory) bool {
	return maps.Equal(m.Tags, o.Tags) && maps.Equal(m.Layers, o.Layers) &&
		maps.EqualFunc(m.Images, o.Images, func(a, b imageMemory) bool { return a.Version == b.Version })
}

// keepOthers adds what was known of other repositories than the one that was
// listed: their tags, and what those reach.
func (m memory) keepOthers(known memory, repository string) {
	for ref, tag := range known.Tags {
		if strings.HasPrefix(ref, repository+":") && !strings.Contains(ref[len(repository)+1:], "/") {
			continue // "localhost:5000/app:1" is not of the repository "localhost"
		}
		m.Tags[ref] = tag
		img, ok := known.Images[tag.ID]
		if !ok {
			continue
		}
		if _, newer := m.Images[tag.ID]; !newer {
			m.Images[tag.ID] = img
		}
		for _, d := range img.Layers {
			l, ok := known.Layers[d]
			if _, newer := m.Layers[d]; ok && !newer {
				m.Layers[d] = l
			}
		}
	}
}

// addAll adds what m does not have of known.
func (m memory) addAll(known memory) {
	add(m.Tags, known.Tags)
	add(m.Images, known.Images)
	add(m.Layers, known.Layers)
}

func add[K comparable, V any](m, more map[K]V) {
	for k, v := range more {
		if _, ok := m[k]; !ok {
			m[k] = v
		}
	}
}

// maxRecent bounds the tags, images and layers that are remembered in memory: some 20 MB.
const maxRecent = 64 << 10

// recent is a memory of the running process.
type recent struct {
	mu  sync.Mutex
	now memory
}

func (r *recent) load() memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

// store remembers m instead of what was remembered before; nothing where it is too much,
// so that what is of no use any more goes.
func (r *recent) store(m memory) {
	if len(m.Tags)+len(m.Images)+len(m.Layers) > maxRecent {
		m = memory{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = m
}
