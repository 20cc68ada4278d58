package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/remote"
)

// probeSize is how many bytes of a layer are read to learn how fast they come: of its literals, which are needed
// anyway.
const probeSize = 256 << 10

// link is how fast a remote answers and sends, by what was read of it. It is safe for concurrent use.
type link struct {
	mu      sync.Mutex
	latency time.Duration // the shortest time until the first byte
	reads   int

	bytes  int64         // that came behind the first ones of each read
	moving time.Duration // in which they came
	waits  int           // reads that came at once: moving has all of their time
}

// add notes a read: what came first and after which time, and all.
func (l *link) add(early, n int64, first, all time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reads == 0 || first < l.latency {
		l.latency = first
	}
	l.reads++
	if early > n/2 {
		l.waits++
		early, first = 0, 0
	}
	l.bytes += n - early
	l.moving += all - first
}

// speed returns the latency, and the bytes a second once they come: connections are made, and answers thought about, once.
// Reads so short that waiting is all of it say little: an eighth of the time is taken for the bytes at least.
func (l *link) speed() (latency time.Duration, rate float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	moving := max(l.moving-time.Duration(l.waits)*l.latency, time.Duration(l.reads)*l.latency/8, time.Microsecond)
	return l.latency, float64(l.bytes) / moving.Seconds()
}

// layerParts reads parts of a stored layer, and remembers its end, where the index is. It is safe for concurrent
// use once index and probe have returned.
type layerParts struct {
	from    remote.Parts
	layer   remote.Layer
	link    *link
	fetched atomic.Int64 // bytes that were read of the remote

	tail []byte // the end of the object
}

// mostTail bounds what is remembered of a layer's end, in bytes.
const mostTail = 8 << 20

// index reads the index of the layer.
func (l *layerParts) index(ctx context.Context) (*chunk.Index, error) {
	return chunk.Read(ctx, l.ahead, l.layer.Stored)
}

// probe measures the link by literals of x that Plan.Open would read.
func (l *layerParts) probe(ctx context.Context, x *chunk.Index) {
	at := l.layer.Stored - int64(len(l.tail))
	from := max(x.Stored+codec.SkippableHeader, at-probeSize)
	if from >= at {
		return
	}
	if body, err := l.ahead(ctx, from, at-from); err == nil { // else Plan.Open says why
		_ = body.Close()
	}
}

// ahead reads all of a part into memory, before it returns, for chunk.Read. It measures.
func (l *layerParts) ahead(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
	start := time.Now()
	body, err := l.from.OpenPart(ctx, l.layer, offset, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b := make([]byte, n)
	read, err := io.ReadAtLeast(body, b, 1)
	early, first := int64(read), time.Since(start)
	if err == nil {
		var more int
		more, err = io.ReadFull(body, b[read:])
		read += more
	}
	if l.layer.Source != remote.InCache {
		l.fetched.Add(int64(read))
		l.link.add(early, int64(read), first, time.Since(start))
	}
	if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	b = b[:read]
	if offset+int64(read) == l.layer.Stored-int64(len(l.tail)) && len(b)+len(l.tail) <= mostTail {
		l.tail = append(b, l.tail...)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// open is a chunk.Reader of the layer. What is known of its end is not read again.
func (l *layerParts) open(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
	at := l.layer.Stored - int64(len(l.tail))
	end := min(offset+n, l.layer.Stored)
	known := io.Reader(bytes.NewReader(nil))
	if end > at {
		known = bytes.NewReader(l.tail[max(offset, at)-at : end-at])
		end = at
	}
	if offset >= end {
		return io.NopCloser(known), nil
	}
	body, err := l.from.OpenPart(ctx, l.layer, offset, end-offset)
	if err != nil {
		return nil, err
	}
	return &countedPart{io.MultiReader(&counter{body, &l.fetched}, known), body}, nil
}

type countedPart struct {
	io.Reader
	io.Closer
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n *atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}
