package original

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

const (
	// memoryMark begins a file. Behind it come the sha256 of the rest, a line feed,
	// and what is remembered as JSON.
	memoryMark = "dogestry diffIDs 1 "

	maxMemory  = 64 << 20 // bytes: some 300,000 layers. What goes beyond is measured anew each time
	memoryLife = 90 * 24 * time.Hour
	newMark    = ".new-"
	newLife    = time.Hour // of what a killed run left
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
	path  string // empty: nothing outlives the command
	log   *slog.Logger
	known map[image.Digest]measured
	fresh map[image.Digest]measured // not stored yet
}

func openMemory(dir, remote string, log *slog.Logger) *memory {
	m := &memory{log: log, known: map[image.Digest]measured{}, fresh: map[image.Digest]measured{}}
	if dir == "" {
		return m
	}
	m.path = filepath.Join(dir, "originals", image.DigestOf([]byte(remote)).Hex())
	var err error
	if m.known, err = m.load(); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Debug("no diffIDs are remembered of the remote", "file", m.path, "error", err)
	}
	return m
}

func (m *memory) load() (known map[image.Digest]measured, err error) {
	known = map[image.Digest]measured{}
	f, err := os.Open(m.path)
	if err != nil {
		return known, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMemory))
	if err != nil {
		return known, err
	}
	head, body, _ := bytes.Cut(b, []byte("\n"))
	if string(head) != memoryHead(body) {
		return known, errors.New("damaged, or of another version")
	}
	read := map[image.Digest]measured{}
	if err := json.Unmarshal(body, &read); err != nil {
		return known, err
	}
	return read, nil
}

func memoryHead(body []byte) string { return memoryMark + image.DigestOf(body).Hex() }

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
	if m.path == "" || len(m.fresh) == 0 {
		return
	}
	all, _ := m.load()
	maps.Copy(all, m.fresh)
	if err := m.write(all); err != nil {
		m.log.Debug("cannot remember diffIDs", "file", m.path, "error", err)
		return
	}
	clear(m.fresh)
}

func (m *memory) write(all map[image.Digest]measured) error {
	body, err := json.Marshal(all)
	if err != nil {
		return err
	}
	content := slices.Concat([]byte(memoryHead(body)+"\n"), body)
	if len(content) > maxMemory {
		return errors.New("the remote has too many layers")
	}
	dir := filepath.Dir(m.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	sweep(dir)
	f, err := os.CreateTemp(dir, filepath.Base(m.path)+newMark) // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), m.path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// sweep removes what killed runs left, and the files of remotes that have not
// been used for long. What it cannot remove stays.
func sweep(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		life := memoryLife
		if strings.Contains(entry.Name(), newMark) {
			life = newLife
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > life {
			_ = os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
}
