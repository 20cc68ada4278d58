package remote

import (
	"context"
	"iter"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

// MaxEntryFiles bounds Entry.Files: an index has a file for each of its
// manifests and a few more.
const MaxEntryFiles = image.MaxManifests + 32

// Entry is what a remote keeps under one ID: a document, or a layer.
type Entry struct {
	ID       image.Digest `json:"id"`
	Objects  int          `json:"objects"`
	Bytes    int64        `json:"bytes"`    // of all objects, as stored
	Modified time.Time    `json:"modified"` // of the youngest object, by the remote's clock

	// Files are the objects' names within the entry, in their own order, also of
	// those that no format knows. There may be more than the MaxEntryFiles that are here.
	Files []string `json:"-"`
}

// Lister is a remote that can tell all that it keeps, also what no tag reaches.
type Lister interface {
	// Entries yields every entry once, in the order of IDs, also one that is torn.
	// It holds one entry at a time, and ends after the first error. What comes or
	// goes meanwhile may be yielded or not, or in part.
	Entries(ctx context.Context) iter.Seq2[Entry, error]
}
