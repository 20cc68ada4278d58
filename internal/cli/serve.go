package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/readthrough"
	"github.com/dogestry/dogestry/internal/registry/front"
	"github.com/dogestry/dogestry/internal/registry/page"
	"github.com/dogestry/dogestry/internal/registry/server"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/repo"
)

// serving is what the flags of serve say.
type serving struct {
	writable bool     // clients may push and delete
	mirrors  []string // registries in whose place it answers
	codec    codec.Codec
	cache    cacheFlags

	front fronting // what stands before it
	gate  gating   // and beside it
}

func (a *app) serveCommand() *cobra.Command {
	var o serving
	var compression string
	var readOnly bool
	c := &cobra.Command{
		Use:   "serve [flags] REMOTE",
		Short: "Let registry clients pull from a remote, and push to it",
		Long: `Answer as a registry out of a remote: docker, containerd, Podman, skopeo and
others pull from it, and with --writable push to it. Nothing is kept besides, but
for what --cache keeps of layers and documents, and several may serve one remote.

It listens on this machine alone, unless there are TLS and login. An interrupt lets
running requests end. docs/serve-operations.md has more.`,
		Example: `  dogestry serve /srv/images
  dogestry serve s3://bucket/images --writable --listen 127.0.0.1:5000
  dogestry serve /srv/images --mirror-of docker.io
  dogestry serve s3://bucket/images --cache /var/cache/dogestry --cache-size 50GB
  dogestry serve registry://docker.io --mirror-of docker.io --cache /var/cache/dogestry
  dogestry serve /srv/images --listen :443 --tls-cert cert.pem --tls-key key.pem --htpasswd users`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if o.codec, err = codec.ByName(compression); err != nil {
				return fault.New(fault.Usage, "--compression %s", err)
			}
			if readOnly && o.writable {
				return fault.New(fault.Usage, "--read-only and --writable exclude each other")
			}
			if err := a.checkGating(o.gate); err != nil {
				return err
			}
			set, err := a.configuration()
			if err != nil {
				return err
			}
			o.cache.configure(c, set)
			return a.serve(c.Context(), args[0], o)
		},
	}
	c.Flags().BoolVar(&o.writable, "writable", false, "let clients push and delete, too")
	c.Flags().BoolVar(&readOnly, "read-only", false, "let clients pull alone, which is the default")
	c.Flags().StringVar(&compression, "compression", codec.LZ4.Name(), "how layers are stored that come uncompressed: lz4, zstd or none")
	o.cache.add(c)
	c.Flags().StringSliceVar(&o.mirrors, "mirror-of", nil, "answer also where an engine asks for images of this `REGISTRY`, such as docker.io")
	o.front.flags(c)
	o.gate.flags(c)
	return c
}

func (a *app) serve(ctx context.Context, name string, o serving) error {
	if err := checkRemote(name); err != nil {
		return err
	}
	fo, err := o.front.options(o.writable)
	if err != nil {
		return err
	}
	a.frontLogs(&fo, o.front)
	open := a.registry
	if isRegistry(name) {
		open = a.proxy
	}
	in, err := open(ctx, name, o, fo.Metrics)
	if err != nil {
		return err
	}
	defer in.close() //nolint:errcheck // what counts was made durable before
	if !o.front.noPage {
		fo.Page = in.people
	}
	return a.beside(ctx, o.gate, func(ctx context.Context, proxy string, admit func(address string)) error {
		fo.Ready = func(urls []string) {
			for _, url := range urls {
				_, address, _ := strings.Cut(url, "://")
				admit(address)
			}
			a.printServing(name, urls, proxy)
		}
		return front.Serve(ctx, in.clients, fo)
	})
}

// mirrored returns the registries in whose place it answers.
func (o serving) mirrored() []string {
	var all []string
	for _, m := range o.mirrors {
		all = append(all, server.Registry(m))
	}
	return all
}

// registry is a remote as it is served.
type registry struct {
	clients, people http.Handler
	close           func() error // when no request runs any more
}

// registry opens a remote to be served.
func (a *app) registry(ctx context.Context, name string, o serving, metrics *front.Metrics) (*registry, error) {
	a.noWait = true // a client that would have to wait is told to come again
	mode := toRead
	if o.writable {
		mode = toWrite
	}
	in, err := a.openRemote(ctx, name, mode, o.codec)
	if err != nil {
		return nil, err
	}
	log := a.serveLog()
	so := server.Options{
		Besides: in, StoreMemory: storeMemory(name), WriteMemory: writeMemory(name), MaxBlob: cmp.Or(int64(o.front.maxBlob), front.DefaultMaxBlob),
		Log: log, Damage: func(error) { metrics.Damaged() },
	}
	from, closeCache := original.Remote(in), nothing
	cache, end, err := a.openCache(ctx, o.cache, name, func(line string) { log.Warn(line) })
	if err != nil {
		return nil, err
	}
	if cache != nil {
		through := cache.New(in)
		if o.writable {
			through = cache.NewLive(in)
		}
		from, closeCache, so.Besides = through, end, cachedBesides{in, through}
		so.StoreMemory += readthrough.Memory
		so.Cached = through.Has
	}
	so.From = original.New(from, original.Options{
		Name: name, Log: a.log(), CacheDir: cacheDir(), Key: canonical(name),
		Warn: func(line string) { log.Warn(line) },
	})
	if o.writable {
		so.To = in
	}
	so.Mirrors = o.mirrored()
	return &registry{
		clients: a.sealedMirror(server.New(so), o.mirrors),
		people:  page.New(page.Options{Remote: name, Source: in, ManifestOf: in.ManifestOf, Damage: so.Damage, Log: log}),
		close:   closeCache,
	}, nil
}

// cachedBesides is what a server asks of a remote beside reading it, where parts of
// layers come from a cache.
type cachedBesides struct {
	*repo.Repo
	through *readthrough.Source
}

// OpenRange implements remote.Ranges.
func (c cachedBesides) OpenRange(ctx context.Context, layer remote.Layer, offset, n int64) (io.ReadCloser, error) {
	return c.through.OpenRange(ctx, layer, offset, n)
}

// OpenDecoded implements remote.Unproved.
func (c cachedBesides) OpenDecoded(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	return c.through.OpenDecoded(ctx, layer)
}

// Damage implements remote.Unproved.
func (c cachedBesides) Damage(layer remote.Layer, cause error) error {
	return c.through.Damage(layer, cause)
}

// serveLog returns the logger of what runs until it is stopped: what goes wrong is
// told on stderr, all that happens with --debug.
func (a *app) serveLog() *slog.Logger {
	if a.debug {
		return a.log()
	}
	return slog.New(slog.NewTextHandler(logWriter{a}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// printServing says where clients find the images, and an engine the proxy, if there is one.
func (a *app) printServing(name string, urls []string, proxy string) {
	_, address, _ := strings.Cut(urls[0], "://")
	if a.json {
		said := map[string]any{"remote": name, "address": address, "urls": urls}
		if proxy != "" {
			said["proxy"] = proxy
		}
		a.printJSON(said)
		return
	}
	for _, url := range urls {
		fmt.Fprintf(a.out, "serving %s at %s\n", name, url)
	}
	if !a.quiet {
		fmt.Fprintf(a.errOut, "pull with: docker pull %s/REPOSITORY:TAG\n", address)
	}
}
