// Package transfer moves images between engines and remotes: it finds out what
// the other side lacks, and moves that and nothing else, in streams of bounded
// memory, verified on both sides.
package transfer

import (
	"context"
	"io"
	"log/slog"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/image"
)

// Exporter is the half of an engine that gives images; *engine.Client is one.
type Exporter interface {
	Inspect(ctx context.Context, name string) (engine.Image, error)
	Export(ctx context.Context, img engine.Image) *engine.Export
}

// Loader is the half of an engine that takes images; *engine.Client is one.
type Loader interface {
	Has(ctx context.Context, id image.ID) (bool, error)
	Held(ctx context.Context, diffIDs []image.DiffID) (int, error)
	Load(ctx context.Context, archive io.Reader, unpacking func(string)) ([]image.ID, error)
	Tag(ctx context.Context, id image.ID, ref image.Reference) error
	RemoveUntagged(ctx context.Context, id image.ID) error
}

// Options of a push or pull.
type Options struct {
	Progress Progress // nil tells nobody
	Log      *slog.Logger
	DryRun   bool // find out what would move, and change nothing
	Parallel int  // layers on their way at once; 0 means DefaultParallel
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
	return o
}

// Result is what became of one image.
type Result struct {
	Image  string        `json:"image"` // as named in the remote (push) or in the engine (pull)
	ID     image.ID      `json:"id"`
	Layers []LayerResult `json:"layers"` // bottom first, each once
	DryRun bool          `json:"dryRun,omitempty"`
}

// LayerResult is what became of one layer.
type LayerResult struct {
	DiffID image.DiffID `json:"diffID"`
	Size   int64        `json:"size"`   // bytes, decoded; -1 where it is not known yet
	Stored int64        `json:"stored"` // bytes in the remote; -1 where it is not known yet
	Moved  bool         `json:"moved"`  // it travelled, or would; else the other side has it
}

// Moved returns how many layers travelled, and their bytes, decoded and as stored.
func (r Result) Moved() (layers int, size, stored int64) { return r.sum(true) }

// Spared returns the same of the layers that the other side had.
func (r Result) Spared() (layers int, size, stored int64) { return r.sum(false) }

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
