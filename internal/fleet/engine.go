package fleet

import (
	"context"
	"fmt"
	"io"

	"github.com/docker/go-units"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/transfer"
)

// Engine is an engine that is fed from here; *engine.Client is one.
type Engine interface {
	transfer.Loader
	io.Closer

	// ID returns what no other engine is called; empty where there is no such thing.
	ID() string
}

// NewEngine returns an engine as a host. Connect is called by Check, or else by Pull,
// once it has succeeded never again. Close closes what it returned.
func NewEngine(name string, connect func(ctx context.Context) (Engine, error)) Fed {
	return &engineHost{name: name, connect: connect}
}

type engineHost struct {
	name    string
	connect func(ctx context.Context) (Engine, error)
	engine  Engine
}

// leastRoom is what an engine has to have free to be worth beginning with, in bytes.
const leastRoom = 16 << 20

func (h *engineHost) Name() string { return h.name }

func (h *engineHost) IsFed() {}

func (h *engineHost) Check(ctx context.Context) (string, error) {
	if err := h.open(ctx); err != nil {
		return "", err
	}
	if r, ok := h.engine.(transfer.Roomy); ok {
		if free, known := r.Room(); known && free < leastRoom {
			return "", fault.New(fault.Other, "the engine at %s has no space left: %s free", h.name, units.HumanSizeWithPrecision(float64(free), 3)).
				Advise("Free space under the engine's data root (`docker system df`, `docker image prune`).")
		}
	}
	return h.engine.ID(), nil
}

func (h *engineHost) Pull(ctx context.Context, job Job) ([]transfer.Result, error) {
	if err := h.open(ctx); err != nil {
		return nil, err
	}
	return transfer.Pull(ctx, job.Source, h.engine, job.Images, job.Options)
}

func (h *engineHost) open(ctx context.Context) (err error) {
	if h.engine == nil {
		h.engine, err = h.connect(ctx)
	}
	return err
}

func (h *engineHost) Close() error {
	if h.engine == nil {
		return nil
	}
	if err := h.engine.Close(); err != nil {
		return fmt.Errorf("%s: %w", h.name, err)
	}
	return nil
}
