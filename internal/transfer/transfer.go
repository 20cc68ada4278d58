// Package transfer moves images between engines and remotes, and from remote to
// remote: it finds out what the other side lacks, and moves that and nothing
// else, in streams of bounded memory, verified on both sides.
package transfer

import (
	"context"
	"io"
	"log/slog"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Exporter is the half of an engine that gives images; *engine.Client is one.
type Exporter interface {
	Kind() engine.Kind
	Inspect(ctx context.Context, name string) (engine.Image, error)
	Stored(img engine.Image) (*engine.Stored, error)
	Export(ctx context.Context, img engine.Image) *engine.Export
}

// Inventory tells what an engine has.
type Inventory interface {
	Has(ctx context.Context, id image.ID, manifests ...image.Digest) (bool, error)
	Held(ctx context.Context, diffIDs []image.DiffID) (held int, below []image.ID, err error)
	HeldBlobs(ctx context.Context, wanted []image.Digest, read engine.ManifestReader) (held map[image.Digest]bool, err error)
	Remember(manifests map[image.Digest]*image.Manifest)
}

// Loader is the half of an engine that takes images; *engine.Client is one.
type Loader interface {
	Inventory
	Kind() engine.Kind
	Platform() image.Platform
	Load(ctx context.Context, archive io.Reader) ([]image.ID, error)
	Tag(ctx context.Context, id image.ID, ref image.Reference) error
	RemoveUntagged(ctx context.Context, id image.ID) error
}

// Options of a push, pull or copy.
type Options struct {
	Progress Progress // nil tells nobody
	Log      *slog.Logger
	DryRun   bool // find out what would move, and change nothing
	IfAbsent bool // push and copy: refuse to move a tag that names another image
	Parallel int  // layers on their way at once; 0 means DefaultParallel

	// Recompress means, on a push or copy, that an image whose manifest has compressed layers is stored as what its
	// config tells, layers as the target stores tars. Engines that name images by manifests call it otherwise then.
	Recompress bool

	// Of images for several platforms: which one. The zero value means, on a push
	// or copy, all that the engine or the source has, and on a pull the engine's own.
	Platform image.Platform
	// AllPlatforms means, on a push or copy, that one which the engine or the source
	// lacks is a failure, and on a pull all that the remote has.
	AllPlatforms bool

	// Sign, on a push, is called with what is about to be tagged, right before the
	// tag is written, and again where the tag is tried again. Verify, on a pull, is
	// called with what a name stands for, before anything of it is read or moved,
	// for all images before the first one moves. Their errors end the transfer. They
	// return who has signed, for the result. Nil signs and verifies nothing.
	Sign, Verify func(ctx context.Context, ref image.Reference, id image.ID) (by string, err error)

	// SignatureStays, on a copy or import, says whether what the target has as a
	// signature is to stay, where another by the same key, of the same tag and image,
	// came. Nil replaces what is not the same.
	SignatureStays func(there, came []byte) bool

	// Lacks, on a pull, is called once for each image, in their order, with the layers
	// that the engine lacks of it, as they are about to be opened; with none where it has
	// the image. It may be called again where the engine turns out to lack more. Nil
	// tells nobody.
	Lacks func(img PullImage, layers []remote.Layer)

	// Measure, on a pull, is asked for the size of a layer of which the remote does not
	// know it; read reads it for that. Nil reads.
	Measure func(ctx context.Context, layer image.Digest, read func() (int64, error)) (int64, error)

	// Rebuild, on a pull, is asked for the size of such a layer before that, by the layer's index: find finds out, and
	// fails where the layer is not to be put together. Nil finds out.
	Rebuild func(ctx context.Context, layer image.Digest, find func() (int64, error)) (int64, error)

	// Ahead is how many bytes of each layer a pull reads ahead of the engine; 0 means 8 MiB.
	Ahead int64

	// Delta, on a pull, says when layers are put together: out of what the engine has, where it is a Relatives,
	// and what the remote keeps, where that is a remote.Keeper. The remote has to be a remote.Parts. The zero value is DeltaAuto.
	Delta Delta
	// CacheDir is where a pull remembers the indexes of layers; empty remembers nothing.
	CacheDir string

	piece      int64 // see loadPiece, which 0 means
	leastDelta int64 // see leastDelta, which 0 means
}

// DefaultParallel is how many layers are on their way at once. Each takes some
// 25 MiB of buffers.
const DefaultParallel = 3

func (o Options) withDefaults() Options {
	if o.Progress == nil {
		o.Progress = NoProgress{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Parallel <= 0 {
		o.Parallel = DefaultParallel
	}
	if o.Lacks == nil {
		o.Lacks = func(PullImage, []remote.Layer) {}
	}
	if o.Measure == nil {
		o.Measure = func(_ context.Context, _ image.Digest, read func() (int64, error)) (int64, error) { return read() }
	}
	if o.Rebuild == nil {
		o.Rebuild = func(_ context.Context, _ image.Digest, find func() (int64, error)) (int64, error) { return find() }
	}
	if o.Ahead <= 0 {
		o.Ahead = streamChunks * chunkSize
	}
	if o.leastDelta <= 0 {
		o.leastDelta = leastDelta
	}
	return o
}

// Result is what became of one image.
type Result struct {
	Image  string        `json:"image"` // as named in the remote (push), in the engine (pull), in the target (copy)
	ID     image.ID      `json:"id"`
	Layers []LayerResult `json:"layers"` // bottom first, each once
	DryRun bool          `json:"dryRun,omitempty"`

	SignedBy string `json:"signedBy,omitempty"` // what Options.Sign or Verify returned

	// Referrers is how many manifests the target has that refer to a copied image, or to
	// each other: signatures, SBOMs.
	Referrers int `json:"referrers,omitempty"`
}

// LayerResult is what became of one layer.
type LayerResult struct {
	Digest image.Digest `json:"digest"` // its diffID; in a containerd image store, what the manifest calls it
	Size   int64        `json:"size"`   // bytes that have the digest; -1 where it is not known yet
	Stored int64        `json:"stored"` // bytes in the remote; -1 where it is not known yet
	Moved  bool         `json:"moved"`  // it travelled, or would; else the other side has it

	// Of a layer that a pull has put together, or would: bytes that were read of the remote for that, indexes
	// included, and bytes of its files that the engine had. Zero of one that was read whole.
	Fetched int64 `json:"fetched,omitempty"`
	Local   int64 `json:"local,omitempty"`

	diffID image.DiffID // of a compressed layer that moved: what is in it
	packed bool         // of a layer that the target has: compressed as it came
	object string       // of a layer that a copy would move: see objectOf
}

// shareIn lets a dry run count a layer once that several images of a call share.
func (r *Result) shareIn(planned map[image.Digest]bool) {
	if !r.DryRun {
		return
	}
	for i, l := range r.Layers {
		r.Layers[i].Moved = l.Moved && !planned[l.Digest]
		planned[l.Digest] = true
	}
}

// Moved returns how many layers travelled, and their bytes, decoded and as stored.
func (r Result) Moved() (layers int, size, stored int64) { return r.sum(true) }

// Spared returns the same of the layers that the other side had.
func (r Result) Spared() (layers int, size, stored int64) { return r.sum(false) }

// Fetched returns the bytes that a pull has read of the remote for layers, or would, and how many of these it has
// put together out of others that were there, and their bytes.
func (r Result) Fetched() (bytes int64, rebuilt int, size int64) {
	for _, l := range r.Layers {
		switch {
		case !l.Moved:
		case l.Fetched == 0:
			bytes += max(0, l.Stored)
		default:
			bytes += l.Fetched
			if l.Local > 0 {
				rebuilt++
				size += max(0, l.Size)
			}
		}
	}
	return bytes, rebuilt, size
}

func (r Result) sum(moved bool) (layers int, size, stored int64) {
	for _, l := range r.Layers {
		if l.Moved == moved {
			layers++
			size += max(0, l.Size)
			stored += max(0, l.Stored)
		}
	}
	return layers, size, stored
}
