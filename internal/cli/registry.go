package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/trust"
)

// isRegistry reports whether a name is that of a registry, and no store's.
func isRegistry(name string) bool { return strings.HasPrefix(name, "registry://") }

// dockerCerts is where docker has authorities and certificates for registries.
const dockerCerts = "/etc/docker/certs.d"

// openImages opens a remote for what any kind of remote can do: a repository on a
// store, or a registry. Compression is what the user asked for, empty for each
// kind's own.
func (a *app) openImages(ctx context.Context, name string, mode access, compression string) (remote.Remote, error) {
	if isRegistry(name) {
		return a.openRegistry(name, mode, compression)
	}
	method, err := storedAs(compression)
	if err != nil {
		return nil, err
	}
	r, err := a.openRemote(ctx, name, mode, method)
	if err != nil {
		return nil, err // and no interface with nil in it
	}
	return r, nil
}

// checkCompression refuses a --compression that a remote does not know.
func checkCompression(name, compression string) (err error) {
	p, _, isPlace := placeOf(name)
	switch {
	case isPlace && compression != "":
		return fault.New(fault.Usage, "%s is %s, whose layers are not compressed anew: --compression is for remotes", name, p.what)
	case isRegistry(name):
		_, err = client.ParseCompression(compression)
	default:
		_, err = storedAs(compression)
	}
	return err
}

// checkTypedCompression is checkCompression for the value of a command's flag.
func checkTypedCompression(c *cobra.Command, name, compression string) error {
	if c.Flags().Changed("compression") && compression == "" {
		return fault.New(fault.Usage, "--compression is empty").Advise("Name one, or leave it out.")
	}
	return checkCompression(name, compression)
}

// storedAs reads the value of --compression for a store.
func storedAs(compression string) (codec.Codec, error) {
	if compression == "" {
		return codec.LZ4, nil
	}
	method, err := codec.ByName(compression)
	if err != nil {
		return method, fault.New(fault.Usage, "--compression %s", err)
	}
	return method, nil
}

func (a *app) openRegistry(name string, mode access, compression string) (*client.Registry, error) {
	address, err := client.Parse(name)
	if err != nil {
		return nil, err
	}
	method, err := client.ParseCompression(compression)
	if err != nil {
		return nil, err
	}
	return client.Open(a.registryOptions(name, address, mode, method))
}

func (a *app) registryOptions(name string, address client.Address, mode access, method client.Compression) client.Options {
	return client.Options{
		Address: address, Name: name, Compression: method, NoIndex: a.noIndex, CacheDir: cacheDir(),
		Writes: mode != toRead, Plan: mode == toPlan,
		Credentials: client.DockerCredentials("", a.seal), Seal: a.seal, CertsDir: dockerCerts,
		UploadLimit: int64(a.uploadLimit), DownloadLimit: int64(a.downloadLimit),
		Log: a.log(), Notify: a.note,
	}
}

// openRegistryToRead opens a registry for what is read of it, through the cache that
// there may be. The caller calls what it returns to close it.
func (a *app) openRegistryToRead(ctx context.Context, name string, f cacheFlags) (remote.Source, func() error, error) {
	from, err := a.openRegistry(name, toRead, "")
	if err != nil {
		return nil, nil, err
	}
	cache, closeCache, err := a.openCache(ctx, f, name, a.note)
	if err != nil {
		return nil, nil, errors.Join(err, from.Close())
	}
	if cache == nil {
		return from, from.Close, nil
	}
	return cache.NewRegistry(from), func() error { return errors.Join(closeCache(), from.Close()) }, nil
}

// signatures returns the signatures of a remote, or says that it keeps none.
func signatures(in remote.Source, name string) (trust.Source, error) {
	if s, ok := in.(trust.Source); ok && !isRegistry(name) {
		return s, nil
	}
	return nil, fault.New(fault.Refused, "%s keeps no signatures of dogestry", name).
		Advise("Signed tags are in directories and buckets. To pull without, once: --require-signature=false.")
}

// noStore is the fault of a command that works on what a store holds.
func noStore(name string) error {
	return fault.New(fault.Usage, "%s is a registry, and this command is for directories and buckets", name).
		Advise("push, pull, copy, list, inspect, tag, rm and verify work with registries. "+
			"To bring images into a directory or bucket: dogestry copy %s REMOTE IMAGE…", name)
}
