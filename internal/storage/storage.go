// Package storage is what dogestry needs of a place that keeps bytes: objects
// under keys. It knows nothing of images.
//
// A new transport is a folder below this one with a type that implements Store,
// one call of storagetest.Run in its test, and one line where URLs are opened (internal/cli).
package storage

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Errors that a Store returns wrapped, with the key or path in the text.
// Anything else is a failure of the transport.
var (
	ErrNotFound   = errors.New("not found")
	ErrExists     = errors.New("exists already")
	ErrConflict   = errors.New("a key is also the beginning of another") // "a" and "a/b"
	ErrPermission = errors.New("permission denied")
	ErrNoSpace    = errors.New("no space left")
)

// Info is what a store knows of an object without reading it.
type Info struct {
	Key      string
	Size     int64     // bytes
	Modified time.Time // by the store's clock: when it came to be here, never earlier
}

// Store is a flat set of objects under keys. Keys are slash-separated, without
// empty, "." or ".." elements, at most 1,024 bytes of printable ASCII, and no
// element begins with "." (those are a transport's own temporary files). Other
// keys are refused by ValidKey's error before any I/O.
//
// All methods are safe for concurrent use, also by other processes, and return
// ctx.Err() wrapped soon after ctx ends, as do the readers of Get. No method
// interrupts a Read of its body: a body that may block must end with the context by
// itself. Reads and lists see every write that finished before they began.
type Store interface {
	// Get opens length bytes from offset on, all the rest where length is
	// negative. Fewer come where the object ends earlier, none where offset is at
	// its end or beyond; a negative offset is an error. The caller closes the
	// reader, also to stop early. ErrNotFound. An object replaced or deleted while
	// it is read gives its old bytes or an error.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)

	// Put publishes all of body under key, or nothing. Where body or ctx fails
	// before the end, the key stays as it was, and the error wraps body's.
	// After any other error it holds the old object or the whole new one. A
	// nil error means durable. ErrConflict, ErrPermission, ErrNoSpace. A context
	// that has ended when body is at its end still changes nothing.
	Put(ctx context.Context, key string, body io.Reader) error

	// Stat returns what is known of one object. ErrNotFound.
	Stat(ctx context.Context, key string) (Info, error)

	// List yields the objects whose keys begin with prefix (any string, not
	// just whole elements), in byte order of their keys. It ends after the
	// first error. A prefix without objects yields nothing. What stays there
	// all the time is yielded once; what comes, goes or is replaced meanwhile may be
	// or not. The loop may use the store.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]

	// Delete removes an object, durably. One that is not there is no error.
	Delete(ctx context.Context, key string) error
}

// Creator is a Store that can write an object only where none is.
type Creator interface {
	// Create is Put for a new key: of concurrent callers at most one succeeds,
	// the others, and those who come later, get ErrExists.
	Create(ctx context.Context, key string, body io.Reader) error
}
