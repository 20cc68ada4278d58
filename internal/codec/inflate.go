package codec

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
)

// How compressed layers of registries and containerd image stores begin.
var (
	gzipMagic = []byte{0x1f, 0x8b}             // RFC 1952, 2.3.1
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd} // RFC 8878, 3.1.1
)

// Magic is how many of the first bytes Compressed wants to see.
const Magic = 4

// Compressed reports whether a stream that begins so is one that Inflate unpacks.
func Compressed(head []byte) bool {
	return bytes.HasPrefix(head, gzipMagic) || bytes.HasPrefix(head, zstdMagic)
}

// Inflate returns a reader of what is compressed in src by gzip or zstd, as the
// first bytes tell. Anything else is an error that wraps ErrDamaged. Errors,
// memory and Close are as for DecodeAlone.
func Inflate(src io.Reader) io.ReadCloser {
	b := bufio.NewReaderSize(src, blockSize/4)
	head, err := b.Peek(Magic)
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		from := &source{reader: b}
		return &inflater{from: from, in: bufio.NewReader(from)}
	case bytes.HasPrefix(head, zstdMagic):
		return decodeZstd(b, 1)
	case err != nil && err != io.EOF:
		return &inflater{err: err}
	}
	return &inflater{err: fmt.Errorf("%w: neither gzip nor zstd", ErrDamaged)}
}

// inflater decodes gzip (RFC 1952), members that follow one another as one.
type inflater struct {
	from   *source
	in     *bufio.Reader // of from: the gzip reader takes no more than a member from it
	gzip   *gzip.Reader  // nil before the first member
	inside bool          // a member
	err    error
	closed atomic.Bool
}

func (z *inflater) Read(p []byte) (n int, err error) {
	if z.closed.Load() {
		return 0, errClosed
	}
	for n == 0 && len(p) > 0 && z.err == nil {
		if !z.inside {
			if z.err = z.begin(); z.err != nil {
				break
			}
		}
		n, err = z.gzip.Read(p)
		if z.inside = err != io.EOF; z.inside {
			z.err = z.blame(err)
		}
	}
	return n, z.err
}

// begin opens the next member, io.EOF where there is none. The gzip reader
// cannot tell that from a member that is cut off within its name.
func (z *inflater) begin() error {
	var err error
	if z.gzip == nil {
		z.gzip, err = gzip.NewReader(z.in)
	} else if _, err = z.in.Peek(1); err == nil {
		err = z.gzip.Reset(z.in)
	} else {
		return z.blame(err)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		z.gzip.Multistream(false)
		z.inside = true
	}
	return z.blame(err)
}

func (z *inflater) blame(err error) error {
	switch {
	case err == nil, err == io.EOF:
		return err
	case z.from.err != nil && !errors.Is(z.from.err, io.EOF):
		return z.from.err
	}
	return fmt.Errorf("gzip stream is %w: %w", ErrDamaged, err)
}

func (z *inflater) Close() error {
	z.closed.Store(true)
	return nil
}
