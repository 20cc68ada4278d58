package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/dogestry/dogestry/internal/enginetest"
)

// registryBinary is where script/bootstrap bench puts a stock registry
// (github.com/distribution/distribution).
const registryBinary = ".cache/bin/registry"

// registry is a stock registry on loopback, over a folder of its own.
type registry struct {
	address string
	data    string
	cmd     *exec.Cmd
	log     bytes.Buffer
}

func startRegistry(ctx context.Context, dir string) (*registry, error) {
	binary, err := filepath.Abs(registryBinary)
	if err == nil {
		_, err = os.Stat(binary)
	}
	if err != nil {
		return nil, fmt.Errorf("no registry: run script/bootstrap bench: %w", err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &registry{address: free.Addr().String(), data: filepath.Join(dir, "registry")}
	config := filepath.Join(dir, "registry.yml")
	content := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", r.data, r.address)
	if err := errors.Join(free.Close(), os.MkdirAll(r.data, 0o755), os.WriteFile(config, []byte(content), 0o600)); err != nil {
		return nil, err
	}
	r.cmd = exec.Command(binary, "serve", config)
	r.cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	r.cmd.Stdout, r.cmd.Stderr = &r.log, &r.log
	dieWithUs(r.cmd)
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	if err := answers(ctx, r.address); err != nil {
		return nil, errors.Join(r.stop(), fmt.Errorf("the registry does not answer: %w\n%s", err, r.log.Bytes()))
	}
	return r, nil
}

func (r *registry) stop() error {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait() // killed is how it ends
	return os.RemoveAll(r.data)
}

// linkNetwork is where engines trust registries without TLS: see link.
const linkNetwork = "198.18.213.0/30"

// onRegistry runs measure with a stock registry on loopback, and stops that.
func (b *bench) onRegistry(measure func(r *registry) error) func() error {
	return func() error {
		r, err := startRegistry(b.ctx, b.dir)
		if err != nil {
			return err
		}
		return errors.Join(measure(r), r.stop())
	}
}

// registryPeers measures push and pull of the apt-built image against docker's own
// with a registry.
func (b *bench) registryPeers(r *registry) error {
	archive, err := enginetest.Archive(b.ctx, enginetest.Apt)
	if err != nil {
		return err
	}
	there := func(tag string) string { return r.address + "/bench/apt:" + tag }
	remote, whole := filepath.Join(b.dir, "remote"), filepath.Join(b.dir, "remote-whole")
	registryWhole := r.data + "-whole"
	defer os.RemoveAll(registryWhole)

	// Both have the image, and copies of that state are kept, to begin from again.
	image, changed, err := b.loadBoth()
	if err != nil {
		return err
	}
	tag := func() error {
		for ref, name := range map[string]string{image: there("1"), changed: there("2")} {
			if _, err := b.engine.Docker(b.ctx, nil, "tag", ref, name); err != nil {
				return err
			}
		}
		return nil
	}
	if err := tag(); err != nil {
		return err
	}
	pushed := []string{b.dogestry, "push", "--quiet", remote}
	b.compare(figure{name: "first push", most: b.classicOnly(0.2), peer: "docker push to an empty registry"},
		command{args: append(pushed, image), before: func() error { return os.RemoveAll(remote) }},
		command{args: []string{"docker", "push", "--quiet", there("1")}, before: func() error { return os.RemoveAll(r.data) }})
	b.shell("rm -rf %s %s; cp -al %s %s; cp -a %s %s", whole, registryWhole, remote, whole, r.data, registryWhole)

	ours := command{args: append(pushed, changed), before: func() error { return b.shell("rm -rf %s; cp -al %s %s", remote, whole, remote) }}
	b.compare(figure{name: "push, a 1 MB top layer changed", most: 0.05, peer: "docker save > /dev/null"}, ours,
		command{args: []string{"sh", "-c", "docker save " + changed + " > /dev/null"}})
	b.compare(figure{name: "the same", most: 1, peer: "docker push of it"}, ours,
		command{args: []string{"docker", "push", "--quiet", there("2")}, before: func() error { return b.shell("rm -rf %s; cp -a %s %s", r.data, registryWhole, r.data) }})
	b.once(command{args: append(pushed, image)})
	b.once(command{args: append(pushed, changed)})
	b.once(command{args: []string{"docker", "push", "--quiet", there("2")}})

	empty := func() error { return b.engine.Empty(b.ctx) }
	pull := func(ref string) []string { return []string{b.dogestry, "pull", "--quiet", remote, ref} }
	dockerPull := func(tag string) []string { return []string{"docker", "pull", "--quiet", there(tag)} }
	b.compare(figure{name: "pull into an engine without it", most: 1, peer: "docker pull"},
		command{args: pull(image), before: empty}, command{args: dockerPull("1"), before: empty})
	b.compare(figure{name: "the same", most: 1.1, peer: "docker load"},
		command{args: pull(image), before: empty},
		command{args: []string{"docker", "load", "--quiet", "--input", archive}, before: empty, warm: archive})
	warmed := func(get []string) func() error {
		return func() error {
			if err := empty(); err != nil {
				return err
			}
			b.once(command{args: get})
			return b.err
		}
	}
	b.compare(figure{name: "pull, a 1 MB top layer missing", most: 1, peer: "docker pull of the same"},
		command{args: pull(changed), before: warmed(pull(image))},
		command{args: dockerPull("2"), before: warmed(dockerPull("1"))})
	return b.err
}

// loadBoth brings the apt-built image and the one with another top layer into the engine.
func (b *bench) loadBoth() (image, changed string, err error) {
	if image, err = b.engine.Load(b.ctx, enginetest.Apt); err == nil {
		changed, err = b.engine.Load(b.ctx, enginetest.AptChanged)
	}
	return image, changed, err
}

// shell runs what is not timed.
func (b *bench) shell(format string, args ...any) error {
	out, err := exec.CommandContext(b.ctx, "sh", "-ec", fmt.Sprintf(format, args...)).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
		if b.err == nil {
			b.err = err
		}
	}
	return err
}
