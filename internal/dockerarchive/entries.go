package dockerarchive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/storage"
)

// What an archive may have: an image of image.MaxLayers layers has some four entries
// a layer.
const (
	maxEntries = 1 << 18
	maxNames   = 64 << 20 // bytes of all names together
	maxHops    = 10       // from link to link
)

// entry is a file of a tar, or a link.
type entry struct {
	offset, size int64
	link         string // cleaned, relative to the archive; empty of a file
}

// entries are what lies in a tar, by cleaned name. Nothing is unpacked anywhere.
type entries struct {
	tar   io.ReaderAt
	named map[string]entry
}

// errDamaged says that a tar is not what it should be; the text says how.
type errDamaged string

func (e errDamaged) Error() string { return string(e) }

// scan finds the entries of a tar of size bytes, without reading what is in them.
func scan(ctx context.Context, r io.ReaderAt, size int64) (*entries, error) {
	all := &entries{tar: r, named: map[string]entry{}}
	section := io.NewSectionReader(r, 0, size)
	t := tar.NewReader(section)
	names := 0
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := t.Next()
		switch {
		case err == io.EOF:
			return all, nil
		case len(all.named) == 0 && (errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF)):
			return nil, errDamaged("it is no tar")
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, errDamaged("it is truncated")
		case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
			return nil, errDamaged(fmt.Sprintf("its tar is broken behind %d entries", len(all.named)))
		case err != nil:
			return nil, err
		}
		e := entry{size: h.Size}
		switch h.Typeflag {
		case tar.TypeReg:
		case tar.TypeSymlink:
			e.link = path.Join(path.Dir(h.Name), h.Linkname)
			if path.IsAbs(h.Linkname) {
				e.link = h.Linkname
			}
		case tar.TypeLink:
			e.link = path.Clean(h.Linkname)
		case tar.TypeGNUSparse: // it may be exabytes of zeros
			return nil, errDamaged(fmt.Sprintf("it has a sparse entry %.100q", h.Name))
		default: // directories, devices, pipes: nothing of an image
			continue
		}
		if h.PAXRecords["GNU.sparse.major"] != "" || h.PAXRecords["GNU.sparse.map"] != "" {
			return nil, errDamaged(fmt.Sprintf("it has a sparse entry %.100q", h.Name))
		}
		name := path.Clean(h.Name)
		if outside(name) {
			return nil, errDamaged(fmt.Sprintf("it has an entry named %.100q", h.Name))
		}
		if _, twice := all.named[name]; twice {
			return nil, errDamaged(fmt.Sprintf("it has two entries named %.100q", name))
		}
		if names += len(name) + len(e.link); len(all.named) == maxEntries || names > maxNames {
			return nil, errDamaged(fmt.Sprintf("it has more than %d entries, or longer names than an image needs", maxEntries))
		}
		if e.offset, err = section.Seek(0, io.SeekCurrent); err != nil {
			return nil, err
		}
		all.named[name] = e
	}
}

// outside reports whether a cleaned name would leave a folder if it were unpacked.
func outside(name string) bool {
	return path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../")
}

// find returns a file, also one that links lead to. ErrNotFound.
func (all *entries) find(name string) (entry, error) {
	at := path.Clean(name)
	for range maxHops {
		e, ok := all.named[at]
		switch {
		case !ok:
			return entry{}, fmt.Errorf("%.200q: %w", name, storage.ErrNotFound)
		case e.link == "":
			return e, nil
		case outside(e.link):
			return entry{}, errDamaged(fmt.Sprintf("%.100q is a link out of the archive, to %.100q", at, e.link))
		}
		at = e.link
	}
	return entry{}, errDamaged(fmt.Sprintf("%.100q is a link without end", name))
}

// open reads a file until ctx ends.
func (all *entries) open(ctx context.Context, e entry) io.Reader {
	return &reader{ctx, io.NewSectionReader(all.tar, e.offset, e.size)}
}

type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// read returns a file of at most image.MaxDocument bytes. ErrNotFound.
func (all *entries) read(ctx context.Context, name string) ([]byte, error) {
	e, err := all.find(name)
	if err != nil {
		return nil, err
	}
	if e.size > image.MaxDocument {
		return nil, errDamaged(fmt.Sprintf("its %.100q has %d bytes, more than %d", name, e.size, image.MaxDocument))
	}
	b := make([]byte, e.size)
	if _, err := io.ReadFull(all.open(ctx, e), b); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, errDamaged("it is truncated")
		}
		return nil, err
	}
	return b, nil
}
