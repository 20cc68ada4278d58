// Package image is the vocabulary of dogestry: references, digests, documents
// (config, manifest, index), and the reader that lets no byte pass that does
// not belong to the digest it came under. It does no input or output of its own.
package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Digest is a sha256, the name of content (OCI image-spec, descriptor.md,
// "Digests"). The zero value means "no digest": no known content has it.
type Digest [sha256.Size]byte

// DiffID is the digest of a layer's uncompressed tar (OCI image-spec, config.md).
type DiffID = Digest

// ChainID is the identity of a stack of layers (OCI image-spec, config.md).
type ChainID = Digest

// ID is an image ID: what the engine shows. The digest of the config on a
// classic store, of the manifest or index on a containerd image store.
type ID = Digest

const algorithm = "sha256:"

// DigestOf returns the digest of b.
func DigestOf(b []byte) Digest { return sha256.Sum256(b) }

// ParseDigest reads "sha256:" and 64 lower-case hex digits. Other algorithms
// are refused: the repository format names everything by sha256.
func ParseDigest(s string) (Digest, error) {
	digits, ok := strings.CutPrefix(s, algorithm)
	if !ok {
		return Digest{}, fmt.Errorf("%q is not a digest: want sha256: and 64 hex digits", clip(s))
	}
	return ParseHex(digits)
}

// ParseHex reads 64 lower-case hex digits, as an entry of the repository format is named.
func ParseHex(s string) (Digest, error) {
	var d Digest
	if len(s) != hex.EncodedLen(len(d)) || strings.ToLower(s) != s {
		return Digest{}, fmt.Errorf("%q is not a sha256: want 64 lower-case hex digits", clip(s))
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return Digest{}, fmt.Errorf("%q is not a sha256: want 64 lower-case hex digits", clip(s))
	}
	return d, nil
}

// String returns "sha256:" and the hex digits.
func (d Digest) String() string { return algorithm + d.Hex() }

// Hex returns the 64 hex digits.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// Short returns the first 12 hex digits, as docker shows an ID.
func (d Digest) Short() string { return d.Hex()[:12] }

// IsZero reports whether d is no digest.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText returns String, for JSON; no digest is the empty string.
func (d Digest) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return []byte{}, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText accepts what ParseDigest accepts.
func (d *Digest) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDigest(string(text))
	return err
}

// ChainIDs returns the identity of each stack of the lowest 1, 2, … len(diffIDs)
// layers: the first is the first diffID, each next the digest of "chain diff".
func ChainIDs(diffIDs []DiffID) []ChainID {
	chain := make([]ChainID, len(diffIDs))
	for i, d := range diffIDs {
		if i == 0 {
			chain[i] = d
			continue
		}
		chain[i] = DigestOf([]byte(chain[i-1].String() + " " + d.String()))
	}
	return chain
}

// clip keeps hostile or mistaken input from filling the screen.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// Distinct returns digests without repetitions, in the order of first occurrence.
func Distinct(digests []Digest) []Digest {
	seen := make(map[Digest]bool, len(digests))
	var distinct []Digest
	for _, d := range digests {
		if !seen[d] {
			seen[d] = true
			distinct = append(distinct, d)
		}
	}
	return distinct
}
