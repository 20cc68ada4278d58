// Package remote is the interface of what holds images: a repository on a
// store, or a registry. transfer moves images between it and engines.
package remote

import (
	"context"
	"io"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

// Layer is a layer as a remote holds it. A layer may be asked for by its diffID,
// and a manifest's also by the digest that the manifest has for it.
type Layer struct {
	Digest image.Digest `json:"digest"` // as it was asked for
	Size   int64        `json:"size"`   // bytes that have the digest; -1 where only reading them would tell
	Stored int64        `json:"stored"` // bytes, as stored; a hint
	Object string       `json:"object"` // where in the remote it lies; the remote's own name for it

	// Tar is set by PutLayer of a compressed tar: the digest of the tar in it.
	Tar image.DiffID `json:"-"`

	// Packed is the layer whose object this one lies in, compressed; zero where it
	// has an object of its own.
	Packed image.Digest `json:"-"`

	// Source is the remote's name for what Size and Object were read from; empty
	// where that is no object of its own. Version is that object's, see Tag.Version.
	Source  string `json:"-"`
	Version string `json:"-"`
}

// Tag is a tag that a remote has.
type Tag struct {
	Reference image.Reference

	// Version is opaque and short: as long as it is the same, so is what the tag
	// names. Empty where the remote has no such thing.
	Version string

	// Modified is when the tag was written, by the remote's clock. It stays as it is
	// when the tag is written again and names the same image. Zero where the remote does not know.
	Modified time.Time
}

// Closure is everything that an image needs besides its tag.
type Closure struct {
	Documents []image.Digest // configs, manifests, indexes
	Layers    []image.Digest // as configs and manifests name them, each once
}

// ClosureOf returns what a tag on an image needs: compressed layers also by their
// diffIDs, which is how other kinds of engines ask for them. Its error says that
// the documents make no image.
func ClosureOf(tree *image.Tree) (Closure, error) {
	packed, err := tree.Packed()
	if err != nil {
		return Closure{}, err
	}
	c := named(tree)
	for id := range packed {
		c.Layers = append(c.Layers, id)
	}
	c.Layers = image.Distinct(c.Layers)
	return c, nil
}

// NamedClosure is ClosureOf with the layers as the documents name them alone: for
// remotes that do not ask for compressed ones by their diffIDs.
func NamedClosure(tree *image.Tree) (Closure, error) {
	if _, err := tree.Packed(); err != nil {
		return Closure{}, err
	}
	return named(tree), nil
}

func named(tree *image.Tree) (c Closure) {
	c.Documents, _ = tree.Documents()
	for _, l := range tree.Layers() {
		c.Layers = append(c.Layers, l.Digest)
	}
	return c
}

// Closures is a Target in which an image needs something else than ClosureOf says.
type Closures interface {
	// Closure returns what a tag on an image needs there. Its error says that the
	// documents make no image.
	Closure(tree *image.Tree) (Closure, error)
}

// ClosureIn returns what a tag on an image needs in a target.
func ClosureIn(to Target, tree *image.Tree) (Closure, error) {
	if c, ok := to.(Closures); ok {
		return c.Closure(tree)
	}
	return ClosureOf(tree)
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

	// Look asks for all of c at once. It reads no bytes of layers and documents,
	// so it proves none. Known are layers as an earlier Look found them: what has
	// not changed since need not be read again. It may be nil.
	Look(ctx context.Context, c Closure, known map[image.Digest]Layer) (*Found, error)

	// Open returns the bytes of layer.Digest: for a diffID a tar, however it is
	// stored. They are verified: the last one is held back until the digest and
	// layer.Size are proved; a size of -1 is not known. Wrong bytes are a Damaged
	// fault of Read. The caller closes the reader, also to stop early.
	Open(ctx context.Context, layer Layer) (io.ReadCloser, error)

	// References yields every tag of a repository, of all where it is empty, in
	// the remote's own order. It ends after the first error.
	References(ctx context.Context, repository string) iter.Seq2[Tag, error]
}

// Found is what Look has found of a closure.
type Found struct {
	Documents map[image.Digest]string // those that are there, and their versions, see Tag.Version
	Layers    map[image.Digest]Layer  // those that are there
	Torn      map[image.Digest]error  // the other layers: Damaged faults that name what is missing
}

// Add takes in the documents and layers that were found elsewhere.
func (f *Found) Add(other *Found) {
	maps.Copy(f.Documents, other.Documents)
	maps.Copy(f.Layers, other.Layers)
}

// Layers looks all of ids up at once and returns them in the order asked for.
// Its error is the Damaged fault of the first one that is missing or torn.
func Layers(ctx context.Context, from Source, ids []image.Digest) ([]Layer, error) {
	found, err := from.Look(ctx, Closure{Layers: image.Distinct(ids)}, nil)
	if err != nil {
		return nil, err
	}
	layers := make([]Layer, len(ids))
	for i, id := range ids {
		if err := found.Torn[id]; err != nil {
			return nil, err
		}
		layers[i] = found.Layers[id]
	}
	return layers, nil
}

// Target is a remote that can be written. Its methods are safe for concurrent
// use, also by other processes: what two write at once is the same bytes.
type Target interface {
	// Missing asks for all of c at once. It returns the part that the remote
	// lacks or holds torn, and the layers that it has, in no particular order.
	Missing(ctx context.Context, c Closure) (missing Closure, there []Layer, err error)

	// PutLayer stores the bytes of layer.Digest: a tar as the remote likes to
	// store tars, anything else as it is. Where that is a compressed tar, the layer
	// is there from then on by the tar's diffID too. Where its media type is
	// image.UnknownMediaType, its first bytes may decide. PutLayer verifies r and
	// publishes nothing where digest or layer.Size is wrong (*image.MismatchError).
	// layer.Size may be -1 when it is not known. It returns the layer as stored.
	PutLayer(ctx context.Context, layer image.Descriptor, r io.Reader) (Layer, error)

	// PutDocument stores a config, manifest or index under its digest, after
	// those that it names.
	PutDocument(ctx context.Context, doc []byte) error

	// Tag lets ref name id. It looks that the whole closure of id is there, of an
	// index that of the manifests that it Holds, before it does, else it returns *IncompleteError and leaves the tag as it was;
	// and once more behind the tag, so that what vanished meanwhile is told.
	Tag(ctx context.Context, ref image.Reference, id image.ID) error
}

// Sessions is a Target in which others may delete what nothing needs while it is
// written to.
type Sessions interface {
	// Begin returns the target for one push: what that has asked for or written
	// there stays until end is called. Waiting is told when the push has to wait for
	// others, and when it goes on, with an empty text; it may be nil. end may be
	// given a context that has ended.
	Begin(waiting func(what string)) (to Target, end func(context.Context))
}

// Begin is that of a target which has Sessions; others are there for anyone as they are.
func Begin(to Target, waiting func(what string)) (Target, func(context.Context)) {
	if s, ok := to.(Sessions); ok {
		return s.Begin(waiting)
	}
	return to, func(context.Context) {}
}

// Committer is a Target of which nobody sees anything before all of it is there,
// such as a file.
type Committer interface {
	// Commit publishes what was tagged, all of it or nothing. It is called once, when
	// no other method runs, and nothing is written after it.
	Commit(ctx context.Context) error
}

// TagCreator is a Target that can refuse to move a tag.
type TagCreator interface {
	// MayCreate tells before anything moves what CreateTag would refuse: a tag
	// that names another image, or a remote that cannot promise it. Where try is
	// set it writes and removes an object of its own to find out.
	MayCreate(ctx context.Context, ref image.Reference, id image.ID, try bool) error

	// CreateTag is Tag for a name that nothing has. It does nothing where ref
	// names id already, and is Refused where it names another image; of
	// concurrent callers one succeeds.
	CreateTag(ctx context.Context, ref image.Reference, id image.ID) error
}

// Signatures is a remote that keeps signatures beside its tags (docs/format.md,
// "Signed tags"). It proves none of them: what is in one anybody may have written
// who can write the remote. Key is the ID of a key, as package signature has it.
// The methods are safe for concurrent use.
type Signatures interface {
	// PutSignature stores what key has signed: that ref names id. It replaces what
	// the same key has signed of the same before, and nothing else.
	PutSignature(ctx context.Context, ref image.Reference, id image.ID, key string, content []byte) error

	// Signature returns it, at most MaxSignature bytes. A NotFound fault where
	// there is none, a Damaged one where it is larger.
	Signature(ctx context.Context, ref image.Reference, id image.ID, key string) ([]byte, error)

	// CurrentSignature is Signature for what ref names now. NotFound also where it
	// names nothing.
	CurrentSignature(ctx context.Context, ref image.Reference, key string) ([]byte, error)

	// Signed yields the signatures that ref has of one image, where id is zero of
	// all that it ever named, in no particular order. It stops after a bounded
	// number, and ends after the first error. It is for telling people what there
	// is, and for copies; who verifies asks by name.
	Signed(ctx context.Context, ref image.Reference, id image.ID) iter.Seq2[Signature, error]
}

// MaxSignature bounds a signature in bytes.
const MaxSignature = 4 << 10

// Signature is the name of one that a remote has.
type Signature struct {
	Image image.ID
	Key   string
}

// Untagger is a remote that can take a tag away.
type Untagger interface {
	// Untag removes the tag ref while it names id, durably. The zero ID stands for
	// a tag that is damaged and names none. A tag that names another image by now
	// stays, and is a Refused fault; one that is gone is no error. The image stays too.
	Untag(ctx context.Context, ref image.Reference, id image.ID) error
}

// Holder is a remote that may have some of an index's manifests and not others.
type Holder interface {
	// Hold says that the remote has these manifests of an index, which it has.
	// What they lack is an *IncompleteError.
	Hold(ctx context.Context, index image.Digest, manifests []image.Digest) error

	// Held returns those that it has, in no particular order.
	Held(ctx context.Context, index image.Digest) ([]image.Digest, error)
}

// ReadTree reads the documents of an image that a remote has, as image.ReadTree
// does. Pick chooses from the manifests of an index that the remote holds; nil
// takes them all. It is not asked of an index that names none.
func ReadTree(ctx context.Context, from Source, id image.ID, pick func([]image.Child) ([]image.Digest, error)) (*image.Tree, error) {
	return image.ReadTree(ctx, id, image.Reader{
		Document: from.Document,
		Pick: func(ctx context.Context, id image.Digest, index *image.Index) ([]image.Digest, error) {
			held, err := heldOf(ctx, from, id, index)
			if err != nil {
				return nil, err
			}
			if pick != nil && len(index.Manifests) > 0 {
				return pick(held)
			}
			ids := make([]image.Digest, len(held))
			for i, c := range held {
				ids[i] = c.Digest
			}
			return ids, nil
		},
	})
}

// heldOf returns the manifests of an index that a remote has.
func heldOf(ctx context.Context, from Source, id image.Digest, index *image.Index) ([]image.Child, error) {
	holder, ok := from.(Holder)
	if !ok {
		return index.Manifests, nil
	}
	ids, err := holder.Held(ctx, id)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(index.Manifests), func(c image.Child) bool { return !slices.Contains(ids, c.Digest) }), nil
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
