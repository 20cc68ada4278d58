package main

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestPieces cuts at every begin, wherever the window of the reader ends.
func TestPieces(t *testing.T) {
	const window = 256 << 10
	for _, first := range []int{0, 1, window - 8, window - 7, window - 6, window - 5, window - 4, window, 2*window - 3} {
		content := slices.Concat(frame(noise(1, first)), frame(noise(2, 10)), frame(nil), skippable)
		var got []int64
		all, err := pieces(file(t, content))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			got = append(got, p.end-p.at)
			if p.sum != sha256.Sum256(content[p.at:p.end]) {
				t.Errorf("a first frame of %d bytes: another sum of %d to %d", first+4, p.at, p.end)
			}
		}
		if want := []int64{int64(first) + 4, 14, 4, 4}; !slices.Equal(got, want) {
			t.Errorf("a first frame of %d bytes: %d, not %d", first+4, got, want)
		}
	}
	if all, err := pieces(file(t, nil)); err != nil || len(all) > 0 {
		t.Errorf("of nothing %v (%v)", all, err)
	}
}

// noise is n bytes of a kind, in which no frame begins.
func noise(kind uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(kind, 0))
	for i := range b {
		b[i] = byte(r.IntN(0x20))
	}
	return b
}

func file(t *testing.T, content []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "layer.tar.lz4")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func frame(content []byte) []byte { return append([]byte{0x04, 0x22, 0x4d, 0x18}, content...) }

func TestIndexSize(t *testing.T) {
	index := func(content []byte) []byte {
		return append(binary.LittleEndian.AppendUint32(slices.Clone(skippable), uint32(len(content))), content...)
	}
	frames := frame(noise(1, 1000))
	for _, test := range []struct {
		name string
		file []byte
		want int64
	}{
		{"an index", slices.Concat(frames, index(noise(2, 100))), 108},
		{"one that holds what an index begins with", slices.Concat(frames, index(slices.Concat(noise(2, 10), skippable, noise(3, 30)))), 52},
		{"an empty one", slices.Concat(frames, index(nil)), 8},
		{"nothing but an index", index(noise(2, 100)), 108},
		{"none", frames, 0},
		{"none, but what begins as one", slices.Concat(frames, skippable, noise(2, 100)), 0},
		{"one that something is behind", slices.Concat(frames, index(noise(2, 100)), frames), 0},
		{"its first bytes at the very end", slices.Concat(frames, skippable), 0},
		{"nothing", nil, 0},
	} {
		if got, err := indexSize(file(t, test.file)); err != nil || got != test.want {
			t.Errorf("%s: %d bytes (%v), not %d", test.name, got, err, test.want)
		}
	}
}

func TestCopyable(t *testing.T) {
	const (
		long  = leastPart + 1000
		short = 3*block - 4
	)
	a, b, c, d := frame(noise(1, long)), frame(noise(2, short)), frame(noise(3, short)), frame(noise(4, short))
	la, lb := int64(len(a)), int64(len(b)) // and of c and d
	for _, test := range []struct {
		name               string
		old, file          []byte
		all, parts, blocks int64
	}{
		{"the same", slices.Concat(a, b), slices.Concat(a, b), la + lb, la + lb, (la + lb) / block * block},
		{"nothing", slices.Concat(a, b), slices.Concat(c, d), 0, 0, 0},
		{"a short run", slices.Concat(b, c), slices.Concat(d, b), lb, 0, lb},
		{"two short runs the other way round", slices.Concat(b, c), slices.Concat(c, b), lb + lb, 0, lb + lb},
		{"moved by some bytes", slices.Concat(b, a), slices.Concat(b[:100], a), la, la, 0},
		{"begun within a block", slices.Concat(c[:100], a), slices.Concat(d[:100], a), la, la, (100+la)/block*block - block},
		{"moved by whole blocks", slices.Concat(b, a), slices.Concat(b, b, a), 2*lb + la, lb + la, lb + (lb+la)/block*block},
		{"the longer of two runs", slices.Concat(b, c, b, a), slices.Concat(d, b, a), lb + la, lb + la, (lb + la) / block * block},
	} {
		all, parts, blocks, err := copyable(file(t, test.old), file(t, test.file))
		if err != nil {
			t.Fatal(err)
		}
		if all != test.all || parts != test.parts || blocks != test.blocks {
			t.Errorf("%s: %d, %d, %d; not %d, %d, %d", test.name, all, parts, blocks, test.all, test.parts, test.blocks)
		}
	}
}
