package codec

import (
	"crypto/sha256"
	"errors"
	"io"
)

// Contents reads what is written to it, and learns what is compressed in that.
// It may be written to by one goroutine; a Write waits for what decodes beside it,
// and fails only after End.
type Contents struct {
	*io.PipeWriter
	done chan struct{}

	sum  [sha256.Size]byte // these are to be read when done is closed
	size int64
	err  error
}

// NewContents returns one that has read nothing. The caller ends it.
func NewContents() *Contents {
	from, to := io.Pipe()
	c := &Contents{PipeWriter: to, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		hash := sha256.New()
		unpacked := Inflate(from)
		c.size, c.err = io.Copy(hash, unpacked)
		c.err = errors.Join(c.err, unpacked.Close())
		hash.Sum(c.sum[:0])
		_, _ = io.Copy(io.Discard, from) // the writer is not to wait for a reader that has failed
	}()
	return c
}

// End says that no more is written, and why; nil is the end. It returns the
// sha256 and the size in bytes of what was compressed, or, as Inflate does, why
// nothing was.
func (c *Contents) End(why error) (sum [sha256.Size]byte, size int64, err error) {
	c.CloseWithError(why)
	<-c.done
	return c.sum, c.size, c.err
}
