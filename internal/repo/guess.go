package repo

import (
	"bufio"
	"bytes"
	"io"

	"github.com/dogestry/dogestry/internal/image"
)

const (
	tarBlock    = 512
	tarMagic    = "ustar" // POSIX and GNU
	tarMagicAt  = 257
	tarEnd      = 2 * tarBlock // zeros: all of a tar without files
	guessBuffer = 64 << 10
)

// guess tells by its first bytes what a layer is of which nobody has said it: a tar,
// which is stored as the repository likes to store tars, or something else, which is
// kept as it is. A wrong guess costs room and no byte: either way the layer is its
// bytes. The reader it returns begins where from did.
func guess(from io.Reader) (mediaType string, all io.Reader) {
	b := bufio.NewReaderSize(from, guessBuffer)
	head, _ := b.Peek(tarEnd) // what it fails with comes again when it is read
	if isTar(head) {
		return "", b
	}
	return image.UnknownMediaType, b
}

// isTar reports whether a tar begins so.
func isTar(head []byte) bool {
	if len(head) < tarBlock {
		return false
	}
	named := bytes.HasPrefix(head[tarMagicAt:], []byte(tarMagic))
	return named || len(head) == tarEnd && len(bytes.Trim(head, "\x00")) == 0
}
