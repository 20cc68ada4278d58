package verify

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// patch writes a damaged layer anew out of what is good in it, and of those frames of the other remote's
// that hold the rest. Nobody is believed in that: the target publishes nothing but what has the digest. The
// errors are as layer's; both are nil where it is written.
func (c *Copier) patch(ctx context.Context, l image.Descriptor, other remote.Layer) (source, target error) {
	p, err := c.newPatched(ctx, l, other)
	if err != nil {
		return err, nil
	}
	defer p.Close()
	from := &watched{r: p}
	l.Size = p.Size
	_, err = c.To.PutLayer(ctx, l, from)
	var wrong *image.MismatchError
	if from.err != nil {
		return from.err, nil
	} else if errors.As(err, &wrong) || lasting(err) {
		return err, nil
	}
	return nil, err
}

// patched is a tar, piece by piece from where it is right. It is not verified.
type patched struct {
	*indexed // what tells right from wrong: of the file here where that can be, else of the other
	ctx      context.Context
	here     ownFrames
	there    *lender

	next int    // frame
	rest []byte // of the frame before next
}

// ownFrames are the bytes of the damaged file, in the order and the sizes of an index's frames.
type ownFrames interface {
	// read returns the next frame, in memory that may be written to until the next call. ok is false
	// where it is not to be had, and the memory is of its size all the same.
	read() (raw []byte, ok bool, err error)
	Close() error
}

// newPatched opens both sides. Its error says that the layer cannot be put together so.
func (c *Copier) newPatched(ctx context.Context, l image.Descriptor, other remote.Layer) (*patched, error) {
	here, ok := c.To.(remote.Source)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	there, err := openIndexed(ctx, c.From, other)
	if err != nil {
		return nil, err
	}
	own, err := remote.Layers(ctx, here, []image.Digest{l.Digest})
	if err != nil {
		return nil, err // all of it is to be written
	}
	p := &patched{ctx: ctx, there: &lender{indexed: there, ctx: ctx, frame: -1}}
	mine := own[0]
	mine.Size = there.Size
	if p.indexed, err = openIndexed(ctx, here, mine); err == nil {
		if err := p.readLiterals(ctx); err != nil {
			return nil, err
		}
		body, err := p.open(ctx, 0, p.Stored)
		if err != nil {
			return nil, err
		}
		p.here = &frameReader{indexed: p.indexed, body: body}
		return p, nil
	}
	// Its index is gone. What it decodes to from its beginning is compared with the other's.
	if p.indexed = there; ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err := p.readLiterals(ctx); err != nil {
		return nil, err
	}
	decoded, ok := here.(remote.Unproved)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	body, err := decoded.OpenDecoded(ctx, mine)
	if err != nil {
		return nil, err
	}
	p.here = &streamed{index: p.Index, body: body}
	return p, nil
}

func (p *patched) Close() error { return errors.Join(p.here.Close(), p.there.Close()) }

func (p *patched) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if err := p.ctx.Err(); err != nil {
			return 0, err
		}
		if p.next == len(p.Frames) {
			return 0, io.EOF
		}
		if err := p.frame(); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// frame makes the next frame right.
func (p *patched) frame() error {
	i := p.next
	raw, ok, err := p.here.read()
	if err != nil {
		return err
	}
	f := p.Frames[i]
	wrong := []chunk.Range{{Tar: f.Tar, Size: int64(f.Size)}}
	if ok {
		wrong = p.wrong(i, raw)
	}
	for _, r := range wrong {
		if err := p.there.fill(raw[r.Tar-f.Tar:r.End()-f.Tar], r.Tar); err != nil {
			return err
		}
	}
	if len(wrong) > 0 && len(p.wrong(i, raw)) > 0 {
		return errors.New("what the other remote has of it is not what belongs there")
	}
	p.next, p.rest = i+1, raw
	return nil
}

func (r *frameReader) Close() error { return r.body.Close() }

// streamed is a file without an index, decoded from its beginning: as far as it goes.
type streamed struct {
	index *chunk.Index
	body  io.ReadCloser
	next  int
	raw   []byte
	ended bool
}

func (s *streamed) read() (raw []byte, ok bool, err error) {
	size := int(s.index.Frames[s.next].Size)
	s.next++
	if cap(s.raw) < size {
		s.raw = make([]byte, size)
	}
	s.raw = s.raw[:size]
	if s.ended {
		return s.raw, false, nil
	}
	n, err := io.ReadFull(s.body, s.raw)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF && !lasting(err) {
		return nil, false, err
	}
	s.ended = err != nil
	return s.raw, n == size, nil
}

func (s *streamed) Close() error { return s.body.Close() }

// lender gives parts of the tar out of the other remote's frames.
type lender struct {
	*indexed
	ctx context.Context

	frame int // that is in raw; -1: none
	raw   []byte

	from *frameReader // of a request; nil before the first one
	end  int          // the frame before which it ends
	last int          // so many frames were asked for at once
	to   int64        // where in the tar the last part ended
}

// mostAhead bounds the frames that are asked for at once before they are needed.
const mostAhead = 64

// fill reads the tar from a place on: with one request, and with few where one part follows the other.
func (l *lender) fill(p []byte, tar int64) error {
	first, end := l.FramesOf(chunk.Range{Tar: tar, Size: int64(len(p))})
	ahead := 0
	if tar == l.to {
		ahead = min(2*l.last, mostAhead)
	}
	l.to = tar + int64(len(p))
	for i := first; i < end; i++ {
		if err := l.load(i, max(end, i+ahead)); err != nil {
			return err
		}
		n := copy(p, l.raw[tar-l.Frames[i].Tar:])
		p, tar = p[n:], tar+int64(n)
	}
	return nil
}

// load decodes frame i. Where it has to be asked for, so are those behind it, before end.
func (l *lender) load(i, end int) error {
	if i == l.frame {
		return nil
	}
	if l.from == nil || l.from.next != i || i == l.end {
		if err := l.request(i, min(end, len(l.Frames))); err != nil {
			return err
		}
	}
	raw, ok, err := l.from.read()
	if err == nil && !ok {
		err = fmt.Errorf("frame at %d of the other remote's is damaged too", l.Frames[i].At)
	}
	l.frame, l.raw = i, raw
	return err
}

// request asks for frames.
func (l *lender) request(i, end int) error {
	if err := l.Close(); err != nil {
		return err
	}
	last := l.Frames[end-1]
	body, err := l.open(l.ctx, l.Frames[i].At, last.At+int64(last.Stored)-l.Frames[i].At)
	if err != nil {
		return err
	}
	l.last, l.end, l.from = end-i, end, &frameReader{indexed: l.indexed, next: i, body: body}
	return nil
}

// Close ends a request.
func (l *lender) Close() error {
	if l.from == nil {
		return nil
	}
	err := l.from.body.Close()
	l.from = nil
	return err
}
