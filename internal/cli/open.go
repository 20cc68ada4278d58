package cli

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// access is what a command is about to do with a remote.
type access int

const (
	toRead  access = iota // it must be there
	toWrite               // it may be made
	toPlan                // it may be missing, and is not made
)

// openRemote opens the remote that a command line names: a path or file:///path.
func (a *app) openRemote(ctx context.Context, name string, mode access, c codec.Codec) (*repo.Repo, error) {
	dir, err := directory(name)
	if err != nil {
		return nil, err
	}
	store, err := openDirectory(dir, name, mode)
	if err != nil {
		return nil, err
	}
	return repo.Open(ctx, store, repo.Options{Name: name, Codec: c, Log: a.log()})
}

// directory returns the path that a remote's name stands for.
func directory(name string) (string, error) {
	scheme, _, ok := strings.Cut(name, "://")
	if !ok {
		if name == "" {
			return "", fault.New(fault.Usage, "the remote is empty").Advise("Name a directory, such as ./images.")
		}
		return name, nil
	}
	u, err := url.Parse(name)
	switch {
	case scheme != "file":
		return "", fault.New(fault.Usage, "remotes of the kind %s:// are not known to this version", scheme).
			Advise("Name a directory: /srv/images, ./images or file:///srv/images.")
	case err != nil || u.Host != "" && u.Host != "localhost" || u.Path == "" || u.RawQuery != "" || u.Fragment != "":
		return "", fault.New(fault.Usage, "%q is not a file URL", name).Advise("Write it as file:///srv/images.")
	}
	return filepath.FromSlash(u.Path), nil
}

func openDirectory(dir, name string, mode access) (storage.Store, error) {
	var store storage.Store
	var err error
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
	case errors.Is(err, storage.ErrNotFound) && mode != toRead:
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

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// connect opens the engine that --engine names, or docker's.
func (a *app) connect(ctx context.Context) (*engine.Client, error) {
	return engine.Connect(ctx, engine.Options{URL: a.engine, CacheDir: cacheDir(), Log: a.log()})
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
