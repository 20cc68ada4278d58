package layerstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"
	"sync"

	"github.com/vbatts/tar-split/tar/storage"

	"github.com/dogestry/dogestry/internal/image"
)

// maxTable bounds what a Tar keeps in memory of its files, in bytes: enough for a
// million files.
const maxTable = 128 << 20

// place is where a layer's tar has the content of a file.
type place struct {
	start, size  int64
	name, length uint32 // the file's name in Tar.names
}

// placeSize is what a place takes in memory, in bytes.
const placeSize = 24

func (p place) end() int64 { return p.start + p.size }

// Tar reads the contents of a layer's files by where the layer's tar has them. What
// lies between them (headers, padding) is not kept: reading there is an
// errors.ErrUnsupported. It takes some 100 bytes of memory a file.
//
// It is safe for concurrent use, ends with the context that it was opened with,
// and is closed by who opened it. Nothing that it returns is verified.
type Tar struct {
	ctx    context.Context
	files  *directory
	size   int64
	places []place // of files that are not empty, in the tar's order
	names  []byte

	mu     sync.Mutex
	last   *os.File // the file that was read last: what follows is likely to be read next
	lastAt int      // its place
	closed bool
}

// Tar opens the topmost of a stack of layers, for reading at any offset of its tar.
// A layer of so many files that they would take more than 128 MiB of memory is an
// errors.ErrUnsupported.
func (s *Store) Tar(ctx context.Context, stack image.ChainID) (*Tar, error) {
	files, split, err := s.find(stack)
	if err != nil {
		return nil, err
	}
	t := &Tar{ctx: ctx, files: files}
	if err := t.locate(split); err != nil {
		files.Close()
		return nil, err
	}
	return t, nil
}

// locate finds out where the tar of a tar-split has which file.
func (t *Tar) locate(split string) error {
	e, err := openEntries(split)
	if err != nil {
		return err
	}
	defer e.Close()
	for {
		entry, err := e.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = t.ctx.Err()
		}
		if err != nil {
			return err
		}
		if err := t.add(entry); err != nil {
			return fmt.Errorf("%s: %w", split, err)
		}
	}
}

func (t *Tar) add(entry *storage.Entry) error {
	n := int64(len(entry.Payload))
	switch entry.Type {
	case storage.SegmentType:
	case storage.FileType:
		if n = entry.Size; n > 0 {
			name := entry.GetName()
			if placeSize*(len(t.places)+1)+len(t.names)+len(name) > maxTable {
				return fmt.Errorf("too many files to read it at any offset: %w", errors.ErrUnsupported)
			}
			t.places = append(t.places, place{t.size, n, uint32(len(t.names)), uint32(len(name))})
			t.names = append(t.names, name...)
		}
	default:
		return fmt.Errorf("an entry of the type %d", entry.Type)
	}
	if n < 0 || t.size+n < 0 {
		return errors.New("an impossible size")
	}
	t.size += n
	return nil
}

// Size returns the length of the layer's tar in bytes.
func (t *Tar) Size() int64 { return t.size }

// ReadAt implements io.ReaderAt. A file that is gone, or has not the length that it
// has in the tar, is an error.
func (t *Tar) ReadAt(p []byte, off int64) (n int, err error) {
	i := sort.Search(len(t.places), func(i int) bool { return t.places[i].end() > off })
	for n < len(p) {
		at := off + int64(n)
		if i < len(t.places) && at == t.places[i].end() {
			i++
		}
		switch {
		case at >= t.size:
			return n, io.EOF
		case i == len(t.places) || at < t.places[i].start:
			return n, fmt.Errorf("byte %d of a layer's tar is not of a file: %w", at, errors.ErrUnsupported)
		}
		f := t.places[i]
		m, err := t.readFile(i, p[n:n+int(min(int64(len(p)-n), f.end()-at))], at-f.start)
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

// readFile reads all of p from the file at a place.
func (t *Tar) readFile(i int, p []byte, off int64) (int, error) {
	f, err := t.take(i)
	if err != nil {
		return 0, err
	}
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		err = nil // it may have said that the file ends here
	}
	if err == io.EOF {
		err = fmt.Errorf("%s is shorter than it was: %w", f.Name(), io.ErrUnexpectedEOF)
	}
	t.giveBack(i, f)
	return n, err
}

// take returns the open file of a place, which nobody else has.
func (t *Tar) take(i int) (*os.File, error) {
	t.mu.Lock()
	var f *os.File
	if t.lastAt == i {
		f, t.last = t.last, nil
	}
	closed := t.closed
	t.mu.Unlock()
	if closed {
		return nil, fs.ErrClosed
	}
	if err := t.ctx.Err(); err != nil || f != nil {
		return f, err
	}
	return t.open(t.places[i])
}

// giveBack keeps a file open until another one is given back.
func (t *Tar) giveBack(i int, f *os.File) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		f.Close()
		return
	}
	if t.last != nil {
		t.last.Close()
	}
	t.last, t.lastAt = f, i
}

func (t *Tar) open(p place) (*os.File, error) {
	f, size, err := t.files.open(string(t.names[p.name : p.name+p.length]))
	if err == nil && size != p.size {
		f.Close()
		err = fmt.Errorf("%s has %d bytes and had %d", f.Name(), size, p.size)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Close implements io.Closer.
func (t *Tar) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.last != nil {
		t.last.Close()
		t.last = nil
	}
	return t.files.Close()
}
