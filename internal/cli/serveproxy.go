package cli

import (
	"context"
	"errors"
	"slices"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/readthrough"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/front"
	"github.com/dogestry/dogestry/internal/registry/page"
	"github.com/dogestry/dogestry/internal/registry/server"
)

// proxy opens a registry to be served: what it has, read only.
func (a *app) proxy(ctx context.Context, name string, o serving, metrics *front.Metrics) (*registry, error) {
	if o.writable {
		return nil, fault.New(fault.Usage, "%s is a registry, and is served to pull from alone", name).
			Advise("Push to it directly, by docker or by: dogestry push %s IMAGE. Or serve a directory or bucket: dogestry serve REMOTE --writable", name)
	}
	address, err := client.Parse(name)
	if err != nil {
		return nil, err
	}
	options := a.registryOptions(name, address, toRead, client.Gzip)
	options.Serving = true
	log := a.serveLog()
	options.Notify = func(line string) { log.Warn(line) }
	in, err := client.Open(options)
	if err != nil {
		return nil, err
	}
	cache, closeCache, err := a.openCache(ctx, o.cache, name, options.Notify)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	so := server.Options{From: in, Mirrors: o.mirrored(), Log: log, Damage: func(error) { metrics.Damaged() }}
	if own := server.Registry(address.Host); address.Prefix == "" && slices.Contains(so.Mirrors, own) {
		so.Own = own
	}
	if cache != nil {
		through := cache.NewRegistry(in)
		so.From, so.Cached, so.StoreMemory = through, through.Has, readthrough.Memory
	}
	return &registry{
		clients: a.sealedMirror(server.New(so), o.mirrors),
		people:  page.New(page.Options{Remote: name, Source: in, Damage: so.Damage, Log: log}),
		close:   func() error { return errors.Join(closeCache(), in.Close()) },
	}, nil
}
