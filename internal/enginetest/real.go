package enginetest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// ImageName names one of the real images, as docker does.
type ImageName string

// The real images. All but Hello are built once, as root, with packages from a Debian mirror, which takes minutes.
const (
	// Debian is a minimal Debian, one layer.
	Debian ImageName = Repository + "/debian:bookworm"
	// Apt is Debian with five more layers, each an apt-get install: about 450 MB of layer tars.
	Apt ImageName = Repository + "/apt:1"
	// AptChanged is Apt with one more layer of 1 MB: what a day's work changes.
	AptChanged ImageName = Repository + "/apt:2"
	// Hello is one static binary that prints "hello from dogestry" and its arguments, one a line.
	Hello ImageName = Repository + "/hello:1"
)

// MirrorVariable names the environment variable that holds the Debian mirror to build from; debootstrap has a default.
const MirrorVariable = "DOGESTRY_DEBIAN_MIRROR"

// aptFile makes the layers of [Apt], from the bottom up, without what apt needs no more.
var aptFile = func() string {
	lines := "FROM " + string(Debian) + "\nENV DEBIAN_FRONTEND=noninteractive\n"
	for _, packages := range []string{"ca-certificates curl", "git", "python3", "ruby", "gcc"} {
		lines += "RUN apt-get update && apt-get install -y --no-install-recommends " + packages +
			" && apt-get clean && rm -rf /var/lib/apt/lists/*\n"
	}
	return lines
}()

const aptChangedFile = `FROM ` + string(Apt) + `
COPY app /srv/app
CMD ["/bin/ls", "-l", "/srv/app"]
`

// Archive returns the path of the docker-archive of a real image, building it first if the cache lacks it. ctx should
// allow ten minutes for that.
func Archive(ctx context.Context, name ImageName) (path string, err error) {
	switch name {
	case Hello:
		return helloArchive(ctx)
	case Debian:
		return once(ctx, "debian.tar", "minbase bookworm "+runtime.GOARCH, buildDebian)
	case Apt:
		return once(ctx, "apt-1.tar", aptFile+runtime.GOARCH, func(ctx context.Context, path string) error {
			return dockerBuild(ctx, path, Debian, Apt, aptFile, nil)
		})
	case AptChanged:
		base, err := Archive(ctx, Apt)
		if err != nil {
			return "", err
		}
		// The two must share their layers: another Apt, of the same recipe on another day, makes another AptChanged.
		made, err := tail(base, 16<<10) // with manifest.json, which names the config
		if err != nil {
			return "", err
		}
		return once(ctx, "apt-2.tar", aptChangedFile+string(made), func(ctx context.Context, path string) error {
			app := bigLayer(1<<20, 1_000_000).Bytes()[tarBlock:][:1_000_000]
			return dockerBuild(ctx, path, Apt, AptChanged, aptChangedFile, app)
		})
	}
	return "", fmt.Errorf("no recipe for the image %s", name)
}

// Load makes sure that the engine has the image, from the cache if it does not, and returns the reference to use.
func (e *Engine) Load(ctx context.Context, name ImageName) (ref string, err error) {
	if _, ok, err := e.ImageID(ctx, string(name)); ok || err != nil {
		return string(name), err
	}
	path, err := Archive(ctx, name)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return string(name), e.LoadArchive(ctx, f)
}

func helloArchive(ctx context.Context) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, "internal", "enginetest", "hello")
	code, err := os.ReadFile(filepath.Join(source, "main.go"))
	if err != nil {
		return "", err
	}
	return once(ctx, "hello-1.tar", string(code)+runtime.GOARCH, func(ctx context.Context, path string) error {
		binary := path + ".bin"
		defer os.Remove(binary)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", binary, ".")
		cmd.Dir = source
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w: %s", err, out)
		}
		content, err := os.ReadFile(binary)
		if err != nil {
			return err
		}
		m := NewImage().Tag(string(Hello)).Entrypoint("/hello").Layer(File("hello", 0o755, string(content)))
		return writeFile(path, m.Archive)
	})
}

// buildDebian makes a docker-archive of a fresh Debian. The layer is tarred by the tar command, as other people's are.
func buildDebian(ctx context.Context, path string) error {
	if os.Getuid() != 0 {
		return errors.New("debootstrap needs root: run the tests as root once")
	}
	rootfs := path + ".rootfs"
	layer := path + ".layer"
	defer os.Remove(layer)
	defer os.RemoveAll(rootfs)
	if err := os.RemoveAll(rootfs); err != nil {
		return err
	}
	args := []string{"--variant=minbase", "bookworm", rootfs}
	if mirror := os.Getenv(MirrorVariable); mirror != "" {
		args = append(args, mirror)
	}
	if err := run(ctx, "debootstrap", args...); err != nil {
		return fmt.Errorf("%w (not installed? run script/bootstrap test)", err)
	}
	for _, pattern := range []string{"var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/lib/apt/lists/*", "var/log/*.log"} {
		files, err := filepath.Glob(filepath.Join(rootfs, pattern))
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.RemoveAll(f); err != nil {
				return err
			}
		}
	}
	if err := run(ctx, "tar", "--numeric-owner", "--sort=name", "-C", rootfs, "-cf", layer, "."); err != nil {
		return err
	}
	l, err := fileLayer(layer)
	if err != nil {
		return err
	}
	return writeFile(path, NewImage().Tag(string(Debian)).Add(l).Archive)
}

// dockerBuild builds name as build does on an engine of its own, so that no other holds half of it already, and saves it to
// path.
func dockerBuild(ctx context.Context, path string, from, name ImageName, dockerfile string, app []byte) (err error) {
	e, err := Start(ctx, Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Stop()) }()
	if _, err := e.Load(ctx, from); err != nil {
		return err
	}
	if err := e.build(ctx, string(name), dockerfile, app); err != nil {
		return err
	}
	return writeFile(path, func(w io.Writer) error { return e.Save(ctx, w, string(name)) })
}

// build builds name from a Dockerfile. The context is the Dockerfile and, if given, a file named app. It has the network and the
// proxies of this process.
func (e *Engine) build(ctx context.Context, name, dockerfile string, app []byte) error {
	var files bytes.Buffer
	t := tar.NewWriter(&files)
	for _, f := range []Entry{File("Dockerfile", 0o644, dockerfile), File("app", 0o644, string(app))} {
		if err := writeEntry(t, &files, f); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	args := []string{"build", "--network=host", "--tag", name}
	for _, proxy := range []string{"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"} {
		if os.Getenv(proxy) != "" {
			args = append(args, "--build-arg", proxy) // its value is taken from the environment, and stays out of the image
		}
	}
	if out, err := e.Docker(ctx, &files, append(args, "-")...); err != nil {
		return fmt.Errorf("%w\n%s", err, out[max(0, len(out)-2000):])
	}
	return nil
}

// run runs a command whose output matters only when it fails.
func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out[max(0, len(out)-2000):])
	}
	return nil
}

// tail is the last n bytes of the file at path, or all of it.
func tail(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	at := max(0, info.Size()-n)
	return io.ReadAll(io.NewSectionReader(f, at, info.Size()-at))
}

func writeFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return write(f)
}
