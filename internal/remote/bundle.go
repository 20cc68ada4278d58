package remote

import (
	"context"

	"github.com/dogestry/dogestry/internal/image"
)

// Bundle is what a bundle says of itself before anything else in it (docs/format.md,
// "Bundles"). It proves nothing: who reads a bundle proves each part as it comes.
type Bundle struct {
	Version   int            `json:"bundle"` // of the list, see BundleVersion
	Tags      []BundleTag    `json:"tags"`
	Documents []image.Digest `json:"documents"`
	Layers    []BundleLayer  `json:"layers"` // those that are in it

	// Without are the layers that its images need besides, as they are asked for:
	// it is of use only where they are.
	Without []image.Digest `json:"without"`
}

// BundleVersion is the version of the list that this program writes, and the
// newest that it reads.
const BundleVersion = 1

// BundleTag is a tag in a bundle.
type BundleTag struct {
	Image image.Reference `json:"image"`
	ID    image.ID        `json:"id"`
}

// BundleLayer is a layer in a bundle.
type BundleLayer struct {
	ID     image.Digest   `json:"id"`            // the entry that it lies in
	Size   int64          `json:"size"`          // bytes that have this digest
	Stored int64          `json:"stored"`        // bytes of its file
	Tars   []image.DiffID `json:"tar,omitempty"` // of a compressed layer: what is in it
}

// Digests returns all that a layer can be asked for by.
func (l BundleLayer) Digests() []image.Digest { return append([]image.Digest{l.ID}, l.Tars...) }

// Has returns the layers that somebody has who has all that b was made for.
func (b *Bundle) Has() map[image.Digest]bool {
	has := map[image.Digest]bool{}
	for _, l := range b.Layers {
		for _, id := range l.Digests() {
			has[id] = true
		}
	}
	for _, id := range b.Without {
		has[id] = true
	}
	return has
}

// BundleReader is a bundle that is read once, from its beginning to its end, by
// one goroutine.
type BundleReader interface {
	Bundle() *Bundle

	// Next returns the next part that the list announces, and io.EOF at the end.
	// What the part before has not been read of is passed over. A Damaged fault
	// names the bundle, and the member that is none of a bundle's.
	Next(ctx context.Context) (BundleItem, error)
}

// BundleItem is a part of a bundle: the one field that is set. An item comes after
// those that it needs.
type BundleItem struct {
	Layer     *BundleBody
	Document  []byte // it is what its name says
	Held      *BundleHeld
	Signature *BundleSignature
	Tag       *BundleTag
}

// BundleBody is a layer as a bundle holds it, under its own digest. Nothing is
// proved of it. The Body of As, which need not be closed, is good until the next item.
type BundleBody struct {
	BundleLayer
	As Stored
}

// BundleHeld says that a manifest of an index is there.
type BundleHeld struct{ Index, Manifest image.Digest }

// BundleSignature is a signature of a tag that is in the bundle. Nothing is proved of it.
type BundleSignature struct {
	Reference image.Reference
	Signature
	Content []byte
}

// BundleTarget is a Target that a bundle is written through. Its methods are safe
// for concurrent use; what they write comes one after the other.
type BundleTarget interface {
	Target
	StoredTarget
	Holder

	// Close writes the end. Without it a bundle is none.
	Close() error
}
