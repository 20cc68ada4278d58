package readthrough

import (
	"context"
	"io"

	"github.com/dogestry/dogestry/internal/storage"
)

// growingStore is the store of a cache in which the object that a flight brings can
// be read from when its first bytes are there.
type growingStore struct {
	Store
	flight *flight
	landed func() // called when all bytes have come
	stored *int64 // bytes of the object
}

// Put implements storage.Store. The first object is the layer's: what tells of it follows.
func (s growingStore) Put(ctx context.Context, key string, body io.Reader) error {
	f := s.flight
	if f.has() != "" {
		return s.Store.Put(ctx, key, body)
	}
	err := s.PutFollowed(ctx, key, &arriving{ctx, s, body}, func(file storage.Growing) { f.begin(key, file) })
	f.end(err)
	return err
}

// Get implements storage.Store.
func (s growingStore) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if key != s.flight.has() || offset != 0 || length >= 0 {
		return s.Store.Get(ctx, key, offset, length)
	}
	return &follower{ctx: ctx, flight: s.flight}, nil
}

// arriving is what is being written.
type arriving struct {
	ctx context.Context
	growingStore
	body io.Reader
}

func (a *arriving) Read(p []byte) (int, error) {
	a.flight.grown() // what was read before is written by now
	n, err := a.body.Read(p)
	*a.stored += int64(n)
	if more := *a.stored - a.flight.reserved; more > 0 && !a.flight.reserve(a.ctx, max(more, leastRoom)) && !a.flight.reserve(a.ctx, more) {
		return 0, errNoRoom
	}
	if err == io.EOF {
		a.landed()
	}
	return n, err
}

// leastRoom is how much is reserved at least for a layer that is larger than the
// remote has said, in bytes.
const leastRoom = 16 << 20

// follower reads what a flight has written, and waits for more.
type follower struct {
	ctx    context.Context
	flight *flight
	at     int64
}

func (r *follower) Read(p []byte) (int, error) {
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		f := r.flight
		f.mu.Lock()
		file, changed, over, failed := f.file, f.changed, f.over, f.failed
		f.mu.Unlock()
		n, err := file.ReadAt(p, r.at)
		r.at += int64(n)
		switch {
		case n > 0:
			return n, nil // an error comes again
		case err != nil && err != io.EOF:
			return 0, err
		case len(p) == 0:
			return 0, nil
		case over && failed != nil:
			return 0, errFailed
		case over:
			return 0, io.EOF
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
		}
	}
}

// Close does nothing: the flight's file is for all readers.
func (r *follower) Close() error { return nil }
