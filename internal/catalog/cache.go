package catalog

import (
	"errors"
	"log/slog"
	"os"

	"github.com/dogestry/dogestry/internal/cache"
)

// listed is the memory of one remote: some 80,000 tags and images. A remote with
// more is read anew each time.
type listed struct {
	file cache.File
	log  *slog.Logger
}

func openCache(dir, name string, log *slog.Logger) *listed {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &listed{cache.New(dir, "catalog", name, "dogestry catalog 2 "), log}
}

// load returns what is remembered: nothing where the file is not there, not
// whole, or not one of ours.
func (c *listed) load() memory {
	var m memory
	err := c.file.Load(&m)
	if err == nil {
		return m
	}
	if !errors.Is(err, os.ErrNotExist) {
		c.log.Debug("nothing is remembered of the remote", "file", c.file.Path(), "error", err)
	}
	return memory{}
}

// store remembers m instead of what was remembered before.
func (c *listed) store(m memory) {
	if err := c.file.Store(m); err != nil {
		c.log.Debug("cannot remember what was listed", "file", c.file.Path(), "error", err)
	}
}
