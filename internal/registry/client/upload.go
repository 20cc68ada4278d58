package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

// upload is a blob on its way into a repository (distribution-spec, "Pushing a blob
// in chunks"). It holds one chunk in memory: what broke off is sent again from there.
type upload struct {
	repository *Repository
	ctx        context.Context
	at         string // where the next request goes
	chunk      []byte
	sent       int64 // bytes that the registry has
	hash       hash.Hash

	busy sync.WaitGroup // requests that still read chunk, of which some were answered before their end
}

// abandonTime is how long a registry gets to forget an upload, also after an interrupt.
const abandonTime = 5 * time.Second

// newUpload returns an upload of at most so many bytes, -1 where that is not known.
// It holds no more than it needs.
func (p *Repository) newUpload(ctx context.Context, most int64) *upload {
	room := int64(p.registry.o.Chunk)
	if most >= 0 && most < room {
		room = most + 1 // in which its end is seen
	}
	return &upload{repository: p, ctx: ctx, chunk: make([]byte, room), hash: sha256.New()}
}

// put sends all of r, which has at most so many bytes, -1 where that is not known, as
// one blob and publishes it once r has ended well. It returns its digest and size.
func (p *Repository) put(ctx context.Context, r io.Reader, most int64) (image.Digest, int64, error) {
	u := p.newUpload(ctx, most)
	n, err := u.fill(r)
	if err != nil && err != io.EOF {
		return image.Digest{}, 0, err // nothing has begun
	}
	if failed := u.begin(err == nil); failed != nil {
		return image.Digest{}, 0, failed
	}
	if err == nil && n < len(u.chunk) { // the registry wants larger chunks
		n, err = u.more(r, n)
	}
	whole := err == io.EOF // in one chunk
	if err == nil && p.registry.o.Whole {
		if err = u.stream(r, u.chunk[:n]); err == nil {
			err = io.EOF
		}
	}
	for err == nil {
		if failed := u.send(u.chunk[:n]); failed != nil {
			return image.Digest{}, 0, u.abandon(failed)
		}
		if n, err = u.fill(r); err == io.EOF && n > 0 {
			if failed := u.send(u.chunk[:n]); failed != nil {
				return image.Digest{}, 0, u.abandon(failed)
			}
		}
	}
	if err != io.EOF {
		return image.Digest{}, 0, u.abandon(err)
	}
	var last []byte
	if whole {
		last = u.chunk[:n]
		u.sent += int64(n)
	}
	id := image.Digest(u.hash.Sum(nil))
	if err := u.commit(id, last); err != nil {
		return image.Digest{}, 0, u.abandon(err)
	}
	p.registry.settle(p, id)
	p.registry.place(p, id)
	return id, u.sent, nil
}

// fill reads the next chunk. Its error is io.EOF with the last one.
func (u *upload) fill(r io.Reader) (int, error) { return u.more(r, 0) }

// more fills what is left of the chunk.
func (u *upload) more(r io.Reader, n int) (int, error) {
	u.busy.Wait()
	for empty := 0; n < len(u.chunk); {
		k, err := r.Read(u.chunk[n:])
		u.hash.Write(u.chunk[n : n+k])
		n += k
		if err != nil {
			return n, err
		}
		if err := u.ctx.Err(); err != nil {
			return n, err
		}
		if empty++; k > 0 {
			empty = 0
		} else if empty == 100 {
			return n, io.ErrNoProgress
		}
	}
	return n, nil
}

// begin asks where to send the blob, and of how large chunks where it has more than one.
func (u *upload) begin(chunks bool) error {
	resp, err := u.repository.do(u.ctx, request{method: http.MethodPost, path: "/blobs/uploads/"})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted {
		return answered(resp)
	}
	drain(resp)
	if u.at = location(resp); u.at == "" {
		return errors.New("it does not say where to send a blob")
	}
	if least, err := strconv.Atoi(resp.Header.Get("OCI-Chunk-Min-Length")); chunks && err == nil && least > len(u.chunk) {
		if least > mostChunk {
			u.repository.breakOff(u.ctx, u.at)
			return fmt.Errorf("it wants chunks of %d bytes or more, and %d are the most that are held", least, mostChunk)
		}
		u.chunk = append(u.chunk, make([]byte, least-len(u.chunk))...)
	}
	return nil
}

// location is where an answer says to go on; empty where it does not.
func location(resp *http.Response) string {
	to, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" || resp.Request.URL.Scheme == "https" && to.Scheme != "https" {
		return ""
	}
	return to.String()
}

// send sends a chunk. Where that breaks off it asks how much has come, and sends the
// rest.
func (u *upload) send(b []byte) error {
	end := u.sent + int64(len(b))
	var last error
	for attempt := 0; u.sent < end; attempt++ {
		if attempt > 0 {
			if attempt == attempts {
				return last
			}
			pause, ok := pauseOf(last, attempt-1)
			if !ok {
				return last
			}
			u.repository.registry.o.tell(nil, last, pause)
			if err := u.repository.registry.o.Wait(u.ctx, pause); err != nil {
				return err
			}
			if err := u.resume(end-int64(len(b)), end); err != nil {
				if !passes(err) {
					return last
				}
				last = err
				continue
			}
			if u.sent == end {
				return nil
			}
		}
		rest := b[int64(len(b))-(end-u.sent):]
		resp, err := u.repository.do(u.ctx, request{
			method: http.MethodPatch, url: u.at, body: rest, busy: &u.busy, once: true,
			header: http.Header{
				"Content-Type":  {"application/octet-stream"},
				"Content-Range": {fmt.Sprintf("%d-%d", u.sent, end-1)},
			},
		})
		if err == nil && (resp.StatusCode == http.StatusAccepted || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusCreated) {
			drain(resp)
			if at := location(resp); at != "" {
				u.at = at
			}
			u.sent = end
			return nil
		}
		if err == nil {
			err = delayed(resp)
		}
		if u.ctx.Err() != nil {
			return u.ctx.Err()
		}
		if last = err; !passes(err) && !isStatus(err, http.StatusRequestedRangeNotSatisfiable) {
			return err
		}
	}
	return nil
}

// stream sends all of the blob in one request, as docker does: some registries take
// no chunks. Nothing of it can be sent again.
func (u *upload) stream(r io.Reader, begin []byte) error {
	body := &streamed{u: u, begin: begin, r: r, closed: make(chan struct{})}
	resp, err := u.repository.do(u.ctx, request{
		method: http.MethodPatch, url: u.at, stream: body, once: true, header: http.Header{"Content-Type": {"application/octet-stream"}},
	})
	<-body.closed // r is the caller's again
	switch {
	case body.err != nil:
		if err == nil {
			drain(resp)
		}
		return body.err
	case err != nil:
		return err
	case resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusCreated:
		return answered(resp)
	}
	drain(resp)
	if at := location(resp); at != "" {
		u.at = at
	}
	return nil
}

// streamed is the body of one request for all of a blob.
type streamed struct {
	u      *upload
	begin  []byte // was read and hashed
	r      io.Reader
	err    error // of r; to be read when closed is closed
	once   sync.Once
	closed chan struct{}
}

func (s *streamed) Read(b []byte) (int, error) {
	if len(s.begin) > 0 {
		n := copy(b, s.begin)
		s.begin = s.begin[n:]
		s.u.sent += int64(n)
		return n, nil
	}
	n, err := s.r.Read(b)
	s.u.hash.Write(b[:n])
	s.u.sent += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Close is called by who sends the request, when it reads no more.
func (s *streamed) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// delayedError is an answer that says when to try again.
type delayedError struct {
	error
	resp *http.Response // its body is closed
}

func (d delayedError) Unwrap() error { return d.error }

func delayed(resp *http.Response) error { return delayedError{answered(resp), resp} }

func pauseOf(err error, attempt int) (time.Duration, bool) {
	var d delayedError
	if errors.As(err, &d) {
		return pauseFor(d.resp, attempt)
	}
	return pauseFor(nil, attempt)
}

// passes reports whether what a request failed with may pass.
func passes(err error) bool {
	if a := answerOf(err); a != nil {
		return passing(&http.Response{StatusCode: a.status}, nil)
	}
	return passing(nil, err)
}

// resume asks how much of the blob has come: some of the bytes from start to end.
func (u *upload) resume(start, end int64) error {
	resp, err := u.repository.do(u.ctx, request{method: http.MethodGet, url: u.at})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusNoContent {
		return answered(resp)
	}
	drain(resp)
	if at := location(resp); at != "" {
		u.at = at
	}
	_, to, _ := strings.Cut(resp.Header.Get("Range"), "-")
	last, err := strconv.ParseInt(to, 10, 64)
	have := last + 1
	if start == 0 && last == 0 { // some say so of nothing at all
		have = 0
	}
	if err != nil || have < start || have > end {
		return fmt.Errorf("an upload has %d bytes there, and has to have %d to %d", have, start, end)
	}
	u.sent = have
	return nil
}

// commit publishes the blob, with its last bytes, under its digest.
func (u *upload) commit(id image.Digest, last []byte) error {
	at, err := url.Parse(u.at)
	if err != nil {
		return errors.New("it does not say where to end an upload")
	}
	query := at.Query()
	query.Set("digest", id.String())
	at.RawQuery = query.Encode()
	q := request{method: http.MethodPut, url: at.String(), body: last, header: http.Header{"Content-Type": {"application/octet-stream"}}}
	_, err = u.repository.ask(u.ctx, q, http.StatusCreated, http.StatusNoContent, http.StatusAccepted)
	if isStatus(err, http.StatusNotFound) { // an answer may have been lost
		if _, gone := u.repository.headBlob(u.ctx, id); gone == nil {
			return nil
		}
	}
	return err
}

// abandon lets the registry forget the upload, and returns why.
func (u *upload) abandon(why error) error {
	u.repository.breakOff(u.ctx, u.at)
	return why
}

// breakOff ends an upload, also after an interrupt. Registries forget them in time, too.
func (p *Repository) breakOff(ctx context.Context, at string) {
	if at == "" {
		return
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
	defer cancel()
	resp, err := p.do(late, request{method: http.MethodDelete, url: at, once: true})
	if err == nil {
		drain(resp)
	}
}
