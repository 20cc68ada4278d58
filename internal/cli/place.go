package cli

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/dockerarchive"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/layout"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
)

// place is a kind of place that holds images in the format of others. Copies read and
// write it; for other commands it is no remote.
type place struct {
	what  string
	read  func(ctx context.Context, name, path string) (remote.Source, func() error, error)
	write func(ctx context.Context, name, path string, mode access) (remote.Target, func() error, error)
}

// places are those that there are, by what their names begin with.
func places() map[string]place {
	return map[string]place{
		"oci":            {"an OCI image layout", readLayout, writeLayout},
		"docker-archive": {"an archive of `docker save`", readArchive, writeArchive},
	}
}

// placeOf finds the kind of place that a name is of, and the path in it.
func placeOf(name string) (p place, path string, ok bool) {
	scheme, path, ok := strings.Cut(name, ":")
	if ok {
		p, ok = places()[scheme]
	}
	return p, path, ok
}

// checkPlace is checkRemote for a copy.
func checkPlace(name string) error {
	p, path, ok := placeOf(name)
	switch scheme, _, _ := strings.Cut(name, ":"); {
	case !ok:
		return checkRemote(name)
	case path == "":
		return fault.New(fault.Usage, "%s lacks the path of %s", name, p.what)
	case strings.Contains(path, "://"):
		return fault.New(fault.Usage, "%s: %s is a path on this machine", name, p.what).
			Advise("Copy by way of one: dogestry copy %s:./here %s IMAGE…", scheme, path)
	case strings.HasPrefix(path, "//"):
		return fault.New(fault.Usage, "%q is no URL, but %s: and a path", name, scheme).Advise("Write it as %s:%s", scheme, filepath.Clean(path))
	case strings.Contains(filepath.Base(path), ":") && !exists(path): // a habit from skopeo
		dir, _, _ := strings.Cut(filepath.Base(path), ":")
		return fault.New(fault.Usage, "nothing is at %s, and a name with a colon makes none", name).
			Advise("Name the path alone, and the image as IMAGE: %s:%s", scheme, filepath.Join(filepath.Dir(path), dir))
	}
	return nil
}

// openSource opens what a copy reads; status shows what that is at. The caller calls
// what it returns to close it. What lies in the format of others is not cached.
func (a *app) openSource(ctx context.Context, name string, cache cacheFlags, status func(string)) (remote.Source, func() error, error) {
	defer a.oneWay(&a.uploadLimit)()
	if p, path, ok := placeOf(name); ok {
		if err := a.unlimited(name, p.what); err != nil {
			return nil, nil, err
		}
		return p.read(ctx, name, path)
	}
	return a.openToRead(ctx, name, cache, status)
}

// openToRead is openSource for a remote.
func (a *app) openToRead(ctx context.Context, name string, cache cacheFlags, status func(string)) (remote.Source, func() error, error) {
	if isRegistry(name) {
		return a.openRegistryToRead(ctx, name, cache)
	}
	from, closeCache, err := a.readCached(ctx, cache, name, func() (original.Remote, error) {
		return a.openRemote(ctx, name, toRead, codec.LZ4)
	})
	if err != nil {
		return nil, nil, err
	}
	return a.withOriginals(from, name, status), closeCache, nil
}

// openTarget opens what a copy writes, as openSource does.
func (a *app) openTarget(ctx context.Context, name string, mode access, compression string) (remote.Target, func() error, error) {
	defer a.oneWay(&a.downloadLimit)()
	if p, path, ok := placeOf(name); ok {
		if err := a.unlimited(name, p.what); err != nil {
			return nil, nil, err
		}
		return p.write(ctx, name, path, mode)
	}
	to, err := a.openImages(ctx, name, mode, compression)
	return to, nothing, err
}

func nothing() error { return nil }

// oneWay forgets a limit, which is none of what is being opened, until restore.
func (a *app) oneWay(limit *byteRate) (restore func()) {
	was := *limit
	*limit = 0
	return func() { *limit = was }
}

func readLayout(ctx context.Context, name, path string) (remote.Source, func() error, error) {
	store, err := file.Open(path)
	if err != nil {
		return nil, nil, layoutFailure(err, name, path)
	}
	from, err := layout.Open(ctx, store, name)
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return from, store.Close, nil
}

func writeLayout(ctx context.Context, name, path string, mode access) (remote.Target, func() error, error) {
	open, make := file.Create, layout.Create
	if mode == toPlan {
		open, make = file.Open, layout.Plan
	}
	store, err := open(path)
	if errors.Is(err, storage.ErrNotFound) && mode == toPlan && exists(filepath.Dir(filepath.Clean(path))) {
		return layout.Nowhere(name), nothing, nil
	}
	if err != nil {
		return nil, nil, layoutFailure(err, name, path)
	}
	to, err := make(ctx, store, name)
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return to, store.Close, nil
}

func layoutFailure(err error, name, path string) error {
	parent := filepath.Dir(filepath.Clean(path))
	switch {
	case errors.Is(err, storage.ErrNotFound) && !exists(parent):
		return fault.Wrap(fault.NotFound, err, "no image layout at %s", name).
			Advise("Its parent directory is missing: mkdir -p %q", parent)
	case errors.Is(err, storage.ErrNotFound):
		return fault.Wrap(fault.NotFound, err, "no image layout at %s", name).
			Advise("Name the directory that has oci-layout and index.json in it.")
	case errors.Is(err, storage.ErrPermission):
		return fault.Wrap(fault.Refused, err, "no permission to use %s", name)
	}
	return fault.Wrap(fault.Other, err, "cannot use %s", name)
}

func readArchive(ctx context.Context, name, path string) (remote.Source, func() error, error) {
	from, err := dockerarchive.Open(ctx, path, name)
	if err != nil {
		return nil, nil, err
	}
	return from, from.Close, nil
}

func writeArchive(_ context.Context, name, path string, mode access) (remote.Target, func() error, error) {
	create := dockerarchive.Create
	if mode == toPlan {
		create = dockerarchive.Plan
	}
	to, err := create(path, name)
	if err != nil {
		return nil, nil, err
	}
	return to, to.Close, nil
}
