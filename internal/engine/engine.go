// Package engine speaks to a Docker Engine through its API
// (https://docs.docker.com/reference/api/engine/): it inspects, exports, loads
// and tags images. It holds the knowledge of how engines really behave.
package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli/config"
	dockercontext "github.com/docker/cli/cli/context"
	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
	"github.com/docker/cli/opts"
	"github.com/moby/moby/client"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/sealed"
)

// Client is a connection to one engine. Its methods are safe for concurrent use.
type Client struct {
	api    *client.Client
	host   string     // as the user may have given it
	ssh    *sshDialer // nil where the engine is not behind ssh
	layers *layerCache
	log    *slog.Logger

	id       string
	kind     Kind
	platform image.Platform
	storeUse StoreUse
	ownRoot  string // to read its store from; empty means dataRoot
	dataRoot string // of an engine on this machine, else empty
	driver   string // of its storage

	containerd string // the socket of the containerd that it uses, as it says
}

// Options says which engine is meant.
type Options struct {
	// URL of the engine: unix://, tcp://, ssh://, context://NAME; also the bare name of
	// a docker context. Empty means the one that `docker` would use.
	URL string
	// CacheDir is where the layer lists of images are remembered; empty means nowhere.
	CacheDir string
	Store    StoreUse // empty means StoreAuto
	// DataRoot is where the engine's data root is seen from here, if that is not
	// where the engine says.
	DataRoot string
	// Seal is what may be dialled and run; the engine itself is added to it. Nil seals nothing.
	Seal *sealed.Seal
	Log  *slog.Logger
}

// Connect finds the engine as docker does (DOCKER_HOST, DOCKER_CONTEXT, the
// current context of docker's configuration, the default socket) and makes sure
// that it answers. The caller closes the client.
func Connect(ctx context.Context, o Options) (*Client, error) {
	endpoint, err := resolve(o.URL)
	if err != nil {
		return nil, err
	}
	options, err := clientOptions(endpoint)
	if err != nil {
		return nil, unusable(endpoint.Host, err)
	}
	dial, err := sealedDial(o.Seal, endpoint)
	if err != nil {
		return nil, fault.Wrap(fault.Refused, err, "cannot use the engine at %s", display(endpoint.Host))
	}
	ssh, err := dialSSH(endpoint.Host)
	if err != nil {
		return nil, unusable(endpoint.Host, err)
	}
	api, err := client.New(slices.Concat(options, dial, ssh.options())...) // behind those that dial by themselves
	if err != nil {
		return nil, unusable(endpoint.Host, err)
	}
	c := &Client{api: api, host: display(endpoint.Host), ssh: ssh, layers: openLayerCache(o.CacheDir, o.Log), storeUse: o.Store, ownRoot: o.DataRoot, log: o.Log}
	if _, err := api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		api.Close()
		return nil, c.failure(ctx, err, "cannot reach it")
	}
	if err := c.ask(ctx); err != nil {
		api.Close()
		return nil, err
	}
	if err := c.check(); err != nil {
		api.Close()
		return nil, err
	}
	return c, nil
}

// unusable is the fault of an address that makes no sense.
func unusable(host string, err error) error {
	return fault.Wrap(fault.Usage, err, "cannot use the engine at %s", display(host)).
		Advise("Set --engine or DOCKER_HOST to unix:///path, tcp://host:port or ssh://user@host, or --engine to the name of a docker context.")
}

// Close ends the connection.
func (c *Client) Close() error { return c.api.Close() }

// Host returns the engine's address without credentials.
func (c *Client) Host() string { return c.host }

// resolve returns the endpoint that docker would use, by its order of precedence.
func resolve(override string) (docker.Endpoint, error) {
	if name, ok := contextNamed(override); ok && name == "default" {
		return direct("")
	} else if ok {
		return fromContext(name)
	}
	host := override
	if host == "" {
		host = os.Getenv(client.EnvOverrideHost)
	}
	if host != "" {
		return direct(host)
	}
	name := os.Getenv("DOCKER_CONTEXT")
	if name == "" {
		file, err := config.Load(config.Dir())
		if err != nil {
			return docker.Endpoint{}, fault.Wrap(fault.Other, err, "cannot read docker's configuration")
		}
		name = file.CurrentContext
	}
	if name == "" || name == "default" {
		return direct("")
	}
	return fromContext(name)
}

// direct is the endpoint at host, empty for docker's default, with the TLS that
// the environment says. As with docker, an endpoint of a context has its own.
func direct(host string) (docker.Endpoint, error) {
	verify, unverified := os.Getenv(client.EnvTLSVerify) != "", os.Getenv("DOCKER_TLS") != ""
	asked := verify || unverified
	e := docker.Endpoint{EndpointMeta: docker.EndpointMeta{Host: host}}
	var err error
	if e.Host, err = address(host, asked); err != nil {
		return e, unusable(host, err)
	}
	switch scheme, _, _ := strings.Cut(e.Host, "://"); {
	case scheme == "https" && os.Getenv(client.EnvOverrideCertPath) != "": // it asks by itself
	case asked && (scheme == "tcp" || scheme == "https"):
	default: // also where DOCKER_CERT_PATH alone is set
		return e, nil
	}
	e.SkipTLSVerify = unverified && !verify
	if e.TLSData, err = certificates(); err != nil {
		return e, fault.Wrap(fault.Usage, err, "cannot use TLS with the engine at %s", display(e.Host)).
			Advise("Put ca.pem, and cert.pem and key.pem if the engine wants to know you, where DOCKER_CERT_PATH says; or unset DOCKER_TLS_VERIFY and DOCKER_TLS.")
	}
	return e, nil
}

// address is host as docker completes it: tcp:// where it has no scheme, and the
// default port. Of http and https, which docker does not take, nothing is changed.
func address(host string, withTLS bool) (string, error) {
	host = strings.TrimSpace(host)
	if host != "" {
		if err := checkURL(host); err != nil {
			return host, err
		}
		if strings.HasPrefix(host, "http://") || strings.HasPrefix(host, "https://") {
			return host, nil
		}
	}
	return opts.ParseHost(withTLS, host)
}

// certificates reads what docker presents to engines and trusts them by. It may
// have no certificate of its own; ca.pem must be there.
func certificates() (*dockercontext.TLSData, error) {
	dir := os.Getenv(client.EnvOverrideCertPath)
	if dir == "" {
		dir = config.Dir()
	}
	own := [2]string{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	for i, name := range own {
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			own[i] = ""
		}
	}
	return dockercontext.TLSDataFromFiles(filepath.Join(dir, "ca.pem"), own[0], own[1])
}

// Endpoint returns the address of the engine that Options.URL stands for, as it may be
// shown. It contacts nobody.
func Endpoint(engineURL string) (string, error) {
	e, err := resolve(engineURL)
	return display(e.Host), err
}

// contextScheme is what an engine's URL begins with that names a docker context.
const contextScheme = "context://"

// contextNamed reports whether an engine is named as one of docker's contexts: with
// the scheme, or by a bare name that one has, and no address needs.
func contextNamed(host string) (name string, ok bool) {
	if name, ok = strings.CutPrefix(host, contextScheme); ok {
		return name, true
	}
	if host == "" || strings.ContainsAny(host, ":/@") || store.ValidateContextName(host) != nil {
		return "", false
	}
	_, err := dockerContexts().GetMetadata(host)
	return host, err == nil
}

func dockerContexts() *store.ContextStore {
	return store.New(config.ContextStoreDir(), store.NewConfig(
		func() any { return &map[string]any{} },
		store.EndpointTypeGetter(docker.DockerEndpoint, func() any { return &docker.EndpointMeta{} }),
	))
}

func fromContext(name string) (docker.Endpoint, error) {
	contexts := dockerContexts()
	fail := func(err error) (docker.Endpoint, error) {
		kind := fault.Other
		if errdefs.IsNotFound(err) {
			kind = fault.NotFound
		}
		return docker.Endpoint{}, fault.Wrap(kind, err, "cannot use the docker context %q", name).
			Advise("See `docker context ls`, or set --engine URL.")
	}
	meta, err := contexts.GetMetadata(name)
	if err != nil {
		return fail(err)
	}
	endpoint, err := docker.EndpointFromContext(meta)
	if err != nil {
		return fail(err)
	}
	withTLS, err := docker.WithTLSData(contexts, name, endpoint)
	if err != nil {
		return fail(err)
	}
	return withTLS, nil
}

// socketBuffer is how much is read from or written to an engine at once, in
// bytes. With net/http's 4 KiB, each 32 KiB of an archive take two system calls.
const socketBuffer = 256 << 10

// clientOptions says how to speak to the endpoint.
func clientOptions(endpoint docker.Endpoint) ([]client.Opt, error) {
	if err := checkURL(endpoint.Host); err != nil {
		return nil, err
	}
	if strings.HasPrefix(endpoint.Host, "https://") && endpoint.TLSData == nil {
		endpoint.TLSData = &dockercontext.TLSData{} // else it would be spoken to without TLS
	}
	own, err := endpoint.ClientOpts()
	if err != nil {
		return nil, err
	}
	// Before the endpoint's options, which may bring a client of their own.
	return append([]client.Opt{client.WithHTTPClient(&http.Client{
		Transport: &http.Transport{
			WriteBufferSize: socketBuffer,
			ReadBufferSize:  socketBuffer,
			// Engines speak HTTP/1. Left to itself, a copy of the transport
			// prepares for HTTP/2, and the client takes that for TLS.
			TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
		},
		CheckRedirect: client.CheckRedirect,
	})}, own...), nil
}

// checkURL refuses what cannot be an engine's address, before docker's own parser
// takes it for something else (a path for one on localhost, say), or its errors
// show a password.
func checkURL(host string) error {
	scheme, rest, ok := strings.Cut(host, "://")
	if !ok {
		scheme, rest = "tcp", host
	}
	if scheme == "tcp" && (strings.HasPrefix(rest, "/") || !ok && strings.ContainsRune(rest, '/')) {
		return errors.New("it is not a URL")
	}
	switch scheme {
	case "unix", "tcp", "http", "https", "ssh", "npipe", "fd":
	default:
		return fmt.Errorf("%.20q is not a scheme for engines", scheme)
	}
	if display(host) != host {
		return errors.New("engines take no password in a URL")
	}
	return nil
}

// Redact returns the URL of an engine as it may be shown: without the password that
// somebody may have written into it.
func Redact(engineURL string) string { return display(engineURL) }

// display returns host without the password it may hold, also where it is no URL.
func display(host string) string {
	at := strings.LastIndexByte(host, '@')
	if at < 0 {
		return host
	}
	start := 0
	if i := strings.Index(host, "://"); i >= 0 {
		start = i + len("://")
	}
	colon := strings.IndexByte(host[start:max(start, at)], ':')
	if colon < 0 || host[start] == '/' { // a path has no password
		return host
	}
	return host[:start+colon] + ":xxxxx" + host[at:]
}

// notThere is what to do where no engine answers.
func notThere(host string) string {
	if rest, ok := strings.CutPrefix(host, "ssh://"); ok && strings.Contains(strings.Trim(rest, "/"), "/") {
		server, path, _ := strings.Cut(rest, "/")
		return fmt.Sprintf("/%s is taken for the engine's socket on the host: an engine is ssh://%s, and a directory there is a remote (ssh://%s), which is no --engine.", path, server, rest)
	}
	return "Start it, or say where it is: --engine URL, DOCKER_HOST, or `docker context use NAME`."
}

// failure says in the user's words why the engine could not do what was asked.
// It passes the end of ctx on as it is.
func (c *Client) failure(ctx context.Context, err error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	unconnected := client.IsErrConnectionFailed(err)
	if unconnected {
		err = c.ssh.why(err)
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, ctx.Err())
	case sealed.Refusal(err) != nil:
		return fault.Wrap(fault.Refused, sealed.Refusal(err), "the engine at %s: %s", c.host, what)
	// The client says it in words of its own.
	case errors.Is(err, fs.ErrPermission), unconnected && strings.Contains(err.Error(), "permission denied"):
		return fault.Wrap(fault.Refused, err, "no permission to use the Docker Engine at %s", c.host).
			Advise("Join the group that owns the socket (often `docker`), or run as root.")
	case unconnected:
		var request *url.Error
		if errors.As(err, &request) {
			err = request.Err // without the request's path
		}
		return fault.Wrap(fault.Other, absent{err}, "no Docker Engine answers at %s", c.host).
			Advise("%s", notThere(c.host))
	case strings.Contains(err.Error(), "no space left on device"):
		return fault.Wrap(fault.Other, err, "the engine at %s has no space left: %s", c.host, what).
			Advise("Free space under the engine's data root (`docker system df`, `docker image prune`).")
	default:
		return fault.Wrap(fault.Other, err, "the engine at %s: %s", c.host, what)
	}
}

// ErrAbsent is what errors are that say that no engine answers.
var ErrAbsent = errors.New("no engine answers")

// absent makes an error ErrAbsent, and keeps what it says.
type absent struct{ error }

func (a absent) Unwrap() []error { return []error{a.error, ErrAbsent} }
