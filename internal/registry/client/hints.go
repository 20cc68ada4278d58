package client

import (
	"errors"
	"log/slog"
	"os"
	"sync"

	"github.com/dogestry/dogestry/internal/cache"
	"github.com/dogestry/dogestry/internal/image"
)

// packed is what a tar is compressed in.
type packed struct {
	Digest image.Digest `json:"digest"`
	Size   int64        `json:"size"`  // in bytes
	Media  string       `json:"media"` // its media type
	Plain  int64        `json:"plain"` // bytes of the tar; -1 where that is not known
}

// hint is a packed layer that a push of this user has compressed itself, and where
// in the registry it put it.
type hint struct {
	packed
	Path string `json:"path"` // of the repository
}

// hints is what pushes to one registry have compressed, by diffID, kept for later
// runs. It proves nothing: whether a blob is there is asked each time, and what is in
// it engines prove against the config when they unpack it. So who writes here can
// make an image that no engine takes, and none that is another one; and only the
// user can write here. What others have put into a registry is never kept.
type hints struct {
	file cache.File
	keep bool
	log  *slog.Logger

	mu     sync.Mutex
	loaded bool
	layers map[image.DiffID]hint
}

// mostHints bounds what is kept; some 300 bytes each.
const mostHints = 20_000

func newHints(o Options) *hints {
	h := &hints{log: o.Log, layers: map[image.DiffID]hint{}, keep: o.CacheDir != ""}
	if h.keep {
		h.file = cache.New(o.CacheDir, "registry", o.Host, "dogestry registry 1 ")
	}
	return h
}

// get returns what is known of a tar. It reads the file where that may tell more
// than was read before.
func (h *hints) get(id image.DiffID) (hint, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.layers[id]; !known && !h.loaded {
		h.load()
	}
	l, known := h.layers[id]
	return l, known
}

// refresh lets what other runs have kept since be found.
func (h *hints) refresh() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loaded = false
}

// add remembers a layer, for later runs too.
func (h *hints) add(id image.DiffID, l hint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.load() // runs at once keep what each of them has
	h.layers[id] = l
	if !h.keep {
		return
	}
	if len(h.layers) > mostHints {
		h.layers = map[image.DiffID]hint{id: l}
	}
	if err := h.file.Store(h.layers); err != nil {
		h.log.Debug("cannot remember what was compressed", "file", h.file.Path(), "error", err)
	}
}

// load adds what the file has. h.mu is held.
func (h *hints) load() {
	h.loaded = true
	if !h.keep {
		return
	}
	kept := map[image.DiffID]hint{}
	if err := h.file.Load(&kept); err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			h.log.Debug("nothing is remembered of the registry", "file", h.file.Path(), "error", err)
		}
		return
	}
	for id, l := range kept {
		if _, known := h.layers[id]; !known && sound(id, l) {
			h.layers[id] = l
		}
	}
}

// sound refuses what no push has written.
func sound(id image.DiffID, l hint) bool {
	if id.IsZero() || l.Digest.IsZero() || l.Size < 0 || l.Plain < 0 || !pathPattern.MatchString(l.Path) {
		return false
	}
	tar, compressed := (image.Descriptor{MediaType: l.Media, Digest: l.Digest}).Tar()
	return l.Media != "" && tar && compressed
}
