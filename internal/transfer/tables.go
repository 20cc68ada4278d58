package transfer

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/dogestry/dogestry/internal/cache"
	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/image"
)

// tables remembers the indexes of layers that were pulled, for pulls of what comes after them: a file for each
// below dir. An empty dir remembers nothing. Nothing is lost with them but time, and nothing is believed of them.
type tables struct {
	dir string
	log *slog.Logger
}

const (
	tablesKind = "chunk-indexes"
	tablesMark = "dogestry chunk index 1 "
	// mostTables bounds all of them on disk, in bytes: a layer of a gigabyte has some 500 kB.
	mostTables = 64 << 20
)

// table is the end of a stored layer.
type table struct {
	Stored int64  `json:"stored"` // bytes of the whole
	Tail   []byte `json:"tail"`
}

func (t tables) file(layer image.Digest) cache.File {
	return cache.New(t.dir, tablesKind, layer.String(), tablesMark)
}

// size returns the bytes of the file in which the index of a layer is remembered; 0 where none seems to be.
func (t tables) size(layer image.Digest) int64 {
	if t.dir == "" {
		return 0
	}
	info, err := os.Stat(t.file(layer).Path())
	if err != nil {
		return 0
	}
	return info.Size()
}

// get returns the index of a layer; nil where it is not remembered.
func (t tables) get(layer image.Digest) *chunk.Index {
	var end table
	err := t.file(layer).Load(&end)
	var x *chunk.Index
	if err == nil {
		x, err = chunk.Read(context.Background(), end.open, end.Stored)
	}
	if err != nil {
		t.log.Debug("a chunk index that was remembered is of no use", "layer", layer, "error", err)
		_ = os.Remove(t.file(layer).Path()) // the next pull reads it again
		return nil
	}
	return x
}

// open is a chunk.Reader of what is remembered.
func (t table) open(_ context.Context, offset, n int64) (io.ReadCloser, error) {
	at := offset - (t.Stored - int64(len(t.Tail)))
	if at < 0 || n < 0 || n > int64(len(t.Tail))-at {
		return nil, chunk.ErrNone
	}
	return io.NopCloser(bytes.NewReader(t.Tail[at : at+n])), nil
}

// put remembers the index of a layer, which parts have read.
func (t tables) put(layer image.Digest, parts *layerParts) {
	if t.dir == "" || len(parts.tail) == 0 {
		return
	}
	err := t.file(layer).Store(table{parts.layer.Stored, parts.tail})
	if err == nil {
		err = cache.Trim(t.dir, tablesKind, mostTables)
	}
	if err != nil {
		t.log.Debug("cannot remember a chunk index", "layer", layer, "error", err)
	}
}
