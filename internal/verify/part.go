package verify

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/dogestry/dogestry/internal/image"
)

// Part is one of several equal parts of all layers. The zero value is all of them.
type Part struct {
	Number, Of int // Number counts from 1
}

// mostParts bounds Part.Of: a part of a year's nights, twice over.
const mostParts = 1000

// ParsePart reads "2/7".
func ParsePart(s string) (Part, error) {
	number, of, ok := strings.Cut(s, "/")
	n, errN := strconv.Atoi(number)
	m, errM := strconv.Atoi(of)
	if !ok || errN != nil || errM != nil || m < 1 || m > mostParts || n < 1 || n > m {
		return Part{}, fmt.Errorf("%.40q is no part: write 2/7 for the second of seven; there are at most %d", s, mostParts)
	}
	return Part{n, m}, nil
}

// String returns what ParsePart reads.
func (p Part) String() string { return fmt.Sprintf("%d/%d", p.Number, p.Of) }

// Has reports whether a layer belongs to p. Digests are spread evenly, so parts
// are of about the same number of layers.
func (p Part) Has(d image.Digest) bool {
	if p.Of == 0 {
		return true
	}
	part, _ := bits.Mul64(binary.BigEndian.Uint64(d[:]), uint64(p.Of))
	return int(part) == p.Number-1
}
