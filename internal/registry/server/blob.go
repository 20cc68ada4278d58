package server

import (
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
	known := map[image.Digest]remote.Layer{}
	if layer, ok := s.found.get(id); ok {
		known[id] = layer
	}
	found, err := remote.LookBlob(ctx, from, id, known)
	if err != nil {
		return blob{}, err
	}
	if layer, ok := found.Layers[id]; ok {
		s.found.put(id, layer, 1)
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

// sendLayer sends all of a layer, as it is read together with others who want it. Its
// last byte comes only when the digest is proved; without it the answer is shorter than
// it said, and no client takes it for whole.
func (s *Server) sendLayer(c call, layer remote.Layer) error {
	if layer.Size < 0 && !c.r.ProtoAtLeast(1, 1) { // it would not see where the answer is cut off
		return &failure{status: http.StatusHTTPVersionNotSupported, code: codeUnsupported, message: "the size of this blob is not known: ask with HTTP/1.1"}
	}
	ctx := c.r.Context()
	release, err := s.room.sit(ctx, pieceSize)
	if err != nil {
		return err
	}
	defer release()
	m := s.enter(ctx, c.repository, layer)
	defer m.leave()
	setLength(c.w.Header(), layer.Size)
	pace := s.room.pace(leastTaken)
	for {
		b, err := m.next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.write(c, b, &pace); err != nil {
			return err
		}
	}
}

// errGone says that the client does not take any more.
var errGone = errors.New("the client is gone")

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
	h := c.w.Header()
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", p.offset, p.offset+p.length-1, b.size()))
	pace := s.room.pace(leastTaken)
	if b.document != nil {
		setLength(h, p.length)
		c.w.WriteHeader(http.StatusPartialContent)
		return s.write(c, b.document[p.offset:p.offset+p.length], &pace)
	}
	ctx := c.r.Context()
	release, err := s.room.sit(ctx, pieceSize)
	if err != nil {
		return err
	}
	defer release()
	known, err := s.prove(ctx, c.repository, b.layer)
	if err != nil {
		return err
	}
	first := int(p.offset / pieceSize)
	from, err := s.openKnown(ctx, c.repository, b.layer, known, first, p.offset+p.length)
	if err != nil {
		return err
	}
	defer from.from.Close()
	buffer := s.buffers.Get().(*[pieceSize]byte)
	defer s.buffers.Put(buffer)
	for begun := false; p.length > 0; {
		at := from.read
		n, err := from.fill(buffer[:])
		if err != nil && err != io.EOF {
			return err
		}
		if at+int64(n) <= p.offset { // before it
			continue
		}
		if !begun {
			begun = true
			setLength(h, p.length)
			c.w.WriteHeader(http.StatusPartialContent)
		}
		piece := buffer[p.offset-at : min(int64(n), p.offset-at+p.length)]
		if err := s.write(c, piece, &pace); err != nil {
			return err
		}
		p.offset, p.length = p.offset+int64(len(piece)), p.length-int64(len(piece))
	}
	return nil
}

// prove returns what a layer is recognised by. One that is not known is read once, by
// all together who wait for it.
func (s *Server) prove(ctx context.Context, repository string, layer remote.Layer) (*proof, error) {
	if known := s.known(layer); known != nil {
		return known, nil
	}
	m := s.enter(ctx, repository, layer)
	defer m.leave()
	for size := int64(0); ; {
		b, err := m.next(ctx)
		if size += int64(len(b)); err == io.EOF {
			return &proof{size, m.in.fingerprints()}, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// known returns what is remembered of a layer, nil where that is nothing.
func (s *Server) known(layer remote.Layer) *proof {
	if known, ok := s.prints.of.get(layer.Digest); ok && (layer.Size < 0 || layer.Size == known.size) {
		return known
	}
	return nil
}

// enter lets somebody read a layer with others.
func (s *Server) enter(ctx context.Context, repository string, layer remote.Layer) *member {
	return s.sharing.enter(ctx, layer.Digest, func(ctx context.Context, first int) (*pieceReader, error) {
		if known := s.known(layer); known != nil {
			return s.openKnown(ctx, repository, layer, known, first, known.size)
		}
		from, err := s.open(ctx, repository, layer)
		if err != nil {
			return nil, err
		}
		return &pieceReader{id: layer.Digest, from: from, prints: s.prints}, nil
	})
}

// openKnown opens a layer that was proved before, to be read up to a byte: where it is
// stored as its own bytes from a piece on, else from its beginning.
func (s *Server) openKnown(ctx context.Context, repository string, layer remote.Layer, known *proof, first int, end int64) (*pieceReader, error) {
	r := &pieceReader{id: layer.Digest, prints: s.prints, known: known, seen: known.pieces, damage: func(cause error) error {
		if s.unproved == nil {
			return fault.Wrap(fault.Damaged, cause, "layer %s is damaged", layer.Digest.Short())
		}
		return s.unproved.Damage(layer, cause)
	}}
	offset := int64(first) * pieceSize
	if s.ranges != nil && (first > 0 || end < known.size) {
		length := int64(-1) // also what is behind its end, where nothing may be
		if last := (end + pieceSize - 1) / pieceSize * pieceSize; last < known.size {
			length = last - offset
		}
		from, err := s.whenRoom(ctx, plainMemory+s.memoryOf(ctx, layer), func() (io.ReadCloser, error) { return s.ranges.OpenRange(ctx, layer, offset, length) })
		if !errors.Is(err, errors.ErrUnsupported) {
			r.from, r.next, r.read = from, first, offset
			return r, err
		}
	}
	ctx = remote.WithRoom(ctx, s.windows.take)
	from, err := s.whenRoom(ctx, s.decoding(ctx, layer), func() (io.ReadCloser, error) {
		if s.unproved != nil {
			from, err := s.unproved.OpenDecoded(ctx, layer)
			if !fault.Is(err, fault.Damaged) { // a source may know where else it is
				return from, err
			}
		}
		return remote.SourceOf(s.from, repository).Open(ctx, layer)
	})
	r.from = from
	return r, err
}

// open opens a layer that is to be proved, once there is room for it: memory does not
// grow with the number of layers.
func (s *Server) open(ctx context.Context, repository string, layer remote.Layer) (io.ReadCloser, error) {
	ctx = remote.WithRoom(ctx, s.windows.take)
	return s.whenRoom(ctx, s.decoding(ctx, layer), func() (io.ReadCloser, error) {
		return remote.SourceOf(s.from, repository).Open(ctx, layer)
	})
}

// decoding is what a layer takes that is read from its beginning.
func (s *Server) decoding(ctx context.Context, layer remote.Layer) int64 {
	if isPlain(layer) {
		return plainMemory + s.memoryOf(ctx, layer)
	}
	return decodedMemory + s.memoryOf(ctx, layer)
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
