//go:build !linux

package main

import (
	"errors"
	"os/exec"

	"github.com/dogestry/dogestry/internal/enginetest"
)

func (b *bench) onLink() error {
	return errors.New("the link is made of network namespaces: it needs Linux")
}

func (b *bench) onServedLink() error { return b.onLink() }

func (b *bench) onDeltaLink() error { return b.onLink() }

func (b *bench) onFleet(enginetest.Options) func() error { return b.onLink }

func dieWithUs(*exec.Cmd) {}

func runRelay(string) error { return nil }
