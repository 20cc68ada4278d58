package enginetest

import (
	"archive/tar"
	"bytes"
	"fmt"
)

// OldSparse is an image with a sparse file in the old GNU format. No engine from 20.10 to 29 loads it ("unhandled tar header
// type 83"), so it is not in [Trouble]; as bytes that a registry or a remote holds it is as good as any.
func OldSparse() *Image { return NewImage().Tag(Repository + "/old-sparse:1").Layer(sparseGNU("hole")) }

// A sparse file of sparseSize bytes with one piece of data, a block long, at sparseAt.
const (
	sparseSize = 1 << 20
	sparseAt   = 512 << 10
)

// sparseGNU is a sparse file in the old GNU format, type 'S'. Go's tar writer reads it but does not write it.
func sparseGNU(name string) Entry {
	h := rawHeader(name, 'S', tarBlock)
	copy(h[257:], "ustar  \x00") // the old GNU magic
	copy(h[386:], fmt.Sprintf("%011o\x00%011o\x00", sparseAt, tarBlock))
	copy(h[483:], fmt.Sprintf("%011o\x00", sparseSize))
	return Entry{Raw: append(seal(h), sparseData()...)}
}

// sparsePAX is a sparse file in the format PAX 1.0: the map of its data comes before the data. Classic engines load it, but
// cannot export it: they unpack it in full and keep no map of the holes (a known limit of tar-split), so the tar that they
// put together again has another digest, which they notice.
func sparsePAX(name string) Entry {
	var records bytes.Buffer
	for _, kv := range [][2]string{
		{"GNU.sparse.major", "1"},
		{"GNU.sparse.minor", "0"},
		{"GNU.sparse.name", name},
		{"GNU.sparse.realsize", fmt.Sprint(sparseSize)},
	} {
		line := fmt.Sprintf(" %s=%s\n", kv[0], kv[1])
		n := len(line) + 2 // every length here has two digits
		fmt.Fprintf(&records, "%d%s", n, line)
	}
	p := rawHeader("PaxHeaders/"+name, tar.TypeXHeader, records.Len())
	copy(p[257:], "ustar\x0000")
	h := rawHeader("GNUSparseFile.0/"+name, tar.TypeReg, 2*tarBlock)
	copy(h[257:], "ustar\x0000")
	holes := fmt.Sprintf("1\n%d\n%d\n", sparseAt, tarBlock)
	raw := append(seal(p), block(records.Bytes())...)
	raw = append(raw, seal(h)...)
	raw = append(raw, block([]byte(holes))...)
	return Entry{Raw: append(raw, sparseData()...)}
}

func sparseData() []byte { return bytes.Repeat([]byte("wow "), tarBlock/4) }

// rawHeader is a tar header without magic and checksum.
func rawHeader(name string, kind byte, size int) []byte {
	h := make([]byte, tarBlock)
	copy(h, name)
	copy(h[100:], "0000644\x00")
	copy(h[108:], "0000000\x00")
	copy(h[116:], "0000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00", size))
	copy(h[136:], fmt.Sprintf("%011o\x00", created.Unix()))
	h[156] = kind
	return h
}

// seal writes the header's checksum, which counts its own field as spaces.
func seal(h []byte) []byte {
	copy(h[148:], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// block fills b up to whole blocks.
func block(b []byte) []byte {
	return append(bytes.Clone(b), make([]byte, (tarBlock-len(b)%tarBlock)%tarBlock)...)
}
