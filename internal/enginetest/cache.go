package enginetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// CacheVariable names the environment variable that moves the cache of built images away from the module's .cache.
const CacheVariable = "DOGESTRY_CACHE"

// moduleRoot is the folder of go.mod, at or above the working directory, which in a test is the package's own.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod at or above the working directory: run inside the module")
		}
		dir = up
	}
}

// cacheDir is the folder of built images, made if need be.
func cacheDir() (string, error) {
	dir := os.Getenv(CacheVariable)
	if dir == "" {
		root, err := moduleRoot()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, ".cache")
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// once returns the path of the file name in the cache, and makes it by build first if it is not there or was made by
// another recipe. One process at a time builds a file; the others wait for it. build writes to the path it gets, which
// becomes the file only after it succeeds. It may make a folder there.
func once(ctx context.Context, name, recipe string, build func(ctx context.Context, path string) error) (string, error) {
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(recipe))
	want := hex.EncodeToString(sum[:])
	file := filepath.Join(dir, name)
	note := file + ".recipe"
	fresh := func() bool {
		got, err := os.ReadFile(note)
		_, missing := os.Stat(file)
		return err == nil && missing == nil && string(got) == want
	}
	if fresh() {
		return file, nil
	}
	lock, err := waitLock(ctx, file+".lock")
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }()
	if fresh() { // another process was faster
		return file, nil
	}
	temporary := file + ".new"
	defer func() { _ = os.RemoveAll(temporary) }()
	if err := errors.Join(os.RemoveAll(temporary), os.RemoveAll(note)); err != nil {
		return "", err
	}
	if err := build(ctx, temporary); err != nil {
		return "", err
	}
	if err := errors.Join(os.RemoveAll(file), os.Rename(temporary, file)); err != nil { // no name is renamed over a folder
		return "", err
	}
	return file, os.WriteFile(note, []byte(want), 0o644)
}

// waitLock takes the lock at path, when its holder lets go of it.
func waitLock(ctx context.Context, path string) (io.Closer, error) {
	for {
		lock, err := tryLock(path)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
