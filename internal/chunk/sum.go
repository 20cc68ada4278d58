package chunk

import "github.com/zeebo/xxh3"

// Sum is the XXH3 hash of 128 bits of a chunk, seed 0, in its canonical form: big endian. Two chunks of one length
// and one sum are taken for equal, until the digest of the layer says otherwise.
type Sum [16]byte

// SumOf returns the sum of a chunk.
func SumOf(content []byte) Sum { return xxh3.Hash128(content).Bytes() }

// Hash makes the sum of a chunk that comes in pieces. Its zero value is ready; it is for one goroutine.
type Hash struct{ xxh3 xxh3.Hasher }

// Write adds a piece.
func (h *Hash) Write(piece []byte) { _, _ = h.xxh3.Write(piece) } // it has no error

// Sum returns the sum of what was written, and begins anew.
func (h *Hash) Sum() Sum {
	sum := h.xxh3.Sum128().Bytes()
	h.xxh3.Reset()
	return sum
}
