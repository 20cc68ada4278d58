package original

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Measure reads a layer to its end, and returns its diffID and size in bytes, both
// decoded. A Damaged fault says that it is no whole tar: nothing else could tell, a
// truncated file for instance. It takes memory for a header of the tar at a time.
func Measure(ctx context.Context, in remote.Originals, layer remote.Layer) (id image.DiffID, size int64, err error) {
	body, err := in.OpenOriginal(ctx, layer)
	if err != nil {
		return id, 0, err
	}
	defer body.Close()
	sum := sha256.New()
	count := &counter{}
	bytes := io.TeeReader(body, io.MultiWriter(sum, count))
	if err := wholeTar(bytes, count); err != nil {
		if ctx.Err() != nil {
			return id, 0, ctx.Err()
		}
		var known *fault.Error // of the transport, or of the codec
		if !errors.As(err, &known) {
			err = noTar(layer, err)
		}
		return id, count.n, err
	}
	sum.Sum(id[:0])
	return id, count.n, ctx.Err()
}

func noTar(layer remote.Layer, cause error) error {
	where := &remote.Damage{Object: layer.Object, Text: layer.Object + " holds no whole tar", Cause: cause}
	return fault.Wrap(fault.Damaged, where, "layer %s of format 1.0 is damaged", layer.Digest.Short()).
		Advise("Copy it here from a repository that has it whole, or push the image again from an engine.")
}

// counter counts what is written to it.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// blockSize is what a tar is made of.
const blockSize = 512

// errNoEnd says that a tar ends where a file could follow: it may have been cut there.
var errNoEnd = fmt.Errorf("it has no end marker: %w", io.ErrUnexpectedEOF)

// wholeTar reads a tar, its end marker, and what is behind that.
func wholeTar(r io.Reader, read *counter) error {
	t := tar.NewReader(r)
	for {
		before := read.n
		header, err := t.Next()
		switch {
		case err == io.EOF && read.n-before < blockSize: // no block of zeros came
			return errNoEnd
		case err == io.EOF:
			_, err := io.Copy(io.Discard, r)
			return err
		case err != nil && !errors.Is(err, tar.ErrInsecurePath): // it is not unpacked here
			return err
		}
		// Reading a sparse file would give its holes, which can be as large as they
		// like: Next passes over what is there of it.
		if !isSparse(header) {
			if _, err := io.Copy(io.Discard, t); err != nil {
				return err
			}
		}
	}
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for name := range h.PAXRecords {
		if strings.HasPrefix(name, "GNU.sparse.") {
			return true
		}
	}
	return false
}
