package original

import (
	"errors"
	"log/slog"
	"maps"
	"os"

	"github.com/dogestry/dogestry/internal/cache"
	"github.com/dogestry/dogestry/internal/image"
)

// measured is what a layer turned out to be, in a version of its object.
type measured struct {
	Version string
	DiffID  image.DiffID
	Size    int64
}

// memory remembers the diffIDs of one remote's layers, by the IDs of their entries,
// in one file that is replaced as a whole. What it says is no proof: bytes are
// compared with the diffID whenever they are used. So a memory that is wrong costs
// a failure, and takes nothing wrong for right.
type memory struct {
	file  *cache.File // nil: nothing outlives the command
	log   *slog.Logger
	known map[image.Digest]measured
	fresh map[image.Digest]measured // not stored yet
}

func openMemory(dir, remote string, log *slog.Logger) *memory {
	m := &memory{log: log, known: map[image.Digest]measured{}, fresh: map[image.Digest]measured{}}
	if dir == "" {
		return m
	}
	file := cache.New(dir, "originals", remote, "dogestry diffIDs 1 ")
	m.file = &file
	m.known = m.load()
	return m
}

// load returns what is in the file: nothing where it is not there, or of no use.
func (m *memory) load() map[image.Digest]measured {
	known := map[image.Digest]measured{}
	err := m.file.Load(&known)
	if err == nil {
		return known
	}
	if !errors.Is(err, os.ErrNotExist) {
		m.log.Debug("no diffIDs are remembered of the remote", "file", m.file.Path(), "error", err)
	}
	return map[image.Digest]measured{}
}

// get returns what is known of an entry's layer in this version.
func (m *memory) get(id image.Digest, version string) (measured, bool) {
	k, ok := m.known[id]
	return k, ok && version != "" && k.Version == version
}

func (m *memory) put(id image.Digest, k measured) {
	m.known[id] = k
	if k.Version != "" {
		m.fresh[id] = k
	}
}

// store writes what is new, beside what other runs have written meanwhile. Where
// that fails, it costs time alone.
func (m *memory) store() {
	if m.file == nil || len(m.fresh) == 0 {
		return
	}
	all := m.load()
	maps.Copy(all, m.fresh)
	if err := m.file.Store(all); err != nil {
		m.log.Debug("cannot remember diffIDs", "file", m.file.Path(), "error", err)
		return
	}
	clear(m.fresh)
}
