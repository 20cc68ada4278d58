package cli

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/dogestry/dogestry/internal/catalog"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/config"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/s3"
)

// access is what a command is about to do with a remote.
type access int

const (
	toRead   access = iota // it must be there
	toWrite                // it may be made
	toPlan                 // it may be missing, and is not made
	toChange               // it must be there, and is written
)

// openRemote opens the remote that a command line names.
func (a *app) openRemote(ctx context.Context, name string, mode access, c codec.Codec) (*repo.Repo, error) {
	store, err := a.openStore(ctx, name, mode)
	if err != nil {
		return nil, err
	}
	return repo.Open(ctx, store, repo.Options{Name: name, Codec: c, NoIndex: a.noIndex, Log: a.log(), Notify: a.note, NoWait: a.noWait})
}

// openCatalog opens a remote to see what it holds.
func (a *app) openCatalog(ctx context.Context, name string) (*catalog.Catalog, error) {
	if isRegistry(name) { // which tells no versions by which a list could be remembered
		from, err := a.openRegistry(name, toRead, "")
		if err != nil {
			return nil, err
		}
		return catalog.New(from), nil
	}
	from, err := a.openRemote(ctx, name, toRead, codec.LZ4)
	if err != nil {
		return nil, err
	}
	return catalog.Cached(from, cacheDir(), canonical(name), a.log()), nil
}

// transport is a kind of place that can hold a remote.
type transport struct {
	// identify returns one name for one remote, however it was written, without what
	// says only how to write there. It fails where the name makes no sense.
	identify func(name string) (string, error)
	open     func(a *app, ctx context.Context, name string, mode access) (storage.Store, error)
}

// transports are those that there are, by the scheme of their URLs. Here is where
// one is added.
func transports() map[string]transport {
	return map[string]transport{
		"file":  {identifyDirectory, (*app).openDirectory}, // also a path
		"s3":    {identifyBucket, (*app).openBucket},
		"ssh":   {identifySSH, (*app).openSSH},
		"rsync": {identifyModule, (*app).openModule},
		"http":  {identifyWeb, (*app).openWeb}, "https": {identifyWeb, (*app).openWeb},
	}
}

// transportOf finds the transport of a remote by its name.
func transportOf(name string) (transport, error) {
	if p, _, ok := placeOf(name); ok {
		return transport{}, fault.New(fault.Usage, "%s is %s, and no remote: only `dogestry copy` takes those", name, p.what).
			Advise("Copy its images to a remote: dogestry copy %s REMOTE IMAGE…", name)
	}
	if isRegistry(name) {
		return transport{}, noStore(name)
	}
	scheme, _, ok := strings.Cut(name, "://")
	if !ok {
		scheme = "file"
	}
	t, known := transports()[scheme]
	if !known {
		return t, fault.New(fault.Usage, "remotes of the kind %s:// are not known to this version", scheme).
			Advise("Name a directory (/srv/images, ./images, file:///srv/images, ssh://user@host/srv/images), " +
				"one on a web server (https://host/images) or an rsync server (rsync://host/module/path), a bucket (s3://bucket/prefix) or a registry (registry://host:5000/prefix).")
	}
	return t, nil
}

// openStore opens the place that a remote's name stands for.
func (a *app) openStore(ctx context.Context, name string, mode access) (storage.Store, error) {
	t, err := transportOf(name)
	if err != nil {
		return nil, err
	}
	return t.open(a, ctx, name, mode)
}

// checkRemote refuses the name of a remote that makes no sense. Commands call it
// before they show the name: somebody may have written a password into it.
func checkRemote(name string) error {
	if isRegistry(name) {
		_, err := client.Parse(name)
		return err
	}
	t, err := transportOf(name)
	if err == nil {
		_, err = t.identify(name)
	}
	return err
}

// canonical returns one name for one remote. It is for caches, and no remote's URL.
func canonical(name string) string {
	if _, path, ok := placeOf(name); ok {
		scheme, _, _ := strings.Cut(name, ":")
		return scheme + "\n" + absolute(path)
	}
	if isRegistry(name) {
		if address, err := client.Parse(name); err == nil {
			return address.Canonical()
		}
		return name
	}
	if t, err := transportOf(name); err == nil {
		if id, err := t.identify(name); err == nil {
			return id
		}
	}
	return name
}

// samePlace reports whether two names stand for one remote. A directory may have
// several names.
func samePlace(a, b string) bool {
	a, b = canonical(a), canonical(b)
	if a == b {
		return true
	}
	kind, one, _ := strings.Cut(a, "\n")
	other, two, _ := strings.Cut(b, "\n")
	if _, isPlace := places()[kind]; kind != other || kind != "file" && !isPlace {
		return false
	}
	first, err := os.Stat(one)
	if err != nil {
		return false
	}
	second, err := os.Stat(two)
	return err == nil && os.SameFile(first, second)
}

func identifyBucket(name string) (string, error) {
	o, err := s3.Parse(name)
	if err != nil {
		return "", err
	}
	return strings.Join([]string{"s3", o.Bucket, o.Prefix, o.Endpoint, o.Profile}, "\n"), nil
}

// storeMemory returns how many bytes a remote takes for a layer that is read.
func storeMemory(name string) int64 {
	switch scheme, _, _ := strings.Cut(name, "://"); scheme {
	case "s3":
		return 16 << 20 // pieces that come ahead
	case "ssh":
		return 3 << 20
	}
	return 0
}

// writeMemory returns how many bytes a remote takes for a layer that is written.
func writeMemory(name string) int64 {
	switch scheme, _, _ := strings.Cut(name, "://"); scheme {
	case "s3":
	case "ssh":
		return 3 << 20
	default:
		return 0
	}
	memory := int64(32 << 20) // parts on their way
	if o, err := s3.Parse(name); err == nil {
		memory = max(memory, 2*o.PartSize)
	}
	return memory
}

func (a *app) openBucket(ctx context.Context, name string, _ access) (storage.Store, error) {
	o, err := s3.Parse(name)
	if err != nil {
		return nil, err
	}
	o.UploadLimit, o.DownloadLimit = int64(a.uploadLimit), int64(a.downloadLimit)
	o.Seal, o.Log, o.Notify = a.seal, a.log(), a.note
	return s3.Open(ctx, o)
}

// directory returns the path that a remote's name stands for.
func directory(name string) (string, error) {
	if name == "" {
		return "", fault.New(fault.Usage, "the remote is empty").Advise("Name a directory, such as ./images, or a bucket: s3://bucket/prefix.")
	}
	if !strings.Contains(name, "://") {
		return name, nil
	}
	u, err := url.Parse(name)
	if err != nil || u.Host != "" && u.Host != "localhost" || u.Path == "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fault.New(fault.Usage, "%q is not a file URL", name).Advise("Write it as file:///srv/images.")
	}
	return filepath.FromSlash(u.Path), nil
}

func identifyDirectory(name string) (string, error) {
	dir, err := directory(name)
	if err != nil {
		return "", err
	}
	return "file\n" + absolute(dir), nil
}

func absolute(path string) string {
	if absolute, err := filepath.Abs(path); err == nil {
		return absolute
	}
	return path
}

func (a *app) openDirectory(_ context.Context, name string, mode access) (storage.Store, error) {
	dir, err := directory(name)
	if err != nil {
		return nil, err
	}
	if err := a.unlimited(name, "a directory"); err != nil {
		return nil, err
	}
	if mode != toRead {
		if err := noCache(dir, name); err != nil {
			return nil, err
		}
	}
	var store storage.Store
	parent := filepath.Dir(filepath.Clean(dir))
	if mode == toWrite {
		store, err = file.Create(dir)
	} else {
		store, err = file.Open(dir)
	}
	switch {
	case err == nil:
		return store, nil
	case errors.Is(err, storage.ErrNotFound) && mode == toPlan && exists(parent):
		return mem.New(), nil // an empty remote, as a push would find it
	case errors.Is(err, storage.ErrNotFound) && (mode == toWrite || mode == toPlan):
		return nil, fault.Wrap(fault.NotFound, err, "cannot make the remote %s", name).
			Advise("Its parent directory is missing: mkdir -p %q", parent)
	case errors.Is(err, storage.ErrNotFound):
		return nil, fault.Wrap(fault.NotFound, err, "no remote at %s", name).
			Advise("Check the path; `dogestry push` makes the directory.")
	case errors.Is(err, storage.ErrPermission):
		return nil, fault.Wrap(fault.Refused, err, "no permission to use the remote %s", name)
	default:
		return nil, fault.Wrap(fault.Other, err, "cannot use the remote %s", name).
			Advise("A remote is a directory: /srv/images, ./images or file:///srv/images.")
	}
}

// unlimited refuses limits for what no network lies before. One of the configuration
// is for where there is one.
func (a *app) unlimited(name, what string) error {
	if a.limitTyped && (a.uploadLimit > 0 || a.downloadLimit > 0) {
		return fault.New(fault.Usage, "%s is %s: --limit-upload and --limit-download are for remotes on a network", name, what)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// configuration returns what the administrator and the user have set.
func (a *app) configuration() (*config.Config, error) {
	if a.set != nil {
		return a.set, nil
	}
	s, err := a.sources()
	if err != nil {
		return nil, err
	}
	return config.Load(s)
}

// sources are those of the configuration.
func (a *app) sources() (config.Sources, error) {
	s := config.Sources{System: a.systemFile, User: a.configFile, Lookup: os.LookupEnv}
	if s.User == "" {
		s.User = os.Getenv(config.FileVariable)
	}
	if s.UserNamed = s.User != ""; !s.UserNamed {
		s.User = config.UserFile()
		return s, nil
	}
	var err error
	if s.User, err = filepath.Abs(s.User); err != nil {
		return s, fault.Wrap(fault.Other, err, "cannot read the configuration")
	}
	return s, nil
}

// connect opens the engine that --engine names, or docker's.
func (a *app) connect(ctx context.Context) (*engine.Client, error) {
	return engine.Connect(ctx, engine.Options{URL: a.engine, CacheDir: cacheDir(), Store: a.engineStore, Seal: a.seal, Log: a.log()})
}

// cacheDir is where what never changes is remembered; empty where the system
// has no such place.
func cacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "dogestry")
}

// stateDir is where what must not be forgotten is kept (XDG Base Directory
// Specification).
func stateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "dogestry"), nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "state", "dogestry"), err
}

// parseReference reads an image name from the command line.
func parseReference(arg string) (image.Reference, error) {
	ref, err := image.ParseReference(arg)
	if err != nil {
		return ref, fault.New(fault.Usage, "%s", err).
			Advise("Write it as docker does: repository, repository:tag or repository@sha256:….")
	}
	return ref, nil
}

// parseAs reads the value of --as, which names a tag.
func parseAs(as string, images []string) (image.Reference, error) {
	if len(images) != 1 {
		return image.Reference{}, fault.New(fault.Usage, "--as names one image, and there are %d", len(images))
	}
	ref, err := parseReference(as)
	if err == nil && !ref.Digest.IsZero() {
		err = fault.New(fault.Usage, "--as %s: a new name cannot have a digest", as)
	}
	return ref, err
}
