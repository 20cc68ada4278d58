package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/dogestry/dogestry/internal/storage"
)

// A large object is read in pieces of readSize, at most readAhead at once, all
// in memory: one connection to S3 is slow, and so is one request after another.
const (
	readSize  = 4 << 20
	readAhead = 4
)

// Get implements storage.Store. A connection that breaks is taken up again at
// the byte where it broke; an object that is replaced meanwhile gives
// ErrChanged. The reader holds at most 16 MiB and ends its goroutines with Close.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	full, err := s.key(key)
	if err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fmt.Errorf("%s: negative offset %d", key, offset)
	}
	if length == 0 || offset > math.MaxInt64-readSize { // no object is that large
		if _, err := s.Stat(ctx, key); err != nil {
			return nil, err
		}
		return io.NopCloser(strings.NewReader("")), nil
	}
	end := int64(-1)
	if length > 0 && offset+length > offset {
		end = offset + length
	}
	d := &download{store: s, key: key, full: full}
	d.ctx, d.cancel = context.WithCancel(ctx)
	first, err := d.open(offset, end)
	if err != nil {
		d.cancel()
		if rangeBeyond(err) {
			return io.NopCloser(strings.NewReader("")), nil
		}
		return nil, s.failure(ctx, err, "read", key)
	}
	d.etag, d.total = first.etag, first.total
	if end < 0 || end > d.total {
		end = d.total
	}
	d.start(first.body, offset, end)
	return d, nil
}

// download is an object, or a part of it, on its way. Pieces come in any order
// and are handed out in theirs.
type download struct {
	store *Store
	key   string
	full  *string
	etag  *string // of the object that the first answer was about
	total int64   // its size

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	order   chan *piece   // in the order of their bytes
	slots   chan struct{} // taken by pieces that are not read yet

	current *piece // only Read uses these
	rest    []byte // of current
	closed  bool
	err     error
}

// piece is bytes on their way to memory.
type piece struct {
	buffer *[]byte
	data   []byte // the part of buffer that is used
	err    error  // why it is not whole
	done   chan struct{}
}

// answer is bytes of an object, and what the server says of the whole one.
type answer struct {
	body  io.ReadCloser
	etag  *string
	total int64
}

// open asks for the bytes from offset to end, at most readSize, of the same
// object as the first answer's. It may be called by several goroutines.
func (d *download) open(offset, end int64) (answer, error) {
	last := offset + readSize
	if end >= 0 {
		last = min(last, end)
	}
	out, err := d.store.api.GetObject(d.ctx, &s3.GetObjectInput{
		Bucket:  &d.store.o.Bucket,
		Key:     d.full,
		Range:   aws.String("bytes=" + strconv.FormatInt(offset, 10) + "-" + strconv.FormatInt(last-1, 10)),
		IfMatch: d.etag,
	})
	if err != nil {
		return answer{}, err
	}
	total, err := totalSize(out, offset)
	if err == nil && d.etag != nil && (aws.ToString(out.ETag) != *d.etag || total != d.total) {
		err = errReplaced // by a server that ignores the condition
	}
	if err != nil {
		out.Body.Close()
		return answer{}, err
	}
	return answer{out.Body, out.ETag, total}, nil
}

var errReplaced = fmt.Errorf("the object was replaced while it was read: %w", storage.ErrChanged)

// totalSize returns the size of the whole object, of which the answer holds a
// range that begins at offset.
func totalSize(out *s3.GetObjectOutput, offset int64) (int64, error) {
	if out.ContentRange == nil { // some servers answer with all of it where that is what was asked for
		if offset == 0 && out.ContentLength != nil {
			return *out.ContentLength, nil
		}
		return 0, errors.New("the server ignores the range that was asked for")
	}
	var first, last, total int64
	if _, err := fmt.Sscanf(*out.ContentRange, "bytes %d-%d/%d", &first, &last, &total); err != nil || first != offset || last < first || total <= last {
		return 0, fmt.Errorf("the server answered with the range %q", *out.ContentRange)
	}
	return total, nil
}

// start begins to read ahead. first is the answer that open got.
func (d *download) start(first io.ReadCloser, offset, end int64) {
	ahead := int((end - offset + readSize - 1) / readSize)
	ahead = max(1, min(readAhead, ahead))
	d.order = make(chan *piece, ahead)
	d.slots = make(chan struct{}, ahead)
	d.running.Go(func() {
		defer close(d.order)
		for body := first; offset < end || body != nil; body = nil {
			select {
			case d.slots <- struct{}{}:
			case <-d.ctx.Done():
				if body != nil {
					body.Close()
				}
				return
			}
			size := max(0, min(readSize, end-offset))
			p := &piece{done: make(chan struct{})}
			d.order <- p
			at := offset
			d.running.Go(func() { d.fetch(p, body, at, size) })
			offset += size
		}
	})
}

// fetch fills p with size bytes from offset on. body is the answer that has
// them, if there is one already.
func (d *download) fetch(p *piece, body io.ReadCloser, offset, size int64) {
	defer close(p.done)
	if size > 64<<10 {
		p.buffer = d.store.small.Get().(*[]byte)
	} else { // the many small objects
		b := make([]byte, size)
		p.buffer = &b
	}
	for attempt, n := 1, int64(0); ; attempt++ {
		var err error
		if body == nil {
			var a answer
			if a, err = d.open(offset+n, offset+size); err != nil {
				p.err = err // has been tried again already
				return
			}
			body = a.body
		}
		var more int
		more, err = io.ReadFull(body, (*p.buffer)[n:size])
		body.Close()
		body = nil
		if n += int64(more); n == size {
			p.data = (*p.buffer)[:size]
			return
		}
		if more > 0 {
			attempt = 1
		}
		if p.err = d.store.retry.wait(d.ctx, attempt, err); p.err != nil {
			return
		}
	}
}

// Read implements io.Reader.
func (d *download) Read(b []byte) (int, error) {
	if d.closed {
		return 0, fmt.Errorf("%s: read after Close", d.key)
	}
	if err := d.ctx.Err(); err != nil {
		return 0, fmt.Errorf("%s: %w", d.store.name(d.key), err)
	}
	for len(d.rest) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		d.next()
	}
	n := copy(b, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// next waits for the next piece.
func (d *download) next() {
	d.release()
	p, ok := <-d.order
	if !ok {
		if d.err = io.EOF; d.ctx.Err() != nil {
			d.err = fmt.Errorf("%s: %w", d.store.name(d.key), d.ctx.Err())
		}
		return
	}
	<-p.done
	d.current, d.rest = p, p.data
	if p.err != nil {
		d.err = d.store.failure(d.ctx, p.err, "read", d.key)
	}
}

// release gives the current piece's place to another.
func (d *download) release() {
	if d.current == nil {
		return
	}
	if len(*d.current.buffer) == readSize {
		d.store.small.Put(d.current.buffer)
	}
	d.current, d.rest = nil, nil
	<-d.slots
}

// Close ends the requests and waits for them.
func (d *download) Close() error {
	if d.closed {
		return nil
	}
	d.closed = true
	d.cancel()
	d.running.Wait()
	return nil
}
