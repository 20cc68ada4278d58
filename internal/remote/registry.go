package remote

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

// Repositories is a remote whose documents and layers belong to repositories,
// as those of a registry do (OCI distribution specification): what one repository
// has is not there for another until it is put, or mounted, there.
type Repositories interface {
	// In returns the remote for the images of one repository. What it resolves and
	// tags lies in no other.
	In(repository string) Remote
}

// SourceOf returns the source that images of a repository are read from.
func SourceOf(from Source, repository string) Source {
	if r, ok := from.(Repositories); ok {
		return r.In(repository)
	}
	return from
}

// TargetOf returns the target that images of a repository are written to.
func TargetOf(to Target, repository string) Target {
	if r, ok := to.(Repositories); ok {
		return r.In(repository)
	}
	return to
}

// Expecting is a target that is told which tags are about to be written: images that
// they name already have likely much in common with what comes.
type Expecting interface {
	// Expect is such a word. It may be called at any time, by several goroutines.
	Expect(tag string)
}

// TargetFor returns the target that an image is written to, and tells it its tag.
func TargetFor(to Target, ref image.Reference) Target {
	own := TargetOf(to, ref.Repository)
	if e, ok := own.(Expecting); ok && ref.Tag != "" {
		e.Expect(ref.Tag)
	}
	return own
}

// Memberships is a remote that knows what registries know besides tags: which
// manifests a repository has, tagged or not, and which of them refer to which
// others (docs/format.md, "What registries know besides"). Manifests are manifests
// and indexes. The methods are safe for concurrent use.
type Memberships interface {
	// Add says that a manifest, which is there with all that it needs, belongs to
	// repository, and, where it names a subject, that it refers to that, which need
	// not be there. What is missing is an *IncompleteError, as of Tag.
	Add(ctx context.Context, repository string, manifest image.Digest) error

	// Remove takes a manifest out of repository, and what it refers to with it. The
	// manifest itself stays until a garbage collection, and so do tags. One that is
	// no member is no error.
	Remove(ctx context.Context, repository string, manifest image.Digest) error

	// Belongs reports whether a manifest was added to repository. What tags alone
	// name, or what indexes name, does not count.
	Belongs(ctx context.Context, repository string, manifest image.Digest) (bool, error)

	// Referrers yields the manifests that refer to subject in repository, in the
	// order of their digests. It ends after the first error.
	Referrers(ctx context.Context, repository string, subject image.Digest) iter.Seq2[image.Digest, error]
}

// Referred is what copies need of Memberships at the side that they read.
type Referred interface {
	Referrers(ctx context.Context, repository string, subject image.Digest) iter.Seq2[image.Digest, error]
}

// Membership is a manifest that was added to a repository.
type Membership struct {
	Repository string
	Manifest   image.Digest
	Subject    image.Digest // what it refers to; zero where that is nothing
	Modified   time.Time    // since when it does, by the remote's clock; zero where the remote does not know
}

// Members is a remote that can tell all of its memberships.
type Members interface {
	// Members yields those of a repository, of all where it is empty, in the remote's
	// own order. It ends after the first error. A view of a remote that has no such
	// things yields errors.ErrUnsupported alone.
	Members(ctx context.Context, repository string) iter.Seq2[Membership, error]
}

// Uploads is a remote that keeps bytes of which nobody knows the digest yet, so
// that any process can go on with what another one has begun. They are no images'
// before they are put as a layer, and are swept when they are old. IDs are those
// that CreateUpload returned; any other is a NotFound fault. The methods are safe
// for concurrent use.
type Uploads interface {
	// CreateUpload begins an upload for repository.
	CreateUpload(ctx context.Context, repository string) (id string, err error)

	// UploadSize returns the bytes that are there, and the repository that they are for.
	UploadSize(ctx context.Context, id string) (size int64, repository string, err error)

	// AppendUpload writes the bytes that follow the first offset ones, which have
	// to be there, and no others: else it is a Refused fault that wraps ErrOffset. It
	// returns the size after it, also with an error: what was read by then may stay, in part.
	// It refuses with ErrPieces what has come in too many pieces by then.
	AppendUpload(ctx context.Context, id string, offset int64, r io.Reader) (size int64, err error)

	// OpenUpload reads all of it, as it is now. The caller closes the reader.
	OpenUpload(ctx context.Context, id string) (io.ReadCloser, error)

	// RemoveUpload forgets an upload. One that is gone is no error.
	RemoveUpload(ctx context.Context, id string) error
}

// ErrPieces is wrapped where an upload has come in too many pieces to take another one.
var ErrPieces = errors.New("it has come in too many pieces")

// ErrOffset is wrapped where bytes of an upload do not begin where the ones before end.
var ErrOffset = errors.New("the bytes do not begin where those before end")

// Ranges is a Source that can read a part of a layer without reading what is
// before it, where the layer is stored as its own bytes.
type Ranges interface {
	// OpenRange opens n bytes at offset of a layer that Look found; n is -1 for the
	// rest. The bytes are not verified. It refuses with errors.ErrUnsupported what is
	// stored encoded. The caller closes the reader.
	OpenRange(ctx context.Context, layer Layer, offset, n int64) (io.ReadCloser, error)
}

// Blobs is a Source that finds what registries call a blob: clients ask for it by its
// digest alone, and do not say whether it is a layer or a document.
type Blobs interface {
	// LookBlob is as the function of that name.
	LookBlob(ctx context.Context, id image.Digest, known map[image.Digest]Layer) (*Found, error)
}

// LookBlob is Look for what may be a layer as well as a document. One of both is
// enough: what else the source has under that digest need not be found.
func LookBlob(ctx context.Context, from Source, id image.Digest, known map[image.Digest]Layer) (*Found, error) {
	if b, ok := from.(Blobs); ok {
		return b.LookBlob(ctx, id, known)
	}
	return from.Look(ctx, Closure{Documents: []image.Digest{id}, Layers: []image.Digest{id}}, known)
}

// Catalogued is a remote that lists its repositories without their tags.
type Catalogued interface {
	// Catalog yields the names of the repositories, in the remote's own order. It is
	// Refused where the remote does not list them. It ends after the first error.
	Catalog(ctx context.Context) iter.Seq2[string, error]
}

// Paged is a Source that lists the tags of a repository in the order of their bytes.
type Paged interface {
	// ReferencesAfter is References of one repository, of the tags behind tag, which may be
	// any string: where none can be called so, tags before it may come, too.
	ReferencesAfter(ctx context.Context, repository, tag string) iter.Seq2[Tag, error]
}

// Manifests is a Source that keeps the manifests of images of which tags name the
// config alone (docs/format.md, "The synthesised manifest").
type Manifests interface {
	// ManifestOf is as the function of that name.
	ManifestOf(ctx context.Context, config image.ID) ([]byte, error)
}

// Unproved is a Source whose layers can be read by who proves them.
type Unproved interface {
	// OpenDecoded is Open without the proof: any bytes may come, and more or fewer
	// than there should. What cannot be decoded is a Damaged fault of Read.
	OpenDecoded(ctx context.Context, layer Layer) (io.ReadCloser, error)

	// Damage returns the Damaged fault of a layer whose bytes turned out to be
	// wrong, cause saying how.
	Damage(layer Layer, cause error) error
}
