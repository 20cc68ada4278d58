package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// blob is something that the remote has under its own digest: a layer, or a document.
type blob struct {
	layer    remote.Layer
	document []byte // nil for a layer
}

func (b blob) size() int64 {
	if b.document != nil {
		return int64(len(b.document))
	}
	return b.layer.Size
}

// blob looks for a blob. One of which only a part is there is none.
func (s *Server) blob(ctx context.Context, repository string, id image.Digest) (blob, error) {
	from := remote.SourceOf(s.from, repository)
	found, err := remote.LookBlob(ctx, from, id)
	if err != nil {
		return blob{}, err
	}
	if layer, ok := found.Layers[id]; ok {
		return blob{layer: layer}, nil
	}
	if _, ok := found.Documents[id]; ok {
		doc, err := from.Document(ctx, id)
		if err == nil {
			return blob{document: doc}, nil
		}
		if !fault.Is(err, fault.Damaged) && !fault.Is(err, fault.NotFound) {
			return blob{}, err
		}
		s.log.Warn("a part of a blob is there", "digest", id, "error", errors.Join(err, found.Torn[id]))
	}
	return blob{}, noBlob(id)
}

func noBlob(id image.Digest) error {
	return &failure{
		status: http.StatusNotFound, code: codeBlobUnknown, message: "this blob is not in this registry",
		detail: map[string]string{"digest": id.String()},
	}
}

// getBlob answers with a blob, or a part of it.
func (s *Server) getBlob(c call) error {
	id, err := c.digest()
	if err != nil {
		return err
	}
	b, err := s.blob(c.r.Context(), c.repository, id)
	if err != nil {
		return err
	}
	if c.r.Method == http.MethodHead && s.to != nil && b.document == nil {
		if err := s.fits(c.r.Context(), id); err != nil {
			return err
		}
	}
	h := c.w.Header()
	setDigest(h, id)
	h.Set("Content-Type", "application/octet-stream")
	if b.size() >= 0 {
		h.Set("Accept-Ranges", "bytes")
	}
	if matches(c.r.Header.Get("If-None-Match"), id) {
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if c.r.Method == http.MethodHead {
		setLength(h, b.size())
		c.w.WriteHeader(http.StatusOK)
		return nil
	}
	part, ok, err := s.part(c, id, b.size())
	switch {
	case err != nil:
		return err
	case ok:
		return s.sendPart(c, b, part)
	case b.document != nil:
		writeBytes(c.w, c.r, "application/octet-stream", b.document)
		return nil
	}
	return s.sendLayer(c, b.layer)
}

// fits makes sure that a push would not want to write a layer again: a client that
// is told of it here does not send it.
func (s *Server) fits(ctx context.Context, id image.Digest) error {
	missing, _, err := s.to.Missing(ctx, remote.Closure{Layers: []image.Digest{id}})
	if err == nil && !missing.Empty() {
		err = noBlob(id)
	}
	return err
}

// setDigest names what is answered. The digest is also its ETag: what has it never changes.
func setDigest(h http.Header, id image.Digest) {
	h.Set("Docker-Content-Digest", id.String())
	h.Set("Etag", etag(id))
}

func etag(id image.Digest) string { return `"` + id.String() + `"` }

func setLength(h http.Header, size int64) {
	if size >= 0 {
		h.Set("Content-Length", strconv.FormatInt(size, 10))
	}
}

// matches reports whether a list of ETags has that of a digest (RFC 9110, section 13.1.2).
func matches(list string, id image.Digest) bool {
	for tag := range strings.SplitSeq(list, ",") {
		tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
		if tag == "*" || tag == etag(id) {
			return true
		}
	}
	return false
}

// sendLayer sends all of a layer. The source holds its last byte back until the
// digest is proved; without it the answer is shorter than it said, and no client
// takes it for whole.
func (s *Server) sendLayer(c call, layer remote.Layer) error {
	if layer.Size < 0 && !c.r.ProtoAtLeast(1, 1) { // it would not see where the answer is cut off
		return &failure{status: http.StatusHTTPVersionNotSupported, code: codeUnsupported, message: "the size of this blob is not known: ask with HTTP/1.1"}
	}
	from, err := s.open(c.r.Context(), c.repository, layer)
	if err != nil {
		return err
	}
	defer from.Close()
	setLength(c.w.Header(), layer.Size)
	return s.send(c, from)
}

// errGone says that the client does not take any more.
var errGone = errors.New("the client is gone")

// send copies to the client.
func (s *Server) send(c call, from io.Reader) error {
	buffer := s.buffers.Get().(*[copyBuffer]byte)
	defer s.buffers.Put(buffer)
	pace := s.room.pace(leastTaken)
	for {
		n, err := from.Read(buffer[:])
		if err := s.write(c, buffer[:n], &pace); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// write sends bytes to a client, and fails where it takes them too slowly while others wait.
func (s *Server) write(c call, b []byte, pace *pace) error {
	for len(b) > 0 {
		n := len(b)
		if s.room.waiting.Load() > 0 {
			n = min(n, crowdedWrite)
		}
		began := time.Now()
		if _, err := c.w.Write(b[:n]); err != nil {
			return fmt.Errorf("%w: %w", errGone, err)
		}
		if pace.tooSlow(n, time.Since(began)) {
			return errSlow
		}
		b = b[n:]
	}
	return nil
}

// sendPart sends a part of a blob, once all of it has been proved.
func (s *Server) sendPart(c call, b blob, p part) error {
	var from io.Reader
	if b.document != nil {
		from = bytes.NewReader(b.document[p.offset : p.offset+p.length])
	} else {
		if err := s.prove(c.r.Context(), c.repository, b.layer); err != nil {
			return err
		}
		opened, err := s.openPart(c.r.Context(), c.repository, b.layer, p)
		if err != nil {
			return err
		}
		defer opened.Close()
		from = opened
	}
	h := c.w.Header()
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", p.offset, p.offset+p.length-1, b.size()))
	setLength(h, p.length)
	c.w.WriteHeader(http.StatusPartialContent)
	counted := &image.Watched{R: io.LimitReader(from, p.length)}
	if err := s.send(c, counted); err != nil {
		return err
	}
	if counted.Count() < p.length {
		return fmt.Errorf("layer %s ends before byte %d: %w", b.layer.Digest, p.offset+p.length, io.ErrUnexpectedEOF)
	}
	return nil
}

// openPart opens a part of a layer: where it is stored as its own bytes only that,
// else all before it is decoded and passed over.
func (s *Server) openPart(ctx context.Context, repository string, layer remote.Layer, p part) (io.ReadCloser, error) {
	if s.ranges != nil {
		from, err := s.whenRoom(ctx, plainMemory+s.memoryOf(ctx, layer), func() (io.ReadCloser, error) { return s.ranges.OpenRange(ctx, layer, p.offset, p.length) })
		if !errors.Is(err, errors.ErrUnsupported) {
			return from, err
		}
	}
	from, err := s.open(ctx, repository, layer)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, from, p.offset); err != nil {
		return nil, errors.Join(err, from.Close())
	}
	return from, nil
}

// open opens a layer, once there is room for it: memory does not grow with the
// number of clients.
func (s *Server) open(ctx context.Context, repository string, layer remote.Layer) (io.ReadCloser, error) {
	memory := int64(decodedMemory)
	if isPlain(layer) {
		memory = plainMemory
	}
	return s.whenRoom(ctx, memory+s.memoryOf(ctx, layer), func() (io.ReadCloser, error) {
		return remote.SourceOf(s.from, repository).Open(ctx, layer)
	})
}

// isPlain reports whether a layer is stored as its own bytes, as far as its sizes and
// the name of its object tell: sizes alone are what somebody has written down.
func isPlain(layer remote.Layer) bool {
	encoded := strings.HasSuffix(layer.Object, ".lz4") || strings.HasSuffix(layer.Object, ".zst")
	return layer.Stored == layer.Size && layer.Packed.IsZero() && !encoded
}

// memoryOf returns what the store takes for a layer that is read: nothing where it
// comes from a cache on this machine.
func (s *Server) memoryOf(ctx context.Context, layer remote.Layer) int64 {
	if s.storeMemory == 0 || s.cached != nil && s.cached(ctx, layer) {
		return 0
	}
	return s.storeMemory
}

// whenRoom opens something that takes so many bytes, and gives them back when it is closed.
func (s *Server) whenRoom(ctx context.Context, memory int64, open func() (io.ReadCloser, error)) (io.ReadCloser, error) {
	release, err := s.room.take(ctx, memory)
	if err != nil {
		return nil, err
	}
	from, err := open()
	if err != nil {
		release()
		return nil, err
	}
	return &weighed{from, release}, nil
}

// weighed gives its room back at its end.
type weighed struct {
	io.ReadCloser
	release func()
}

func (w *weighed) Close() error {
	defer w.release()
	return w.ReadCloser.Close()
}

// prove reads all of a layer once, unless that object of it has been read before.
func (s *Server) prove(ctx context.Context, repository string, layer remote.Layer) error {
	version := "" // nobody knows whether it is the same
	if s.versions != nil {
		v, err := s.versions.ObjectVersion(ctx, layer)
		if err != nil {
			return err
		}
		version = layer.Object + " " + v
	}
	if s.isProved(layer, version) {
		return nil
	}
	done, err := s.proving.take(ctx, layer.Digest)
	if err != nil {
		return err
	}
	defer done()
	if s.isProved(layer, version) { // by the one whose turn it was
		return nil
	}
	from, err := s.open(ctx, repository, layer)
	if err != nil {
		return err
	}
	defer from.Close()
	if _, err := io.Copy(io.Discard, from); err != nil {
		return err
	}
	s.proved.put(layer.Digest, version, 1)
	return nil
}

func (s *Server) isProved(layer remote.Layer, version string) bool {
	known, ok := s.proved.get(layer.Digest)
	return ok && version != "" && known == version
}
