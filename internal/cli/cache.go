package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/config"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/readthrough"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
)

// cacheMarker lies in a directory that is a cache. As its name begins with a dot it
// is no object to any remote, and copies of the directory are caches too.
const cacheMarker = ".dogestry-cache"

const cacheText = "This directory is a cache of dogestry (--cache). What is in it may be deleted at any time.\n" +
	"Remove this file, and it is a remote without tags.\n"

// cacheFlags are those of a cache. An empty dir is none.
type cacheFlags struct {
	dir  string
	size byteSize
	from string // where in the configuration dir is said, if it is

	optional bool // it is for all who can use it: a file says it, and no command line

	open *bool // set where the cache is in use; may be nil
}

func (f *cacheFlags) add(c *cobra.Command) {
	f.size = config.DefaultCacheSize
	c.Flags().StringVar(&f.dir, "cache", "", "keep layers and documents in this `DIR`, and take from there what it has")
	c.Flags().Var(&f.size, "cache-size", "how large that may become; what was not of use for the longest time goes")
}

// configure takes from the configuration what the command line does not say.
func (f *cacheFlags) configure(c *cobra.Command, set *config.Config) {
	if !c.Flags().Changed("cache") {
		f.dir, f.from, f.optional = set.Cache.Value, set.Cache.From, set.Cache.InFile()
	}
	if !c.Flags().Changed("cache-size") && set.CacheSize.Value > 0 {
		f.size = byteSize(set.CacheSize.Value)
	}
}

// unless returns no cache for a dry run, which changes nothing.
func (f cacheFlags) unless(dryRun bool) cacheFlags {
	if dryRun {
		return cacheFlags{}
	}
	return f
}

// byteSize is a flag such as 20GB: bytes.
type byteSize int64

// Set implements pflag.Value.
func (b *byteSize) Set(s string) error {
	n, err := config.ParseSize(s)
	*b = byteSize(n)
	return err
}

// String implements pflag.Value.
func (b *byteSize) String() string { return units.HumanSize(float64(*b)) }

// Type implements pflag.Value.
func (b *byteSize) Type() string { return "SIZE" }

// readCached opens what open opens, to be read through the cache that there may be.
// Where that fails, what the cache has can still be had by its digest. The caller calls
// what it returns to close the cache.
func (a *app) readCached(ctx context.Context, f cacheFlags, name string, open func() (original.Remote, error)) (original.Remote, func() error, error) {
	cache, closeCache, err := a.openCache(ctx, f, name, a.note)
	if err != nil {
		return nil, nil, err
	}
	from, err := open()
	switch {
	case cache == nil:
		return from, nothing, err
	case fault.Interrupted(err), fault.Is(err, fault.Usage):
		return nil, nil, errors.Join(err, closeCache())
	case err != nil:
		a.log().Debug("the remote cannot be opened", "remote", name, "error", err)
		from = readthrough.Away{Reason: err}
	}
	return cache.New(from), closeCache, nil
}

// openCache opens the cache of what is read of a remote. Notify is told what people
// should know. It is nil where there is none; an optional one that the user has no
// permission to use is told, and passed over so.
func (a *app) openCache(ctx context.Context, f cacheFlags, name string, notify func(string)) (*readthrough.Cache, func() error, error) {
	if f.dir == "" {
		return nil, nothing, nil
	}
	cache, end, err := a.mustOpenCache(ctx, f, name, notify)
	if f.optional && errors.Is(err, storage.ErrPermission) {
		notify(err.Error() + "; going on without it")
		return nil, nothing, nil
	}
	if f.open != nil {
		*f.open = err == nil
	}
	return cache, end, err
}

func (a *app) mustOpenCache(ctx context.Context, f cacheFlags, name string, notify func(string)) (*readthrough.Cache, func() error, error) {
	if strings.Contains(f.dir, "://") {
		return nil, nil, f.wrong(fault.New(fault.Usage, "a cache is a directory on this machine, and no URL")) // there may be a password in it
	}
	if samePlace(f.dir, name) {
		return nil, nil, f.wrong(fault.New(fault.Usage, "the cache %s is the remote itself", f.dir))
	}
	store, err := file.Create(f.dir)
	if err != nil {
		return nil, nil, f.wrong(cacheFailure(err, f.dir))
	}
	err = markCache(f.dir)
	var cache *readthrough.Cache
	if err == nil {
		cache, err = readthrough.Open(ctx, store, readthrough.Options{Name: f.dir, Limit: int64(f.size), Log: a.log(), Notify: notify})
	}
	if err != nil {
		return nil, nil, f.wrong(errors.Join(err, store.Close()))
	}
	return cache, store.Close, nil
}

// wrong says where the cache comes from that err is about.
func (f cacheFlags) wrong(err error) error {
	var known *fault.Error
	if f.from == "" || !errors.As(err, &known) {
		return err
	}
	return fault.Wrap(known.Kind, err, "%s names a cache", f.from)
}

func cacheFailure(err error, dir string) error {
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return fault.Wrap(fault.NotFound, err, "cannot make the cache %s", dir).
			Advise("Its parent directory is missing: mkdir -p %q", filepath.Dir(filepath.Clean(dir)))
	case errors.Is(err, storage.ErrPermission):
		return fault.Wrap(fault.Refused, err, "no permission to use the cache %s", dir)
	}
	return fault.Wrap(fault.Other, err, "cannot use the cache %s", dir)
}

// markCache marks a directory as a cache. What is not marked has to be empty: what
// somebody has put there would be deleted.
func markCache(dir string) error {
	if isCache(dir) {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return cacheFailure(err, dir)
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || name == "lost+found" || isCache(dir) { // another process may be quicker
			continue
		}
		return fault.New(fault.Refused, "%s is no cache: it has %s in it", dir, name).
			Advise("What is in a cache may be deleted at any time. Name another directory, which dogestry makes, or an empty one.")
	}
	err = os.WriteFile(filepath.Join(dir, cacheMarker), []byte(cacheText), 0o666)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = errors.Join(storage.ErrPermission, err)
		}
		return cacheFailure(err, dir)
	}
	return nil
}

func isCache(dir string) bool { return exists(filepath.Join(dir, cacheMarker)) }

// noCache refuses to write images into a cache.
func noCache(dir, name string) error {
	if !isCache(dir) {
		return nil
	}
	return fault.New(fault.Refused, "%s is a cache: what is in it may be deleted at any time", name).
		Advise("It keeps itself small, and can be deleted as a whole. Name a remote. If it is one, remove %s.", filepath.Join(dir, cacheMarker))
}
