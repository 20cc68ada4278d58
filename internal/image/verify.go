package image

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
)

// MismatchError says that bytes are not what their digest says. It is returned
// by the reader of Verify and by ReadDocument.
type MismatchError struct {
	Want Digest
	Got  Digest // zero when the bytes ended early or did not end
	Size int64  // how many bytes were expected, -1 when unknown
	Read int64  // how many came
}

func (e *MismatchError) Error() string {
	switch {
	case e.Size >= 0 && e.Read < e.Size:
		return fmt.Sprintf("%s ends after %d of %d bytes", e.Want, e.Read, e.Size)
	case e.Size >= 0 && e.Read > e.Size:
		return fmt.Sprintf("%s has more than its %d bytes", e.Want, e.Size)
	default:
		return fmt.Sprintf("%s has the content of %s", e.Want, e.Got)
	}
}

// Verify returns a reader of r's bytes that hands out the last one only once
// all of them are proved to be what digest names. size is how many bytes there
// must be, or -1 when that is not known; trailing bytes are an error.
//
// Whoever copies from it to a place that publishes on a length (a tar entry, a
// PUT with Content-Length) therefore never publishes wrong content. After a
// failure each Read returns the same *MismatchError, or r's own error.
func Verify(r io.Reader, digest Digest, size int64) io.Reader {
	v := &verifier{source: r, hash: sha256.New(), want: digest, size: size}
	return HoldBack(v, v.check)
}

// verifier hashes what it reads.
type verifier struct {
	source io.Reader
	hash   hash.Hash
	want   Digest
	size   int64
	read   int64 // bytes taken from source
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.source.Read(p)
	v.hash.Write(p[:n])
	v.read += int64(n)
	if v.size >= 0 && v.read > v.size {
		return 0, &MismatchError{Want: v.want, Size: v.size, Read: v.read}
	}
	return n, err
}

func (v *verifier) check() error {
	if v.size >= 0 && v.read != v.size {
		return &MismatchError{Want: v.want, Size: v.size, Read: v.read}
	}
	var got Digest
	v.hash.Sum(got[:0])
	if got != v.want {
		return &MismatchError{Want: v.want, Got: got, Size: v.size, Read: v.read}
	}
	return nil
}

// HoldBack returns a reader of r's bytes that hands out the last one only once
// r has ended and check, which is called once then, has found nothing wrong. It
// is what Verify is made of, for bytes that are proved in another way. After a
// failure each Read returns the same error: check's, or r's own.
func HoldBack(r io.Reader, check func() error) io.Reader {
	return &holder{source: r, check: check}
}

type holder struct {
	source io.Reader
	check  func() error
	err    error // what Read returns once ready is empty

	held    byte // the last byte taken, not yet handed out
	holding bool
	ready   []byte  // may be handed out, but did not fit into a one-byte read
	small   [2]byte // where one-byte reads are filled, ready's memory
}

func (h *holder) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if len(h.ready) > 0 {
			n := copy(p, h.ready)
			h.ready = h.ready[n:]
			return n, nil
		}
		if h.err != nil {
			return 0, h.err
		}
		if len(p) == 1 { // no room for the held byte and a new one
			h.ready = h.small[:h.fill(h.small[:])]
			continue
		}
		if n := h.fill(p); n > 0 {
			return n, nil
		}
	}
	return 0, nil
}

// fill reads once from the source into p, behind the byte that was held, and
// returns how many of p's bytes may be handed out: all but the last, which is
// held in its turn, or all of them once the end has come and nothing is wrong.
func (h *holder) fill(p []byte) int {
	start := 0
	if h.holding {
		p[0], start = h.held, 1
	}
	n, err := h.source.Read(p[start:])
	total := start + n
	switch {
	case err == io.EOF:
		if h.err = h.check(); h.err != nil {
			return 0
		}
		h.err = io.EOF
		return total
	case err != nil:
		h.err = err
		return 0
	case total == 0:
		return 0
	}
	h.held, h.holding = p[total-1], true
	return total - 1
}

// MaxDocument bounds a config, manifest or index, in bytes. The largest known
// are some hundred KiB; registries refuse manifests above 4 MiB.
const MaxDocument = 8 << 20

// ErrTooLarge is returned for a document of more than MaxDocument bytes.
var ErrTooLarge = errors.New("document is larger than 8 MiB")

// ReadDocument reads all of r, at most MaxDocument bytes, and proves that they
// are what digest names.
func ReadDocument(r io.Reader, digest Digest) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxDocument {
		return nil, ErrTooLarge
	}
	if got := DigestOf(b); got != digest {
		return nil, &MismatchError{Want: digest, Got: got, Size: -1, Read: int64(len(b))}
	}
	return b, nil
}
