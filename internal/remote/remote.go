// Package remote is the interface of what holds images: a repository on a
// store, or a registry. transfer moves images between it and engines.
package remote

import (
	"context"
	"io"
	"iter"

	"github.com/dogestry/dogestry/internal/image"
)

// Layer is a layer as a remote holds it.
type Layer struct {
	DiffID image.DiffID `json:"diffID"`
	Size   int64        `json:"size"`   // bytes, decoded
	Stored int64        `json:"stored"` // bytes, as stored; a hint
	Object string       `json:"object"` // where in the remote it lies; the remote's own name for it
}

// Closure is everything that an image needs besides its tag.
type Closure struct {
	Documents []image.Digest // configs, manifests, indexes
	Layers    []image.DiffID // each once
}

// Empty reports whether nothing is in c.
func (c Closure) Empty() bool { return len(c.Documents) == 0 && len(c.Layers) == 0 }

// Source is a remote that can be read. Its methods are safe for concurrent use.
// Errors are faults: NotFound names what there is instead, Damaged names the object.
type Source interface {
	// Resolve returns the ID that ref names, by its digest where it has one, else by its tag.
	Resolve(ctx context.Context, ref image.Reference) (image.ID, error)

	// Document returns a config, manifest or index, verified, at most image.MaxDocument bytes.
	Document(ctx context.Context, id image.Digest) ([]byte, error)

	// Layers looks all of them up at once and returns them in the order asked
	// for. One that is missing or torn is a Damaged fault that names it.
	Layers(ctx context.Context, ids []image.DiffID) ([]Layer, error)

	// Open returns a layer's tar, decoded and verified: the last byte is held
	// back until the digest and layer.Size are proved. Wrong bytes are a Damaged
	// fault of Read. The caller closes the reader, also to stop early.
	Open(ctx context.Context, layer Layer) (io.ReadCloser, error)

	// References yields every tag of a repository, of all where it is empty, in
	// the remote's own order. It ends after the first error.
	References(ctx context.Context, repository string) iter.Seq2[image.Reference, error]
}

// Target is a remote that can be written. Its methods are safe for concurrent
// use, also by other processes: what two write at once is the same bytes.
type Target interface {
	// Missing asks for all of c at once. It returns the part that the remote
	// lacks or holds torn, and the layers that it has, in no particular order.
	Missing(ctx context.Context, c Closure) (missing Closure, there []Layer, err error)

	// PutLayer stores the tar of layer.Digest. It verifies tar and publishes
	// nothing where digest or layer.Size is wrong (*image.MismatchError).
	// layer.Size may be -1 when it is not known. It returns the layer as stored.
	PutLayer(ctx context.Context, layer image.Descriptor, tar io.Reader) (Layer, error)

	// PutDocument stores a config, manifest or index under its digest.
	PutDocument(ctx context.Context, doc []byte) error

	// Tag lets ref name id. It looks that the whole closure of id is there
	// before, else it returns *IncompleteError and leaves the tag as it was;
	// and once more behind the tag, so that what vanished meanwhile is told.
	Tag(ctx context.Context, ref image.Reference, id image.ID) error
}

// Remote is both.
type Remote interface {
	Source
	Target
}

// IncompleteError is returned by Tag: part of the image is not there.
type IncompleteError struct {
	ID      image.ID
	Missing Closure
	Tagged  bool // the tag was written before the loss was noticed
}

func (e *IncompleteError) Error() string {
	first := e.ID
	if len(e.Missing.Documents) > 0 {
		first = e.Missing.Documents[0]
	} else if len(e.Missing.Layers) > 0 {
		first = e.Missing.Layers[0]
	}
	return "image " + e.ID.Short() + " is incomplete: entry " + first.Hex() + " is missing"
}
