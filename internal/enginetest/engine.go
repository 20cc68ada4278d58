// Package enginetest gives tests and benchmarks real Docker Engines and real images.
//
// [Start] runs a private engine with its own socket and its own data root, so that a test may fill, empty and kill it
// without touching the engine of the machine; [For] is the one engine that the tests of a process share. [Engine.Load]
// brings real images (built once, then kept in the module's .cache folder), [Trouble] the images that break careless
// code, and [NewImage] any other.
//
// What works without a [testing.TB] returns errors and takes a context, so that a benchmark program can use it too.
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Repository prefixes every image of this package, except those whose point is their name.
const Repository = "dogestry-test"

// Options say how [Start] runs an engine. The zero value is the machine's own dockerd with the overlay2 driver.
type Options struct {
	// Bin is a folder with a dockerd, and the containerd and shim that belong to it, to use instead of those of PATH.
	Bin string
	// ContainerdStore turns the containerd image store on (Docker 24 and later); otherwise images are in overlay2.
	ContainerdStore bool
	// Podman runs podman's service for Docker's clients instead of a dockerd.
	Podman bool
	// Parent is the folder in which the engine's own folder is made; "" means [os.TempDir]. Keep it short: the paths of
	// unix sockets are limited to 107 bytes.
	Parent string
	// Args are added to the engine's command line, as they are.
	Args []string
	// Env is added to the engine's environment, as in "HTTP_PROXY=…".
	Env []string
	// Namespace is the network that it has; nil is that of this process. Its socket is reached from everywhere.
	Namespace *Namespace
	// Config is its configuration file, in JSON; "" is an empty one.
	Config string
}

// Engine is a Docker Engine that tests may fill and empty at will. Its methods may be called from several goroutines,
// except that nothing else may run during Restart and Stop.
type Engine struct {
	// Host is the engine's address as the docker command takes it: unix:///….
	Host string

	cli     string   // an empty folder, the configuration of the docker command
	private *private // nil for an engine that was found running

	mu      sync.Mutex
	version string
}

// Private reports whether the engine was started by this package. Only such an engine can be killed, and may be emptied
// of everything.
func (e *Engine) Private() bool { return e.private != nil }

// Attach returns the engine that listens at host (unix:///…, tcp://…), after making sure that it answers.
func Attach(ctx context.Context, host string) (*Engine, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	e := &Engine{Host: host, cli: filepath.Join(cache, "docker-cli")}
	if err := os.MkdirAll(e.cli, 0o700); err != nil {
		return nil, err
	}
	if _, err := e.Version(ctx); err != nil {
		return nil, fmt.Errorf("the engine at %s does not answer: %w", host, err)
	}
	return e, nil
}

// Docker runs the docker command against the engine and returns its standard output. An error holds what the command
// wrote to its standard error. No configuration of the user plays a part: no credentials, contexts or plugins, and builds
// use the classic builder, which every engine has.
func (e *Engine) Docker(ctx context.Context, stdin io.Reader, args ...string) (stdout []byte, err error) {
	var out bytes.Buffer
	err = e.DockerStream(ctx, stdin, &out, args...)
	return out.Bytes(), err
}

// DockerStream is [Engine.Docker] for output that is too big to hold.
func (e *Engine) DockerStream(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "docker", append([]string{"-H", e.Host}, args...)...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "DOCKER_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+e.cli, "DOCKER_BUILDKIT=0")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, &stderr
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("no docker command: run script/bootstrap engine")
	case ctx.Err() != nil:
		return fmt.Errorf("docker %s: %w", args[0], ctx.Err())
	}
	return fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
}

// Version is the engine's version, such as "20.10.24+dfsg1".
func (e *Engine) Version(ctx context.Context) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.version == "" {
		out, err := e.Docker(ctx, nil, "version", "--format", "{{.Server.Version}}")
		if err != nil {
			return "", err
		}
		e.version = string(bytes.TrimSpace(out))
	}
	return e.version, nil
}

// ContainerdStore reports whether the engine keeps images in containerd: the ID of an image is then the digest of its
// manifest, not of its config.
func (e *Engine) ContainerdStore(ctx context.Context) (bool, error) {
	out, err := e.Docker(ctx, nil, "info", "--format", "{{.DriverStatus}}")
	return bytes.Contains(out, []byte("io.containerd.snapshotter")), err
}

// ImageID is the ID that the engine shows for ref, "sha256:…"; ok is false when it has no such image.
func (e *Engine) ImageID(ctx context.Context, ref string) (id string, ok bool, err error) {
	out, err := e.Docker(ctx, nil, "image", "inspect", "--format", "{{.Id}}", ref)
	if err != nil {
		if strings.Contains(strings.ToLower(err.Error()), "no such image") {
			return "", false, nil
		}
		return "", false, err
	}
	return string(bytes.TrimSpace(out)), true, nil
}

// LoadImage streams a crafted image into the engine.
func (e *Engine) LoadImage(ctx context.Context, m *Image) error {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := m.Archive(w)
		w.CloseWithError(err)
		written <- err
	}()
	err := e.LoadArchive(ctx, r)
	// An engine that has given up does not read on; the writer must not wait for it.
	_ = r.CloseWithError(io.ErrClosedPipe)
	if werr := <-written; werr != nil && !errors.Is(werr, io.ErrClosedPipe) {
		return werr
	}
	return err
}

// LoadArchive feeds a docker-archive or OCI archive to the engine.
func (e *Engine) LoadArchive(ctx context.Context, r io.Reader) error {
	out, err := e.Docker(ctx, r, "load")
	if err != nil {
		return err
	}
	// Engines with the containerd image store report some failures in the text alone, and exit with 0.
	if bytes.Contains(out, []byte("Error unpacking image")) {
		return fmt.Errorf("docker load: %s", bytes.TrimSpace(out))
	}
	return nil
}

// Save writes the engine's own archive of refs to w.
func (e *Engine) Save(ctx context.Context, w io.Writer, refs ...string) error {
	return e.DockerStream(ctx, nil, w, append([]string{"save"}, refs...)...)
}

// Empty removes all containers and images of a private engine. From an engine that was found running it removes only the
// images whose names this package gave.
func (e *Engine) Empty(ctx context.Context) error {
	if e.Private() {
		out, err := e.Docker(ctx, nil, "ps", "-aq")
		if err != nil {
			return err
		}
		if ids := strings.Fields(string(out)); len(ids) > 0 {
			if _, err := e.Docker(ctx, nil, append([]string{"rm", "-fv"}, ids...)...); err != nil {
				return err
			}
		}
	}
	out, err := e.Docker(ctx, nil, "images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	var names []string
	for line := range strings.Lines(string(out)) {
		ref, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		name := id // removes every tag of it, with -f
		if !e.Private() {
			if !strings.HasPrefix(ref, Repository+"/") && ref != registryRef {
				continue
			}
			name = ref
		}
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	for len(names) > 0 { // a command line has a limit
		n := min(len(names), 100)
		if _, err := e.Docker(ctx, nil, append([]string{"rmi", "-f"}, names[:n]...)...); err != nil {
			return err
		}
		names = names[n:]
	}
	return nil
}
