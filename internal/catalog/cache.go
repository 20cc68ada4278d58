package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

const (
	// cacheMark begins a cache file. Behind it come the sha256 of the rest, a
	// line feed, and the memory as JSON.
	cacheMark = "dogestry catalog 2 "

	// maxCache bounds a cache file in bytes: some 80,000 tags and images. A
	// remote with more is read anew each time.
	maxCache = 64 << 20

	cacheLife     = 90 * 24 * time.Hour // of the file of a remote that does not change, or is listed no more
	temporaryLife = time.Hour           // of what a killed run left
	temporaryMark = ".new-"
)

// cache is the memory of one remote, in one file. It is replaced as a whole:
// of runs at once the last wins, and none reads half a file.
type cache struct {
	path string
	log  *slog.Logger
}

func openCache(dir, name string, log *slog.Logger) *cache {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &cache{path: filepath.Join(dir, "catalog", image.DigestOf([]byte(name)).Hex()), log: log}
}

// load returns what is remembered: nothing where the file is not there, not
// whole, or not one of ours.
func (c *cache) load() memory {
	m, err := c.read()
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			c.log.Debug("nothing is remembered of the remote", "file", c.path, "error", err)
		}
		return memory{}
	}
	return m
}

func (c *cache) read() (m memory, err error) {
	f, err := os.Open(c.path)
	if err != nil {
		return memory{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCache))
	if err != nil {
		return memory{}, err
	}
	head, body, _ := bytes.Cut(b, []byte("\n"))
	if string(head) != cacheHead(body) {
		return memory{}, errors.New("damaged, or of another version")
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return memory{}, err
	}
	return m, nil
}

func cacheHead(body []byte) string { return cacheMark + image.DigestOf(body).Hex() }

// store remembers m instead of what was remembered before.
func (c *cache) store(m memory) {
	if err := c.write(m); err != nil {
		c.log.Debug("cannot remember what was listed", "file", c.path, "error", err)
	}
}

func (c *cache) write(m memory) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	head := cacheHead(body) + "\n"
	if len(head)+len(body) > maxCache {
		return errors.New("the remote has too many tags")
	}
	dir := filepath.Dir(c.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	c.sweep(dir)
	f, err := os.CreateTemp(dir, filepath.Base(c.path)+temporaryMark) // 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(head)
	if err == nil {
		_, err = f.Write(body)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), c.path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// sweep removes what killed runs left, and the files of remotes that have not
// been used for long. What it cannot remove stays.
func (c *cache) sweep(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		life := cacheLife
		if strings.Contains(entry.Name(), temporaryMark) {
			life = temporaryLife
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > life {
			_ = os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
}
