package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// postUpload begins an upload. With a digest the body is the whole blob; with
// mount it takes one that is there: blobs belong to the remote, not to a repository.
func (s *Server) postUpload(c call) error {
	query := c.r.URL.Query()
	if query.Has("mount") {
		id, err := parseDigest(query.Get("mount"))
		if err != nil {
			return err
		}
		there, err := s.mountable(c.r.Context(), id)
		if err != nil {
			return err
		}
		if there {
			return s.created(c, id)
		}
	}
	if query.Has("digest") {
		id, err := parseDigest(query.Get("digest"))
		if err != nil {
			return err
		}
		if err := s.take(c, id, c.r.ContentLength, c.r.Body); err != nil {
			return err
		}
		return s.created(c, id)
	}
	upload, err := s.to.CreateUpload(c.r.Context(), c.repository)
	if err != nil {
		return err
	}
	c.w.Header().Set("OCI-Chunk-Min-Length", strconv.Itoa(minChunk))
	return s.accepted(c, upload, 0)
}

// minChunk is what a client is asked for that sends chunks, in bytes (OCI distribution
// specification, "Pushing a blob in chunks"). Smaller ones are taken, but not so many.
const minChunk = 8 << 20

func tooManyPieces(err error) error {
	return &failure{
		status: http.StatusRequestEntityTooLarge, code: codeSizeInvalid, cause: err,
		message: "this upload has come in too many pieces: begin again, and send all of it at once, or larger chunks (OCI-Chunk-Min-Length)",
	}
}

// mountable reports whether a blob is there, whole as far as a look tells.
func (s *Server) mountable(ctx context.Context, id image.Digest) (bool, error) {
	b, err := s.blob(ctx, "", id)
	if err == nil && b.document == nil {
		err = s.fits(ctx, id)
	}
	var missing *failure
	if errors.As(err, &missing) && missing.code == codeBlobUnknown {
		return false, nil
	}
	return err == nil, err
}

// created says where a blob is.
func (s *Server) created(c call, id image.Digest) error {
	c.w.Header().Set("Location", "/v2/"+c.name+"/blobs/"+id.String())
	c.w.Header().Set("Docker-Content-Digest", id.String())
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

// accepted says where an upload goes on, and what is there of it.
func (s *Server) accepted(c call, upload string, size int64) error {
	s.setUpload(c, upload, size)
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

func (s *Server) setUpload(c call, upload string, size int64) {
	for name, values := range uploadHeader(c, upload, size) {
		c.w.Header()[name] = values
	}
}

func uploadHeader(c call, upload string, size int64) http.Header {
	h := http.Header{}
	h.Set("Location", "/v2/"+c.name+"/blobs/uploads/"+upload)
	h.Set("Docker-Upload-UUID", upload)
	h.Set("Range", fmt.Sprintf("0-%d", max(size-1, 0)))
	return h
}

// upload returns the size of the upload that a request names.
func (s *Server) upload(c call) (size int64, err error) {
	size, repository, err := s.to.UploadSize(c.r.Context(), c.arg)
	if err == nil && repository != c.repository {
		err = noUpload()
	}
	return size, uploadFailure(err)
}

func noUpload() error {
	return &failure{status: http.StatusNotFound, code: codeBlobUploadUnknown, message: "there is no such upload: it has ended, or is too old"}
}

func uploadFailure(err error) error {
	if fault.Is(err, fault.NotFound) {
		return noUpload()
	}
	return err
}

// getUpload answers with how much there is of an upload.
func (s *Server) getUpload(c call) error {
	size, err := s.upload(c)
	if err != nil {
		return err
	}
	s.setUpload(c, c.arg, size)
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// deleteUpload forgets an upload.
func (s *Server) deleteUpload(c call) error {
	if _, err := s.upload(c); err != nil {
		return err
	}
	if err := s.to.RemoveUpload(c.r.Context(), c.arg); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// patchUpload takes the bytes that come next: a chunk that says where it belongs,
// or a stream.
func (s *Server) patchUpload(c call) error {
	size, err := s.upload(c)
	if err == nil {
		size, err = s.appendTo(c, size, c.r.Body)
	}
	if err != nil {
		return err
	}
	return s.accepted(c, c.arg, size)
}

// appendTo appends a body to the upload that a request names, of which size bytes are there.
func (s *Server) appendTo(c call, size int64, body io.Reader) (int64, error) {
	chunk, err := chunkOf(c.r)
	if err != nil {
		return size, err
	}
	if chunk != nil && chunk.offset != size {
		return size, outOfOrder(c, size)
	}
	if most := s.maxBlob - size; most < 0 || c.r.ContentLength > most || chunk != nil && chunk.length > most {
		return size, image.ErrTooLarge
	}
	counted := &image.Watched{R: &limited{body, s.maxBlob - size}}
	from := io.Reader(counted)
	if chunk != nil {
		from = io.LimitReader(counted, chunk.length)
	}
	size, err = s.to.AppendUpload(c.r.Context(), c.arg, size, from)
	switch {
	case errors.Is(err, remote.ErrOffset):
		now, err := s.upload(c)
		if err != nil {
			return size, err
		}
		return size, outOfOrder(c, now)
	case errors.Is(err, remote.ErrPieces):
		return size, tooManyPieces(err)
	case counted.Err() != nil:
		return size, bodyFailure(counted.Err())
	case err != nil:
		return size, uploadFailure(err)
	case chunk != nil && counted.Count() != chunk.length:
		return size, wrongLength()
	}
	return size, nil
}

// chunkOf reads the header Content-Range of a chunk, "first-last" (OCI distribution
// specification, "Pushing a blob in chunks"); nil where there is none.
func chunkOf(r *http.Request) (*part, error) {
	header := r.Header.Get("Content-Range")
	if header == "" {
		return nil, nil
	}
	spec, _, _ := strings.Cut(strings.TrimPrefix(header, "bytes "), "/")
	first, last, _ := strings.Cut(spec, "-")
	start, isNumber := number(first)
	end, alsoNumber := number(last)
	if !isNumber || !alsoNumber || end < start {
		return nil, &failure{status: http.StatusBadRequest, code: codeBlobUploadInvalid, message: "want Content-Range as first-last"}
	}
	chunk := &part{start, end - start + 1}
	if r.ContentLength >= 0 && r.ContentLength != chunk.length {
		return nil, wrongLength()
	}
	return chunk, nil
}

func wrongLength() error {
	return &failure{status: http.StatusBadRequest, code: codeSizeInvalid, message: "the body is not as long as Content-Range says"}
}

func outOfOrder(c call, size int64) error {
	return &failure{
		status: http.StatusRequestedRangeNotSatisfiable, code: codeBlobUploadInvalid,
		message: "the chunk does not begin where the one before ends",
		header:  uploadHeader(c, c.arg, size),
	}
}

// bodyFailure is about what a client sends, or does not send to its end.
func bodyFailure(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) || errors.Is(err, image.ErrTooLarge) {
		return err
	}
	return &failure{status: http.StatusBadRequest, code: codeBlobUploadInvalid, message: "the body of the request broke off", cause: err}
}

// putUpload ends an upload: with its last bytes, or without more. One that is all
// in this request goes straight to where it stays.
func (s *Server) putUpload(c call) error {
	id, err := parseDigest(c.r.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	size, err := s.upload(c)
	if err != nil {
		return err
	}
	body := bufio.NewReader(c.r.Body)
	_, peekErr := body.Peek(1)
	switch {
	case peekErr == io.EOF: // no body, or an empty one
		err = s.finish(c, image.Descriptor{Digest: id, Size: size}, nil)
	case peekErr != nil:
		return bodyFailure(peekErr)
	case size == 0:
		err = s.takeAll(c, id, body)
	default:
		err = s.finishWith(c, id, size, body)
	}
	var mismatch *image.MismatchError
	if err != nil && !errors.As(err, &mismatch) {
		return err
	}
	// What is not what its digest says is of no use to anybody.
	if removed := s.to.RemoveUpload(c.r.Context(), c.arg); err == nil && removed != nil {
		s.log.Warn("an upload that has ended stays behind", "upload", c.arg, "error", removed)
	}
	if err != nil {
		return err
	}
	return s.created(c, id)
}

// takeAll is take of a body that has all of a blob, and may say so.
func (s *Server) takeAll(c call, id image.Digest, body io.Reader) error {
	chunk, err := chunkOf(c.r)
	switch {
	case err != nil:
		return err
	case chunk != nil && chunk.offset != 0:
		return outOfOrder(c, 0)
	case chunk != nil:
		return s.take(c, id, chunk.length, body)
	}
	return s.take(c, id, c.r.ContentLength, body)
}

// finishWith is finish of an upload, of which size bytes are there, and a body with the
// last ones. It does not append these: a client that has to send them once more, since
// the answer was to come again, finds the upload as it was.
func (s *Server) finishWith(c call, id image.Digest, size int64, body io.Reader) error {
	chunk, err := chunkOf(c.r)
	if err != nil {
		return err
	}
	length := c.r.ContentLength
	if chunk != nil {
		if chunk.offset != size {
			return outOfOrder(c, size)
		}
		length = chunk.length
	}
	blob := image.Descriptor{Digest: id, Size: -1}
	if length >= 0 {
		blob.Size = size + length
	}
	if size > s.maxBlob || length > s.maxBlob-size {
		return image.ErrTooLarge
	}
	counted := &image.Watched{R: &paced{&limited{body, s.maxBlob - size}, s.writing.pace(leastGiven)}}
	err = s.finish(c, blob, counted)
	if err != nil && counted.Err() != nil {
		return bodyFailure(counted.Err())
	}
	return err
}

// finish makes a blob of an upload, and of what is to follow it, which may be nil.
func (s *Server) finish(c call, blob image.Descriptor, more io.Reader) error {
	from, err := s.to.OpenUpload(c.r.Context(), c.arg)
	if err != nil {
		return uploadFailure(err)
	}
	defer from.Close()
	all := io.Reader(from)
	if more != nil {
		all = io.MultiReader(from, more)
	}
	return s.store(c.r.Context(), blob, all)
}

// take makes a blob of a body; size is -1 where it is not known.
func (s *Server) take(c call, id image.Digest, size int64, body io.Reader) error {
	if size > s.maxBlob {
		return image.ErrTooLarge
	}
	counted := &image.Watched{R: &paced{&limited{body, s.maxBlob}, s.writing.pace(leastGiven)}}
	err := s.store(c.r.Context(), image.Descriptor{Digest: id, Size: size}, counted)
	if err != nil && counted.Err() != nil {
		return bodyFailure(counted.Err())
	}
	return err
}

// limited is a body that fails with image.ErrTooLarge where it has more than left bytes.
type limited struct {
	r    io.Reader
	left int64 // negative behind the end
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left < 0 {
		return 0, image.ErrTooLarge
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left+1)])
	if l.left -= int64(n); l.left < 0 {
		return n - 1, image.ErrTooLarge
	}
	return n, err
}

// store makes bytes a blob. What it is, a layer or a config, nobody has said yet.
// What is there already is compared, and not written again.
func (s *Server) store(ctx context.Context, blob image.Descriptor, from io.Reader) error {
	release, err := s.writing.take(ctx, encodedMemory+s.storeMemory+s.writeMemory)
	if err != nil {
		return err
	}
	defer release()
	to, end := remote.Begin(s.to, nil)
	defer end(ctx)
	missing, _, err := to.Missing(ctx, remote.Closure{Layers: []image.Digest{blob.Digest}})
	if err != nil {
		return err
	}
	if missing.Empty() {
		_, err := io.Copy(io.Discard, image.Verify(from, blob.Digest, blob.Size))
		return err
	}
	blob.MediaType = image.UnknownMediaType
	_, err = to.PutLayer(ctx, blob, from)
	return err
}
