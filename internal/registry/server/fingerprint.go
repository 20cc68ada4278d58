package server

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"io"

	"github.com/dogestry/dogestry/internal/image"
)

// pieceSize is how much of a layer is read, recognised and sent at once, in bytes.
const pieceSize = 256 << 10

// fingerprint is what the server recognises a piece by that it has proved before: a
// message authentication code (AES-GMAC, NIST SP 800-38D) under a key that this process
// alone has. It takes an eighth of the time of sha256, and says nothing to anybody else.
type fingerprint [16]byte

// proof is what is remembered of a layer that was proved by its digest, whichever
// object it was read from: what has a digest is the same bytes everywhere.
type proof struct {
	size   int64
	pieces []fingerprint
}

// fingerprints makes them, and remembers those of layers. It is safe for concurrent use.
type fingerprints struct {
	aead cipher.AEAD
	of   *memory[image.Digest, *proof]
}

// maxFingerprints bounds those that are remembered: 16 MiB, of 256 GiB of layers.
const maxFingerprints = 1 << 20

func newFingerprints() *fingerprints {
	var key [16]byte
	rand.Read(key[:]) //nolint:errcheck // it never fails
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // of the length of a key
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // of the size of a block
	}
	return &fingerprints{aead: aead, of: newMemory[image.Digest, *proof](maxFingerprints)}
}

// take returns the fingerprint of a piece. The nonce is always the same: that would
// tell something of the key to who sees fingerprints, and nobody does.
func (f *fingerprints) take(piece []byte) (p fingerprint) {
	var nonce [12]byte
	f.aead.Seal(p[:0], nonce[:], nil, piece)
	return p
}

// keep remembers those of a layer that was proved.
func (f *fingerprints) keep(id image.Digest, p *proof) { f.of.put(id, p, len(p.pieces)+1) }

// pieceReader reads a layer piece by piece, and hands out nothing that could make the
// whole of something else. One goroutine uses it.
type pieceReader struct {
	id     image.Digest
	from   io.ReadCloser
	prints *fingerprints

	// known is what each piece is compared with, before it is handed out. It is nil
	// where from proves its bytes by the digest, and holds back the last of them.
	known  *proof
	damage func(cause error) error // makes the failure of a piece that is not known

	next int           // the number of the next piece
	read int64         // bytes before it
	seen []fingerprint // of the pieces before it at least
}

// fill reads the next piece into b, which is of pieceSize. The error io.EOF may come
// with the last one. With it all is remembered, for the next reader.
func (r *pieceReader) fill(b []byte) (n int, err error) {
	if r.known != nil {
		return r.recognise(b)
	}
	n, err = readFull(r.from, b)
	if err != nil && err != io.EOF {
		return 0, err
	}
	r.read += int64(n)
	if n > 0 {
		r.seen = append(r.seen, r.prints.take(b[:n]))
		r.next++
	}
	if err == io.EOF {
		r.prints.keep(r.id, &proof{r.read, r.seen})
	}
	return n, err
}

// recognise is fill of a layer that was proved before.
func (r *pieceReader) recognise(b []byte) (n int, err error) {
	r.seen = r.known.pieces
	want := min(r.known.size-r.read, pieceSize)
	if n, err = readFull(r.from, b[:want]); err != nil && err != io.EOF {
		return 0, err
	}
	r.read += int64(n)
	if int64(n) < want {
		return 0, r.damage(&image.MismatchError{Want: r.id, Size: r.known.size, Read: r.read})
	}
	if n > 0 {
		if r.prints.take(b[:n]) != r.known.pieces[r.next] {
			return 0, r.damage(fmt.Errorf("%s is not what was proved before, somewhere in the %d bytes before byte %d", r.id, n, r.read))
		}
		r.next++
	}
	if r.read < r.known.size {
		return n, nil
	}
	// What is longer than it was is not what it was.
	var more [1]byte
	beyond, err := readFull(r.from, more[:])
	if beyond > 0 {
		return 0, r.damage(&image.MismatchError{Want: r.id, Size: r.known.size, Read: r.read + 1})
	}
	if err != io.EOF {
		return 0, err
	}
	return n, io.EOF
}

// readFull fills b. It returns fewer bytes only with the error of from, which is
// io.EOF at its end, and no other: an error that says so of something else stays that.
func readFull(from io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = from.Read(b[n:])
		n += m
	}
	if n == len(b) && err == io.EOF {
		err = nil // it comes again
	}
	return n, err
}
