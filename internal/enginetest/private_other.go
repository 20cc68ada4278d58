//go:build !linux

package enginetest

import (
	"context"
	"errors"
)

// errNotLinux says what a machine without Linux can do instead.
var errNotLinux = errors.New("a private engine needs Linux: set " + EngineVariable + " to the address of an engine")

type private struct{}

// Start needs Linux.
func Start(context.Context, Options) (*Engine, error) { return nil, errNotLinux }

// Stop does nothing: the engine is not ours.
func (e *Engine) Stop() error { return nil }

// Kill needs an engine of [Start].
func (e *Engine) Kill() {}

// Restart needs an engine of [Start].
func (e *Engine) Restart(context.Context) error { return errNotLinux }

// DataRoot is not known.
func (e *Engine) DataRoot() string { return "" }

// Log is not known.
func (e *Engine) Log() string { return "" }

// PodmanArgs are not known.
func (e *Engine) PodmanArgs() []string { return nil }
