package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/dogestry/dogestry/internal/enginetest"
)

// journeys measures push and pull of the apt-built image.
func (b *bench) journeys() error {
	image, err := b.engine.Load(b.ctx, enginetest.Apt)
	if err != nil {
		return err
	}
	changed, err := b.engine.Load(b.ctx, enginetest.AptChanged)
	if err != nil {
		return err
	}
	archive, err := enginetest.Archive(b.ctx, enginetest.Apt)
	if err != nil {
		return err
	}
	remote := filepath.Join(b.dir, "remote")
	file := filepath.Join(b.dir, "image.tar.lz4")
	push := []string{b.dogestry, "push", "--quiet", remote, image}
	pull := []string{b.dogestry, "pull", "--quiet", remote, image}

	noRemote := func() error { return os.RemoveAll(remote) }
	saved := command{
		args:   []string{"sh", "-c", fmt.Sprintf("docker save %s | lz4 -q > %s && sync %s", image, file, file)},
		before: func() error { return os.RemoveAll(file) },
	}
	b.compare(figure{name: "push into an empty directory", most: 0.45, peer: "docker save | lz4 > file"},
		command{args: push, before: noRemote}, saved)
	b.compare(figure{name: "the same by an export, --engine-store off", most: 0.9, peer: "docker save | lz4 > file"},
		command{args: append(slices.Clone(push), "--engine-store", "off"), before: noRemote}, saved)
	b.measure(figure{name: "push again, nothing changed", most: 0.3, absolute: true}, command{args: push})

	empty := func() error { return b.engine.Empty(b.ctx) }
	load := command{args: []string{"docker", "load", "--quiet", "--input", archive}, before: empty, warm: archive}
	b.compare(figure{name: "pull into an engine without it", most: 1.1, peer: "docker load"},
		command{args: pull, before: empty}, load)

	if _, err := b.engine.Load(b.ctx, enginetest.AptChanged); err != nil {
		return err
	}
	b.once(command{args: []string{b.dogestry, "push", "--quiet", remote, changed}})
	onlyBase := func() error {
		if err := empty(); err != nil {
			return err
		}
		_, err := b.engine.Load(b.ctx, enginetest.Apt)
		return err
	}
	b.compare(figure{name: "pull, a 1 MB top layer missing", most: 0.08, peer: "docker load of all"},
		command{args: []string{b.dogestry, "pull", "--quiet", remote, changed}, before: onlyBase}, load)
	return b.err
}

// memory moves an image of 4 GB and notes the peak of resident memory.
func (b *bench) memory() error {
	ref, err := b.loadBig()
	if err != nil {
		return err
	}
	remote := filepath.Join(b.dir, "big")
	for _, compression := range []string{"lz4", "zstd"} {
		if err := os.RemoveAll(remote); err != nil {
			return err
		}
		b.noteMemory("push of 4 GB, "+compression, command{args: []string{b.dogestry, "push", "--quiet", "--compression", compression, remote, ref}})
		b.noteMemory("pull of 4 GB, "+compression, command{
			args:   []string{b.dogestry, "pull", "--quiet", remote, ref},
			before: func() error { return b.engine.Empty(b.ctx) },
		})
	}
	return b.err
}
