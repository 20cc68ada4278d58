package client

import "github.com/dogestry/dogestry/internal/image"

// mostKnown bounds, in bytes, what the repositories of a registry have learned from
// documents, together.
const mostKnown = 64 << 20

// knownWeight is about what a fact takes, in bytes.
const knownWeight = 300

// fact is one kind of what is learned. Each has its own key for the same digest.
type fact int

const (
	ofConfig fact = iota // *image.Manifest: the one that names it
	ofBlob               // true: a document that is there as a blob
	ofLayer              // packed: what manifests and configs say of it
)

type knownKey struct {
	in   *Repository
	fact fact
	id   image.Digest
}

func (p *Repository) learned(f fact, id image.Digest) any {
	value, _ := p.registry.known.get(knownKey{p, f, id})
	return value
}

func (p *Repository) note(f fact, id image.Digest, value any, weight int) {
	p.registry.known.put(knownKey{p, f, id}, value, knownWeight+weight)
}

// noteConfig notes which manifest names a config; size is that of its document.
func (p *Repository) noteConfig(m *image.Manifest, size int) {
	p.note(ofConfig, m.Config.Digest, m, 2*size)
}

// namedConfig returns the manifest that names a config, nil where none is known.
func (p *Repository) namedConfig(id image.Digest) *image.Manifest {
	m, _ := p.learned(ofConfig, id).(*image.Manifest)
	return m
}

func (p *Repository) noteBlob(id image.Digest) { p.note(ofBlob, id, true, 0) }

func (p *Repository) isBlob(id image.Digest) bool { return p.learned(ofBlob, id) != nil }

func (p *Repository) notePacked(id image.DiffID, in packed) {
	p.note(ofLayer, id, in, len(in.Media))
}

// packedIn returns the blob that a layer is compressed in, as far as it is known.
func (p *Repository) packedIn(id image.DiffID) (packed, bool) {
	in, ok := p.learned(ofLayer, id).(packed)
	return in, ok
}

// unpackedOf returns the layer that is compressed in a blob.
func (p *Repository) unpackedOf(blob image.Digest) (image.DiffID, bool) {
	key, ok := p.registry.known.find(func(k knownKey, value any) bool {
		in, is := value.(packed)
		return is && k.in == p && in.Digest == blob
	})
	return key.id, ok
}
