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
	ErrChanged    = errors.New("changed meanwhile")
)

// Info is what a store knows of an object without reading it.
type Info struct {
	Key      string
	Size     int64     // bytes
	Modified time.Time // by the store's clock: when it came to be here, never earlier

	// Version is another one whenever the object has other content, and is
	// cheap to get: S3's ETag. Empty where the store has no such thing.
	Version string
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
	// it is read gives its old bytes or an error. A store without ranges returns
	// errors.ErrUnsupported for all but (0, -1): who can do with that uses Read or Part.
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

// MaxSwap is how large the objects of a Swapper or Remover may be, in bytes.
const MaxSwap = 64 << 10

// Swapper is a Store that can replace a small object only while it holds what
// the caller knows.
type Swapper interface {
	// Swap replaces old, the whole content of key, by new, durably. Where key
	// holds something else, or nothing, it changes nothing and returns
	// ErrChanged: of concurrent callers with the same old one succeeds. Both are
	// of MaxSwap bytes at most.
	Swap(ctx context.Context, key string, old, new []byte) error
}

// Updater is a Store that can change an object while nobody else does.
type Updater interface {
	// Update replaces key, durably, by what change makes of its content, which is nil
	// where there is no such object. Others who Update or Put it wait meanwhile, or
	// this waits for them. An error of change is returned as it is, and nothing is
	// written then, nor where change returns what it was given. An object of more than
	// most bytes is ErrTooLarge.
	Update(ctx context.Context, key string, most int64, change func(old []byte) (new []byte, err error)) error
}

// Remover is a Store that can remove a small object only while it holds what the
// caller knows.
type Remover interface {
	// DeleteIf removes the object key, durably, while old is its whole content.
	// Where it holds something else that stays, and the error is ErrChanged, also
	// when that was written at the same moment. An object that is not there is no
	// error, as with Delete: whoever lost an answer may ask again. Old is of MaxSwap
	// bytes at most.
	DeleteIf(ctx context.Context, key string, old []byte) error
}

// Holder is a Store that knows whether a process which wrote an object still runs.
type Holder interface {
	// Hold is Put of an object that is held until Release, or until the process
	// ends, however it does. Nobody else writes the key. It fails with an error that
	// wraps errors.ErrUnsupported where nothing can be held.
	Hold(ctx context.Context, key string, body []byte) (Hold, error)

	// IsHeld reports whether a process holds the object. One that is not there is not held.
	IsHeld(ctx context.Context, key string) (bool, error)
}

// Hold is an object that is being held. Its methods may be called by one
// goroutine at a time.
type Hold interface {
	// Renew sets the object's Modified to now. ErrNotFound where others have removed it.
	Renew(ctx context.Context) error

	// Release deletes the object and ends the hold. It may be called again.
	Release(ctx context.Context) error
}

// Sweeper is a Store in which a write that is killed leaves something behind:
// temporary files, open uploads. They are no objects.
type Sweeper interface {
	// Sweep removes what killed writes left under prefix, unless it is younger
	// than age, and returns how many it removed. It leaves running writes alone
	// where it can tell them from killed ones, else age has to.
	Sweep(ctx context.Context, prefix string, age time.Duration) (removed int, err error)
}

// Toucher is a Store that can make an object younger.
type Toucher interface {
	// Touch sets the object's Modified to now, and changes nothing else. It is not
	// made durable. ErrNotFound, ErrPermission.
	Touch(ctx context.Context, key string) error
}

// Follower is a Store in which others can read an object while it is written.
type Follower interface {
	// PutFollowed is Put. Before it reads body it calls begun, once, with what reads
	// the bytes that are written so far; where it cannot write at all it does not. Who
	// is given that closes it. It stays good whatever becomes of the object, and of the write.
	PutFollowed(ctx context.Context, key string, body io.Reader, begun func(Growing)) error
}

// Growing is an object that is being written. ReadAt returns io.EOF at the end of
// what is there so far, and more when more is. It is safe for concurrent use.
type Growing interface {
	io.ReaderAt
	io.Closer
}

// SmallReader is a Store that reads small objects in another way than Get does, which
// may be cheaper where several are read at once. Read asks for it.
type SmallReader interface {
	// ReadSmall returns all of an object that is to have most bytes at most. ErrNotFound,
	// ErrTooLarge.
	ReadSmall(ctx context.Context, key string, most int64) ([]byte, error)
}

// LaterLister is a Store that can begin a list in its middle, for less than what is
// before it costs. ListAfter asks for it.
type LaterLister interface {
	// ListAfter is List, but for the objects whose keys are after or come before it. After
	// is a key, of an object or of none.
	ListAfter(ctx context.Context, prefix, after string) iter.Seq2[Info, error]
}

// Sized is a body of which it is known how long it can be at most. A store that
// writes in parts chooses their size by it.
type Sized interface {
	io.Reader
	AtMost() int64 // bytes
}
