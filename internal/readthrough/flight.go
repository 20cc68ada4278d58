package readthrough

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
)

// flight is a layer on its way from a remote into the cache. It goes as fast as
// these two do: its readers read from the file that it writes, each at its own
// pace, and none of them holds up another. It ends early only when none is left.
type flight struct {
	cache *Cache
	key   flightKey    // in flights
	layer remote.Layer // as the remote has it
	open  opener       // opens it, decoded; nil where it comes from the remote
	repo  *repo.Repo   // the cache, where this layer can be read before it is whole

	cancel context.CancelFunc
	begun  chan struct{} // closed when there is something to read, if ever
	done   chan struct{} // closed at the end; err is to be read then

	// err is nil when the layer is in the cache, a *remoteError where the remote
	// failed, and anything else where the cache did: then there are other ways.
	err error

	readers int  // guarded by flights.mu
	landed  bool // the same; all bytes have come, and are proved

	mu       sync.Mutex
	object   string // what it is in the cache
	file     storage.Growing
	reserved int64         // bytes
	changed  chan struct{} // closed and replaced when there may be more to read
	encoded  bool          // the remote does not keep it in these bytes
	over     bool          // the file is whole, or failed
	failed   error
}

// flightKey is what a flight brings, and how. One that is made of other layers is
// not joined by those who want it from the remote: it may turn out wrong.
type flightKey struct {
	id   image.Digest
	made bool
}

// opener opens a layer, decoded.
type opener func(context.Context) (io.ReadCloser, error)

// Memory is what a flight takes beside its readers, in bytes: the file's buffer, and
// what decodes the layer to prove it.
const Memory = 8 << 20

// remoteError is a failure of the remote that a layer comes from, or of what opener opened.
type remoteError struct{ cause error }

func (e *remoteError) Error() string { return e.cause.Error() }

func (e *remoteError) Unwrap() error { return e.cause }

var (
	// errNoRoom says that a layer is larger than what can be made free for it.
	errNoRoom = errors.New("there is no room for it in the cache")

	// errFailed is what readers of a flight meet that has failed: it says why itself.
	errFailed = errors.New("it does not come any more")
)

// flights are all those of one cache and one remote, by what comes.
type flights struct {
	cache *Cache
	mu    sync.Mutex
	under map[flightKey]*flight
}

// join returns the flight that brings a layer, by what open opens unless that is nil,
// and begins it where there is none. The caller leaves it.
func (all *flights) join(ctx context.Context, from remote.Source, layer remote.Layer, open opener) *flight {
	key := flightKey{layer.Digest, open != nil}
	all.mu.Lock()
	defer all.mu.Unlock()
	if blob := (flightKey{layer.Packed, key.made}); !layer.Packed.IsZero() {
		// The same bytes, unless they come decoded: the blob is not in these.
		if _, stored := from.(remote.StoredSource); stored || all.under[blob] != nil {
			key = blob
		}
	}
	f := all.under[key]
	if f == nil {
		// The reader who comes first may go first.
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{
			cache: all.cache, key: key, layer: layer, open: open, cancel: cancel,
			begun: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{}),
		}
		all.under[key] = f
		go func() {
			defer close(f.done)
			defer all.forget(f)
			defer cancel()
			f.err = f.run(own, from, func() { all.land(f) })
		}()
	}
	f.readers++
	return f
}

// forget takes a flight out, so that nobody joins it any more.
func (all *flights) forget(f *flight) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.forgetLocked(f)
}

func (all *flights) forgetLocked(f *flight) {
	if all.under[f.key] == f {
		delete(all.under, f.key)
	}
}

// land notes that all bytes of a flight have come: it is not worth while to end it.
func (all *flights) land(f *flight) {
	all.mu.Lock()
	defer all.mu.Unlock()
	f.landed = true
}

// leave ends what join began. The last one waits for the end of the flight, which
// is near: it is cancelled, unless all bytes have come. Then others may join it until
// the layer is in the cache, so that nobody asks the remote for it in between.
func (all *flights) leave(f *flight) {
	if !all.isLast(f) {
		return
	}
	<-f.done // and nobody joins it any more
	if all.inUse(f) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		_ = f.file.Close()
		f.file = nil
	}
}

// isLast takes a reader away and reports whether there is no other now.
func (all *flights) isLast(f *flight) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	f.readers--
	if f.readers == 0 && !f.landed {
		f.cancel()
		all.forgetLocked(f)
	}
	return f.readers == 0
}

func (all *flights) inUse(f *flight) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	return f.readers > 0
}

// run brings the layer into the cache.
func (f *flight) run(ctx context.Context, from remote.Source, landed func()) (err error) {
	entries := entriesOf(f.layer)
	f.cache.room.use(entries)
	defer f.cache.room.unuse(entries)
	// Another flight may have ended since its reader looked.
	if _, ok := f.cache.find(ctx, f.layer.Digest); ok {
		return nil
	}
	if !f.reserve(ctx, max(f.layer.Stored, 0)+beside) {
		return errNoRoom
	}
	stored := int64(beside)
	defer func() { f.cache.room.release(f.reserved, stored) }()
	f.repo, err = repo.Open(ctx, growingStore{f.cache.store, f, landed, &stored}, repo.Options{Name: f.cache.name, Codec: codec.LZ4, Log: f.cache.log})
	if err == nil {
		err = f.fetch(ctx, from)
	}
	var failed *remoteError
	if err != nil {
		stored = 0
		if !errors.As(err, &failed) && !errors.Is(err, errNoRoom) && !errors.Is(err, remote.ErrReplaced) {
			f.cache.cannotWrite(err)
		}
	}
	return err
}

// reserve makes room for n bytes more.
func (f *flight) reserve(ctx context.Context, n int64) bool {
	if !f.cache.room.reserve(ctx, n) {
		return false
	}
	f.reserved += n
	return true
}

// fetch moves the layer as the remote keeps it or, where that is not possible, anew.
func (f *flight) fetch(ctx context.Context, from remote.Source) error {
	as := image.Descriptor{Digest: f.layer.Digest, Size: f.layer.Size}
	if source, ok := from.(remote.StoredSource); ok && f.open == nil {
		err := f.fetchStored(ctx, source, as)
		if !errors.Is(err, errors.ErrUnsupported) || f.has() != "" {
			return err
		}
	}
	open := f.open
	if open == nil {
		open = func(ctx context.Context) (io.ReadCloser, error) { return from.Open(ctx, f.layer) }
	}
	body, err := open(ctx)
	if err != nil {
		return &remoteError{err}
	}
	defer body.Close()
	in := &image.Watched{R: body}
	head := bufio.NewReader(in)
	as.MediaType = mediaType(head)
	f.mu.Lock()
	f.encoded = true
	f.mu.Unlock()
	_, err = f.repo.PutLayer(ctx, as, head)
	return blame(in, err)
}

func (f *flight) fetchStored(ctx context.Context, from remote.StoredSource, as image.Descriptor) error {
	stored, err := from.OpenStored(ctx, f.layer)
	if err != nil {
		return &remoteError{err}
	}
	in := &image.Watched{R: stored.Body}
	defer stored.Body.Close()
	stored.Body = io.NopCloser(in)
	_, err = f.repo.PutStored(ctx, as, stored)
	var wrong *remote.StoredError
	if err = blame(in, err); errors.As(err, &wrong) {
		err = &remoteError{from.Damage(f.layer, wrong.Cause)}
	}
	return err
}

// zstdMagic is how a frame of zstd begins (RFC 8878).
const zstdMagic = "\x28\xb5\x2f\xfd"

// mediaType returns that of bytes of which nobody has told it, for PutLayer: what is
// compressed is kept as it is.
func mediaType(head *bufio.Reader) string {
	start, _ := head.Peek(4) // an error comes with the first Read again
	if bytes.HasPrefix(start, []byte{0x1f, 0x8b}) || string(start) == zstdMagic {
		return "application/octet-stream"
	}
	return ""
}

// has returns the object that the flight writes, "" before it does.
func (f *flight) has() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.object
}

// anew reports whether the remote keeps the layer in other bytes.
func (f *flight) anew() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.encoded
}

// begin lets readers read.
func (f *flight) begin(object string, file storage.Growing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.object, f.file = object, file
	close(f.begun)
}

// grown wakes readers that wait for more.
func (f *flight) grown() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.changed)
	f.changed = make(chan struct{})
}

// end tells readers that no more comes.
func (f *flight) end(err error) {
	f.mu.Lock()
	f.over, f.failed = true, err
	f.mu.Unlock()
	f.grown()
}

// blame returns the true reason of an error of the cache: the remote's, where that
// has failed. What was only replaced there can be read in another way.
func blame(remotes *image.Watched, err error) error {
	failed := remotes.Err()
	switch {
	case err == nil || failed == nil:
		return err
	case errors.Is(failed, remote.ErrReplaced):
		return failed
	}
	return &remoteError{failed}
}
