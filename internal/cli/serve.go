package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/readthrough"
	"github.com/dogestry/dogestry/internal/registry/server"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/repo"
)

// serving is what the flags of serve say.
type serving struct {
	listen   string   // host:port
	writable bool     // clients may push and delete
	mirrors  []string // registries in whose place it answers
	codec    codec.Codec
	cache    cacheFlags
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

It listens on this machine alone. An interrupt lets running requests end.`,
		Example: `  dogestry serve /srv/images
  dogestry serve s3://bucket/images --writable --listen 127.0.0.1:5000
  dogestry serve /srv/images --mirror-of docker.io
  dogestry serve s3://bucket/images --cache /var/cache/dogestry --cache-size 50GB`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if o.codec, err = codec.ByName(compression); err != nil {
				return fault.New(fault.Usage, "--compression %s", err)
			}
			if readOnly && o.writable {
				return fault.New(fault.Usage, "--read-only and --writable exclude each other")
			}
			set, err := a.configuration()
			if err != nil {
				return err
			}
			o.cache.configure(c, set)
			return a.serve(c.Context(), args[0], o)
		},
	}
	c.Flags().StringVar(&o.listen, "listen", "127.0.0.1:5000", "`ADDRESS:PORT` to listen at; port 0 is any that is free")
	c.Flags().BoolVar(&o.writable, "writable", false, "let clients push and delete, too")
	c.Flags().BoolVar(&readOnly, "read-only", false, "let clients pull alone, which is the default")
	c.Flags().StringVar(&compression, "compression", codec.LZ4.Name(), "how layers are stored that come uncompressed: lz4, zstd or none")
	o.cache.add(c)
	c.Flags().StringSliceVar(&o.mirrors, "mirror-of", nil, "answer also where an engine asks for images of this `REGISTRY`, such as docker.io")
	return c
}

func (a *app) serve(ctx context.Context, name string, o serving) error {
	if err := checkRemote(name); err != nil {
		return err
	}
	handler, closeHandler, err := a.registry(ctx, name, o)
	if err != nil {
		return err
	}
	defer closeHandler() //nolint:errcheck // what counts was made durable before
	listener, err := listenOnLoopback(ctx, o.listen)
	if err != nil {
		return err
	}
	a.printServing(name, listener.Addr().String())
	return serveUntil(ctx, listener, handler, a.log())
}

// registry returns the handler of a remote's images. The caller calls what it returns
// to close it, when no request runs any more.
func (a *app) registry(ctx context.Context, name string, o serving) (http.Handler, func() error, error) {
	a.noWait = true // a client that would have to wait is told to come again
	mode := toRead
	if o.writable {
		mode = toWrite
	}
	in, err := a.openRemote(ctx, name, mode, o.codec)
	if err != nil {
		return nil, nil, err
	}
	log := a.serveLog()
	so := server.Options{Besides: in, StoreMemory: storeMemory(name), Log: log}
	from, closeCache := original.Remote(in), nothing
	if o.cache.dir != "" {
		cache, end, err := a.openCache(ctx, o.cache, name, func(line string) { log.Warn(line) })
		if err != nil {
			return nil, nil, err
		}
		through := cache.New(in)
		if o.writable {
			through = cache.NewLive(in)
		}
		from, closeCache, so.Besides = through, end, cachedBesides{in, through}
		so.StoreMemory += readthrough.Memory
	}
	so.From = original.New(from, original.Options{
		Name: name, Log: a.log(), CacheDir: cacheDir(), Key: canonical(name),
		Warn: func(line string) { log.Warn(line) },
	})
	if o.writable {
		so.To = in
	}
	for _, m := range o.mirrors {
		so.Mirrors = append(so.Mirrors, server.Registry(m))
	}
	return server.New(so), closeCache, nil
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

// ObjectVersion implements server.Versions.
func (c cachedBesides) ObjectVersion(ctx context.Context, layer remote.Layer) (string, error) {
	return c.through.ObjectVersion(ctx, layer)
}

// serveLog returns the logger of what runs until it is stopped: what goes wrong is
// told on stderr, all that happens with --debug.
func (a *app) serveLog() *slog.Logger {
	if a.debug {
		return a.log()
	}
	return slog.New(slog.NewTextHandler(logWriter{a}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// printServing says where clients find the images.
func (a *app) printServing(name, address string) {
	if a.json {
		a.printJSON(map[string]any{"remote": name, "address": address})
		return
	}
	fmt.Fprintf(a.out, "serving %s at http://%s\n", name, address)
	if !a.quiet {
		fmt.Fprintf(a.errOut, "pull with: docker pull %s/REPOSITORY:TAG\n", address)
	}
}

// listenOnLoopback listens where nobody but this machine can ask.
func listenOnLoopback(ctx context.Context, address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fault.Wrap(fault.Other, err, "cannot listen at %s", address).
			Advise("Another program may be there already: choose another port with --listen.")
	}
	if at, ok := listener.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() {
		return nil, errors.Join(fault.New(fault.Usage, "%s can be reached from other machines", address).
			Advise("Listen at 127.0.0.1 or [::1]: nobody has to log in here."), listener.Close())
	}
	return listener, nil
}

const (
	// stopTime is how long requests may go on once the program is to end.
	stopTime = 10 * time.Second
	// headerTime is how long a client may take to say what it wants.
	headerTime = 30 * time.Second
)

// serveUntil answers requests until ctx ends, and then those that have begun.
func serveUntil(ctx context.Context, listener net.Listener, handler http.Handler, log *slog.Logger) error {
	s := &http.Server{Handler: handler, ReadHeaderTimeout: headerTime, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(listener) }()
	select {
	case err := <-ended:
		return fault.Wrap(fault.Other, err, "cannot go on serving at %s", listener.Addr())
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	err := s.Shutdown(late)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.Close() // the connections that are left break
	}
	<-ended
	return err
}
