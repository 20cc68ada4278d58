package image

import (
	"io"
	"sync"
)

// Watched counts what is read of a reader, and remembers how that failed: what
// passes it on, a decoder, an encoder or a transport, may read it in a goroutine of
// its own, and tell failures in its own words. It is safe for that; it closes nothing.
type Watched struct {
	R io.Reader

	mu  sync.Mutex
	n   int64
	err error
}

// Read reads from R.
func (w *Watched) Read(p []byte) (int, error) {
	n, err := w.R.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n += int64(n)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// Count returns the bytes that were read so far.
func (w *Watched) Count() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

// Err returns the last error of R that is not io.EOF, nil where there was none.
func (w *Watched) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
