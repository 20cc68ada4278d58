package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/dogestry/dogestry/internal/storage"
)

// Get implements storage.Store. A download that breaks goes on where it broke, as long as
// the server says that the object is the same. A server without ranges is asked for all of
// it, and what was not wanted is thrown away.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return s.get(ctx, key, offset, length, false)
}

// GetExact implements storage.Exact.
func (s *Store) GetExact(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return s.get(ctx, key, offset, length, true)
}

func (s *Store) get(ctx context.Context, key string, offset, length int64, exact bool) (io.ReadCloser, error) {
	if err := storage.ValidKey(key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fmt.Errorf("%s: negative offset %d", s.name(key), offset)
	}
	if length == 0 {
		if _, err := s.Stat(ctx, key); err != nil {
			return nil, err
		}
		return io.NopCloser(strings.NewReader("")), nil
	}
	d := &download{store: s, key: key, ctx: ctx, at: offset, end: -1, exact: exact}
	if length > 0 && offset+length > offset {
		d.end = offset + length
	}
	if err := d.open(); err != nil {
		return nil, s.failure(ctx, key, err)
	}
	return d, nil
}

// download is an object, or a part of it, on its way.
type download struct {
	store *Store
	key   string
	ctx   context.Context
	at    int64 // of the object, what comes next
	end   int64 // where it ends; -1 where that is not known
	exact bool  // nothing but that may come

	validator string // says that the object is the same; empty where the server has none
	begun     bool   // there was an answer
	body      io.ReadCloser
	tries     int // since bytes came
	closed    bool
	err       error
}

// open asks for what has not come yet.
func (d *download) open() error {
	header := http.Header{}
	if d.at > 0 || d.end >= 0 {
		last := ""
		if d.end >= 0 {
			last = fmt.Sprint(d.end - 1)
		}
		header.Set("Range", fmt.Sprintf("bytes=%d-%s", d.at, last))
		if d.begun {
			header.Set("If-Range", d.validator)
		}
	}
	ctx, cancel := context.WithCancelCause(d.ctx)
	answer, err := d.store.ask(ctx, http.MethodGet, d.store.at(d.key), header)
	if err != nil {
		cancel(nil)
		return err
	}
	body := &stalls{answer.Body, cancel, ctx, d.store.o.Stall}
	if err := d.accept(answer, body); err != nil {
		body.Close()
		return err
	}
	return nil
}

// accept looks at what the answer says of its body.
func (d *download) accept(answer *http.Response, body io.ReadCloser) error {
	same := validator(answer.Header)
	if d.begun && (answer.StatusCode == http.StatusOK || answer.StatusCode == http.StatusPartialContent) && same != d.validator {
		return fmt.Errorf("it was replaced while it was read: %w", storage.ErrChanged)
	}
	skip := int64(0)
	switch answer.StatusCode {
	case http.StatusOK: // all of it
		if d.exact && (d.at > 0 || d.end >= 0 && (answer.ContentLength < 0 || answer.ContentLength > d.end)) {
			return fmt.Errorf("the server sends whole files only: %w", errors.ErrUnsupported)
		}
		if skip = d.at; answer.ContentLength >= 0 {
			d.limit(answer.ContentLength)
		}
	case http.StatusPartialContent:
		var first, last, total int64
		said := answer.Header.Get("Content-Range")
		if _, err := fmt.Sscanf(said, "bytes %d-%d/%d", &first, &last, &total); err != nil || first != d.at || last < first || total <= last {
			return &unusable{fmt.Sprintf("the server answers with the range %.60q", said)}
		}
		d.limit(total)
	case http.StatusRequestedRangeNotSatisfiable: // it begins at the end, or behind it
		if d.begun {
			return fmt.Errorf("it was replaced while it was read: %w", storage.ErrChanged)
		}
		d.end = d.at
	default:
		return &status{answer.StatusCode}
	}
	d.validator, d.begun, d.body = same, true, body
	if skip > 0 {
		n, err := io.CopyN(io.Discard, body, skip)
		if err == io.EOF && n == answer.ContentLength || err == io.EOF && answer.ContentLength < 0 {
			d.end, err = d.at, nil // it ends before
		}
		return err
	}
	return nil
}

// limit says how long the whole object is.
func (d *download) limit(total int64) {
	if d.end < 0 || d.end > total {
		d.end = max(total, d.at)
	}
}

// validator is what tells an object from what may replace it (RFC 9110, 13.1.5): a weak ETag
// says too little.
func validator(h http.Header) string {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	return h.Get("Last-Modified")
}

// Read implements io.Reader.
func (d *download) Read(b []byte) (int, error) {
	if d.closed {
		return 0, fmt.Errorf("%s: read after Close", d.store.name(d.key))
	}
	for d.err == nil {
		switch {
		case d.ctx.Err() != nil:
			d.err = fmt.Errorf("%s: %w", d.store.name(d.key), d.ctx.Err())
			continue
		case d.end >= 0 && d.at >= d.end:
			d.err = io.EOF
			continue
		case d.body == nil:
			if err := d.open(); err != nil {
				d.again(err)
				continue
			}
		}
		p := b
		if d.end >= 0 {
			p = p[:min(int64(len(p)), d.end-d.at)]
		}
		n, err := d.body.Read(p)
		if n > 0 {
			d.at, d.tries = d.at+int64(n), 0
		}
		switch {
		case err == io.EOF && d.end < 0: // it did not say how long it is
			d.err = io.EOF
		case err == io.EOF && d.at < d.end:
			err = io.ErrUnexpectedEOF
			fallthrough
		case err != nil && err != io.EOF:
			d.shut()
			d.again(err)
		}
		if n > 0 || len(b) == 0 {
			return n, nil
		}
	}
	return 0, d.err
}

// again waits before the rest is asked for, unless that makes no sense.
func (d *download) again(err error) {
	var answer *status
	var not *unusable
	switch {
	case d.ctx.Err() != nil:
		d.err = fmt.Errorf("%s: %w", d.store.name(d.key), d.ctx.Err())
	case d.end < 0 || d.validator == "" || d.tries+1 >= d.store.o.Attempts,
		errors.As(err, &answer), errors.As(err, &not), errors.Is(err, storage.ErrChanged), errors.Is(err, errors.ErrUnsupported):
		d.err = d.store.failure(d.ctx, d.key, err)
	default:
		d.tries++
		if err := d.store.pause(d.ctx, d.tries-1, fmt.Sprint(hideURLs(err)), ""); err != nil {
			d.err = fmt.Errorf("%s: %w", d.store.name(d.key), err)
		}
	}
}

func (d *download) shut() {
	if d.body != nil {
		d.body.Close()
		d.body = nil
	}
}

// Close ends the download.
func (d *download) Close() error {
	d.closed = true
	d.shut()
	return nil
}
