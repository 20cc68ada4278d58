// Package layerstore reads images straight from the directory of a Docker
// Engine that keeps them in its classic store: each layer as the very tar that
// its diffID is the sha256 of, and the config. An engine asked for the same
// would first copy the whole image to its disk.
//
// It never writes and takes no lock. What it returns is not verified, and the
// engine may delete it meanwhile: whoever uses it proves the digests, and asks
// the engine itself where something does not fit.
package layerstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/dogestry/dogestry/internal/image"
)

// drivers is where each storage driver keeps a layer's files, below the data
// root: the cache ID takes the place of the asterisk.
var drivers = map[string]string{
	"overlay2":       "overlay2/*/diff",
	"fuse-overlayfs": "fuse-overlayfs/*/diff",
	"vfs":            "vfs/dir/*",
}

// ErrUnsupported is wrapped by Open where an engine keeps its layers in a way
// that this package does not know.
var ErrUnsupported = errors.New("this storage driver cannot be read")

// Store is the directory of one engine. It is safe for concurrent use and
// holds nothing open.
type Store struct {
	root   string
	driver string
}

// Open looks whether the data root of an engine (GET /info, DockerRootDir) with
// a storage driver (Driver) can be read.
func Open(root, driver string) (*Store, error) {
	if drivers[driver] == "" {
		return nil, fmt.Errorf("%w: %s", ErrUnsupported, driver)
	}
	s := &Store{root: root, driver: driver}
	if _, err := os.ReadDir(s.path("layerdb", "sha256")); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) path(elements ...string) string {
	return filepath.Join(append([]string{s.root, "image", s.driver}, elements...)...)
}

// Config returns an image's config, at most image.MaxDocument bytes.
func (s *Store) Config(id image.ID) ([]byte, error) {
	return small(s.path("imagedb", "content", "sha256", id.Hex()), image.MaxDocument)
}

// maxName bounds the file that names a layer's directory, in bytes.
const maxName = 4 << 10

// Layer opens the topmost of a stack of layers, as a tar. size is its length in
// bytes. The reader ends with ctx, is for one goroutine, and is closed by the caller.
func (s *Store) Layer(ctx context.Context, stack image.ChainID) (tar io.ReadCloser, size int64, err error) {
	files, split, err := s.find(stack)
	if err != nil {
		return nil, 0, err
	}
	entries, size, err := openMeasured(ctx, split)
	if err != nil {
		files.Close()
		return nil, 0, err
	}
	return &reader{ctx: ctx, entries: entries, files: files}, size, nil
}

// find opens the directory of the topmost of a stack of layers, and says where its
// tar-split is. The caller closes the directory.
func (s *Store) find(stack image.ChainID) (files *directory, split string, err error) {
	id, err := small(s.path("layerdb", "sha256", stack.Hex(), "cache-id"), maxName)
	if err != nil {
		return nil, "", err
	}
	name := strings.TrimSpace(string(id))
	if name == "" || name != filepath.Base(name) || name == ".." || name == "." {
		return nil, "", fmt.Errorf("the layer's directory has the name %.100q", name)
	}
	files, err = openDirectory(filepath.Join(s.root, strings.Replace(drivers[s.driver], "*", name, 1)))
	return files, s.path("layerdb", "sha256", stack.Hex(), "tar-split.json.gz"), err
}

// small reads a file of at most most bytes.
func small(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return b, err
}
