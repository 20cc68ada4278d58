package layerstore

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/vbatts/tar-split/tar/storage"
)

// entries is a tar-split: what a layer's tar has between the contents of its
// files, and which files (github.com/vbatts/tar-split). The library's own reader
// keeps the names of all files, to refuse one that comes twice; here the layer's
// digest does that.
type entries struct {
	lines *bufio.Scanner
	file  *os.File
	gzip  *gzip.Reader

	entry   storage.Entry
	payload []byte // of a line that was parsed
}

// maxEntry bounds one entry, in bytes: the headers between two files, in base64. Old
// engines also put all zeros behind the last file into one, and those may be many.
const maxEntry = 16 << 20

func openEntries(path string) (*entries, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bufio.NewReaderSize(f, 64<<10))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	e := &entries{lines: bufio.NewScanner(z), file: f, gzip: z}
	e.lines.Buffer(nil, maxEntry)
	return e, nil
}

// Next returns the next entry, io.EOF behind the last. It is there until the next call.
func (e *entries) Next() (*storage.Entry, error) {
	if !e.lines.Scan() {
		if err := e.lines.Err(); err != nil {
			return nil, fmt.Errorf("%s: %w", e.file.Name(), err)
		}
		return nil, io.EOF
	}
	if line(e.lines.Bytes()).parse(&e.entry, e.payload) {
		if e.entry.Payload != nil {
			e.payload = e.entry.Payload
		}
		return &e.entry, nil
	}
	e.entry = storage.Entry{}
	if err := json.Unmarshal(e.lines.Bytes(), &e.entry); err != nil {
		return nil, fmt.Errorf("%s: %w", e.file.Name(), err)
	}
	return &e.entry, nil
}

func (e *entries) Close() error { return errors.Join(e.gzip.Close(), e.file.Close()) }

// measure returns how many bytes the tar of a tar-split has.
func measure(ctx context.Context, path string) (size int64, err error) {
	e, err := openEntries(path)
	if err != nil {
		return 0, err
	}
	defer e.Close()
	for {
		entry, err := e.Next()
		if err == io.EOF {
			return size, nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return 0, err
		}
		switch entry.Type {
		case storage.SegmentType:
			size += int64(len(entry.Payload))
		case storage.FileType:
			size += entry.Size
		}
		if entry.Size < 0 || size < 0 {
			return 0, fmt.Errorf("%s has an impossible size", path)
		}
	}
}

// openMeasured opens a tar-split of whose tar it says the size in bytes.
func openMeasured(ctx context.Context, path string) (*entries, int64, error) {
	size, err := measure(ctx, path)
	if err != nil {
		return nil, 0, err
	}
	e, err := openEntries(path)
	return e, size, err
}

// reader puts a layer's tar together again.
type reader struct {
	ctx     context.Context
	entries *entries
	files   *directory

	segment []byte   // what is left of the current segment
	file    *os.File // the current file, nil where there is none, and
	left    int64    // what is left of it
	err     error
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (n int, err error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	for n == 0 && len(p) > 0 {
		switch {
		case r.err != nil:
			return 0, r.err
		case len(r.segment) > 0:
			n = copy(p, r.segment)
			r.segment = r.segment[n:]
		case r.file != nil:
			n = r.readFile(p)
		default:
			r.next()
		}
	}
	return n, nil
}

// readFile reads from the current file, and closes it behind its last byte.
func (r *reader) readFile(p []byte) int {
	n, err := r.file.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	if err == io.EOF && r.left > 0 {
		err = fmt.Errorf("%s is shorter than it was: %w", r.file.Name(), io.ErrUnexpectedEOF)
	}
	if err != nil && err != io.EOF {
		r.err = err
	}
	if r.left == 0 || r.err != nil {
		r.file.Close()
		r.file = nil
	}
	return n
}

func (r *reader) next() {
	entry, err := r.entries.Next()
	if err != nil {
		r.err = err
		return
	}
	switch entry.Type {
	case storage.SegmentType:
		r.segment = entry.Payload
	case storage.FileType:
		if entry.Size > 0 {
			r.file, _, r.err = r.files.open(entry.GetName())
			r.left = entry.Size
		}
	default:
		r.err = fmt.Errorf("a tar-split has an entry of the type %d", entry.Type)
	}
}

// Close implements io.Closer.
func (r *reader) Close() error {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
	if r.err == nil {
		r.err = fs.ErrClosed
	}
	return errors.Join(r.entries.Close(), r.files.Close())
}
