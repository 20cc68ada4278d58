// Package client is a registry (OCI distribution specification 1.1) as a remote.
//
// A registry keeps the images of each repository by themselves: In gives the remote
// of one. What has no repository of its own (a list, a verification) is asked of the
// Registry, which looks for a digest where it was named in this run.
package client

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
	"github.com/dogestry/dogestry/internal/throttle"
)

// Options say which registry is meant and how to use it.
type Options struct {
	Address
	Name string // as the user named it, for messages

	Compression Compression // of layers that come as tars
	NoIndex     bool        // zstd: without a chunk index, and in as few frames as the codec makes
	CacheDir    string      // where pushes remember what they compressed; "" remembers nothing
	Writes      bool        // ask for the right to push, too
	Plan        bool        // change nothing: a layer that could be mounted counts as there

	// Serving says that it is asked by others, for whatever they like and for long. What
	// it remembers is bounded then, and where there is no image of a name it does not
	// list what there is instead.
	Serving bool

	// Credentials returns those for the registry; nil knows none. It is asked once.
	Credentials func(ctx context.Context, host string) (Credentials, error)

	// Seal keeps it from contacting anybody else; nil does not. The registry itself is
	// admitted. Who gives out its tokens, and where it redirects to, has to be named.
	Seal *sealed.Seal

	Dial          throttle.Dialer // nil: that of net.Dialer. All connections are made by it
	UploadLimit   int64           // bytes a second, of all requests together; 0: none
	DownloadLimit int64

	CertsDir string // of a directory for each host, as docker has it in /etc/docker/certs.d; "" reads none

	Log    *slog.Logger
	Notify func(line string) // is told of retries, from any goroutine; may be nil

	// Chunk is how many bytes of a blob are sent at once, and held for it; 0: 8 MiB.
	Chunk int

	// Wait waits before something is tried again; nil does as time goes by.
	Wait func(ctx context.Context, d time.Duration) error
	// Stall is how long a connection may carry nothing while one of its sides waits for
	// the rest of an answer or sends; 0: a minute.
	Stall time.Duration
}

// Credentials are what docker stores for a registry. They are never shown.
type Credentials struct {
	User, Password string
	IdentityToken  string // to be exchanged for others, instead of user and password
	RegistryToken  string // to be sent as it is
}

// LogValue keeps them out of logs.
func (Credentials) LogValue() slog.Value { return slog.StringValue("credentials") }

// String keeps them out of messages.
func (Credentials) String() string { return "credentials" }

// Compression is how layers are stored that come as tars.
type Compression int

// The compressions. Engines from Docker 23 on take all; before that no zstd.
const (
	Gzip Compression = iota
	Zstd
	None
)

// ParseCompression reads the value of --compression; "" is gzip.
func ParseCompression(s string) (Compression, error) {
	switch s {
	case "", "gzip":
		return Gzip, nil
	case "zstd":
		return Zstd, nil
	case "none":
		return None, nil
	}
	return Gzip, fault.New(fault.Usage, "--compression %.40q: layers in a registry are gzip, zstd or none", s)
}

// media returns the media type of a layer (OCI image-spec, layer.md).
func (c Compression) media() string {
	const tar = "application/vnd.oci.image.layer.v1.tar"
	return tar + [...]string{Gzip: "+gzip", Zstd: "+zstd", None: ""}[c]
}

// encode returns a tar as the options say that it is stored. A registry keeps blobs byte
// for byte, and who decodes zstd passes over the index (RFC 8878, "Skippable Frames").
func (o Options) encode(tar io.Reader) io.ReadCloser {
	switch {
	case o.Compression == Gzip:
		return codec.EncodeGzip(tar)
	case o.Compression == Zstd && !o.NoIndex:
		return chunk.Encode(codec.Zstd, tar)
	case o.Compression == Zstd:
		return codec.Zstd.Encode(tar)
	}
	return codec.None.Encode(tar)
}

const (
	defaultChunk = 8 << 20
	mostChunk    = 16 << 20 // that a registry may ask for
	defaultStall = time.Minute
)

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Notify == nil {
		o.Notify = func(string) {}
	}
	if o.Chunk <= 0 {
		o.Chunk = defaultChunk
	}
	if o.Stall <= 0 {
		o.Stall = defaultStall
	}
	if o.Wait == nil {
		o.Wait = wait
	}
	return o
}

// wait waits for d, unless ctx ends before.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
