package chunk

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"iter"
)

// File is a file of a layer, with those bytes of the content stream that are its own.
type File struct {
	Name     string // as the layer has it; empty where no header tells
	At, Size int64
}

// Files yields the files of a layer that have content, in their order, by what the headers among its literals say:
// each file once, and nothing of what they hold. Literals that are not in the index are read out of the frames that
// hold them. It ends after the first error. Where the layer is no tar, or one that cannot be followed, the rest is
// one file without a name.
func (x *Index) Files(ctx context.Context, open Reader) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		stored, err := x.ReadBlocks(ctx, open)
		if err != nil {
			yield(File{}, err)
			return
		}
		r := &headers{ctx: ctx, open: open, index: x, stored: stored}
		t := tar.NewReader(r)
		last, size := File{}, int64(0) // as its header has it: of a sparse file it is more than what is there
		for {
			h, err := t.Next()
			if r.err != nil {
				yield(File{}, r.err)
				return
			}
			at := r.content()
			if err != nil { // the end, or no tar from here on
				at = x.contents()
			}
			if err != nil && size < at-last.At {
				if last.Size = size; size > 0 && !yield(last, nil) {
					return
				}
				last = File{At: last.At + size}
			}
			if last.Size = at - last.At; last.Size > 0 && !yield(last, nil) || err != nil {
				return
			}
			last, size = File{Name: h.Name, At: at}, h.Size
		}
	}
}

// contents is how long the content stream is.
func (x *Index) contents() int64 {
	if len(x.Spans) == 0 {
		return 0
	}
	last := x.Spans[len(x.Spans)-1]
	return last.ContentAt + last.Content
}

// headers reads a tar with zeros for all contents.
type headers struct {
	ctx    context.Context
	open   Reader
	index  *Index
	stored []byte // blocks, as ReadBlocks has them
	err    error

	at    int64 // in the tar
	span  int   // that this is in
	block int   // the next one to be decoded
	from  int64 // where literals begins among all literals
	rest  []byte
}

// content is where in the content stream the reader is.
func (r *headers) content() int64 {
	if r.span == len(r.index.Spans) {
		return r.index.contents()
	}
	s := r.index.Spans[r.span]
	return s.ContentAt + max(0, r.at-s.Tar-s.Literal)
}

func (r *headers) Read(p []byte) (int, error) {
	if r.err == nil {
		r.err = r.ctx.Err()
	}
	if r.err != nil {
		return 0, r.err
	}
	r.pass()
	if r.span == len(r.index.Spans) {
		return 0, io.EOF
	}
	s := r.index.Spans[r.span]
	off := r.at - s.Tar
	if off >= s.Literal {
		n := int(min(int64(len(p)), s.Literal+s.Content-off))
		clear(p[:n])
		r.at += int64(n)
		return n, nil
	}
	n, err := r.literal(p[:min(int64(len(p)), s.Literal-off)], s.LiteralAt+off)
	r.at += int64(n)
	r.err = err
	return n, err
}

// pass goes on to the span that r.at is in.
func (r *headers) pass() {
	for r.span < len(r.index.Spans) {
		if s := r.index.Spans[r.span]; r.at < s.Tar+s.Literal+s.Content {
			return
		}
		r.span++
	}
}

// literal reads literals from at on, which never goes back.
func (r *headers) literal(p []byte, at int64) (int, error) {
	for at >= r.from+int64(len(r.rest)) {
		b := r.index.Blocks[r.block]
		r.block++
		if at >= b.LiteralAt+b.Size {
			continue
		}
		var err error
		if b.Stored > 0 {
			r.rest, err = r.index.Block(r.stored, b)
		} else {
			r.rest, err = r.index.readLiterals(r.ctx, r.open, b)
		}
		if err != nil {
			return 0, err
		}
		r.from = b.LiteralAt
	}
	return copy(p, r.rest[at-r.from:]), nil
}

// readLiterals reads a block out of the frames that hold it, one after the other.
func (x *Index) readLiterals(ctx context.Context, open Reader, b Block) ([]byte, error) {
	tar := NewTar(ctx, x, open)
	defer tar.Close()
	literals := make([]byte, b.Size)
	at := int64(0)
	for r := range x.Literals(b.LiteralAt, b.Size) {
		if _, err := tar.ReadAt(literals[at:at+r.Size], r.Tar); err != nil {
			return nil, err
		}
		at += r.Size
	}
	return literals, nil
}

// Seek passes over contents without making them. It goes forward only, as tar.Reader does.
func (r *headers) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.at
	default:
		return 0, errors.ErrUnsupported
	}
	if offset < r.at {
		return 0, errors.ErrUnsupported
	}
	r.at = min(offset, r.index.Size)
	r.pass()
	return r.at, nil
}
