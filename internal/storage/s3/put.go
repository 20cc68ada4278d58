package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/storage"
)

const (
	smallBody = 64 << 10 // most objects are smaller

	aborts     = 4                     // of one upload
	abortPause = 50 * time.Millisecond // before the second, and longer each time

	conflictAttempts = 6
	conflictPause    = 20 * time.Millisecond // before the second, and longer each time

	partsAtOnce  = 4 // in memory, of one object, of defaultPart; fewer where they are larger
	cleanupTime  = 10 * time.Second
	nonceKey     = "dogestry-write" // metadata of an object: which write made it
	anythingElse = "*"              // If-None-Match: no object at all
)

// condition is what must be true of a key when it is written. The zero value is none.
type condition struct {
	absent bool    // nothing is there
	etag   *string // the object of this ETag is there
}

func (c condition) none() bool { return !c.absent && c.etag == nil }

// broken is the error where it was not true.
func (c condition) broken() error {
	if c.absent {
		return storage.ErrExists
	}
	return storage.ErrChanged
}

func (c condition) ifNoneMatch() *string {
	if c.absent {
		return aws.String(anythingElse)
	}
	return nil
}

// Put implements storage.Store. What fits into one part is one request, and is
// held in memory, so that it can be repeated. A larger body goes in equal parts
// that become the object together, at the end; at most 32 MiB are held, or two
// parts where those are larger.
func (s *Store) Put(ctx context.Context, key string, body io.Reader) error {
	return s.write(ctx, key, body, condition{})
}

func (s *Store) write(ctx context.Context, key string, body io.Reader, c condition) error {
	full, err := s.key(key)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return notWritten(s.name(key), err)
	}
	w := &write{store: s, key: key, full: full, condition: c, nonce: fmt.Sprintf("%016x", rand.Uint64())}
	w.part = s.partSize(body)
	buffer := make([]byte, smallBody)
	n, err := storage.ReadFull(ctx, body, buffer)
	if err == nil {
		large := s.buffer(w.part)
		defer s.free(large)
		copy(*large, buffer)
		buffer = *large
		var more int
		more, err = storage.ReadFull(ctx, body, buffer[n:])
		n += more
	}
	switch {
	case err == io.EOF:
		return w.once(ctx, buffer[:n])
	case err != nil:
		return notWritten(s.name(key), err)
	}
	return w.inParts(ctx, buffer, body)
}

// notWritten is the error where the body or the context failed: the errors of
// storage are about the store, not about them.
func notWritten(name string, err error) error { return fmt.Errorf("%s not written: %w", name, err) }

// partSize chooses equal parts (some servers want that) so that 10,000 of them are enough.
func (s *Store) partSize(body io.Reader) int64 {
	size := s.o.PartSize
	if size == 0 {
		size = defaultPart
	}
	if sized, ok := body.(storage.Sized); ok {
		for size < maxPart && size*maxParts < sized.AtMost() {
			size *= 2
		}
	}
	return min(size, maxPart)
}

func (s *Store) buffer(size int64) *[]byte {
	if size == defaultPart {
		return s.parts.Get().(*[]byte)
	}
	b := make([]byte, size)
	return &b
}

func (s *Store) free(b *[]byte) {
	if len(*b) == defaultPart {
		s.parts.Put(b)
	}
}

// write is one object on its way.
type write struct {
	store     *Store
	key       string
	full      *string
	condition condition
	nonce     string
	part      int64 // bytes
}

// metadata marks the object where it may have to be told from another's.
func (w *write) metadata() map[string]string { return map[string]string{nonceKey: w.nonce} }

// once writes a body that is in memory.
func (w *write) once(ctx context.Context, body []byte) error {
	s := w.store
	in := &s3.PutObjectInput{
		Bucket: &s.o.Bucket, Key: w.full, Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))),
		IfNoneMatch: w.condition.ifNoneMatch(), IfMatch: w.condition.etag,
		ServerSideEncryption: s.o.Encryption, StorageClass: s.o.StorageClass, ACL: s.o.ACL,
	}
	if s.o.KMSKey != "" {
		in.SSEKMSKeyId = &s.o.KMSKey
	}
	if !w.condition.none() {
		in.Metadata = w.metadata()
	}
	for attempt := 1; ; attempt++ {
		_, err := s.api.PutObject(ctx, in)
		if err == nil {
			return nil
		}
		again := false
		switch {
		case raced(err): // two conditional writes at once: neither is lost yet
			again = s.retry.wait(ctx, attempt, &racing{err}) == nil
		case inTheWay(err) && attempt < conflictAttempts: // or a directory that the server is just removing
			again = pause(ctx, time.Duration(attempt)*conflictPause) == nil
		}
		if again {
			in.Body = bytes.NewReader(body)
			continue
		}
		return w.settle(ctx, err)
	}
}

// racing lets the retryer try a conflict again.
type racing struct{ error }

func (racing) RetryableError() bool { return true }

// settle finds out what became of a write whose answer was no success: an
// earlier attempt of it may have been one, with its answer lost.
func (w *write) settle(ctx context.Context, err error) error {
	if lost(err) && w.isThere(ctx) {
		return nil
	}
	if !w.condition.none() && (lost(err) || w.condition.etag != nil && missing(err)) {
		return fmt.Errorf("%s: %w", w.store.name(w.key), w.condition.broken())
	}
	return w.store.failure(ctx, err, "write", w.key)
}

// isThere reports whether the object is the one that this write makes.
func (w *write) isThere(ctx context.Context) bool {
	out, err := w.store.api.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &w.store.o.Bucket, Key: w.full})
	return err == nil && out.Metadata[nonceKey] == w.nonce
}

// inParts writes first, which is one part, and what follows in body.
func (w *write) inParts(ctx context.Context, first []byte, body io.Reader) (err error) {
	s := w.store
	in := &s3.CreateMultipartUploadInput{
		Bucket: &s.o.Bucket, Key: w.full, Metadata: w.metadata(),
		ServerSideEncryption: s.o.Encryption, StorageClass: s.o.StorageClass, ACL: s.o.ACL,
	}
	if s.o.KMSKey != "" {
		in.SSEKMSKeyId = &s.o.KMSKey
	}
	upload, err := s.api.CreateMultipartUpload(ctx, in)
	if err != nil {
		return s.failure(ctx, err, "write", w.key)
	}
	published := false
	defer func() {
		if published {
			return
		}
		if left := w.abort(ctx, upload.UploadId); left != nil {
			s.o.log().Warn("an unfinished upload stays in the bucket", "key", w.key, "error", left)
			s.retry.notify(fmt.Sprintf("an unfinished upload of %s stays in the bucket (%s): see docs/s3.md", s.name(w.key), reason(left)))
		}
	}()
	parts, err := w.sendParts(ctx, upload.UploadId, first, body)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return notWritten(s.name(w.key), err)
	}
	_, err = s.api.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &s.o.Bucket, Key: w.full, UploadId: upload.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		IfNoneMatch:     w.condition.ifNoneMatch(), IfMatch: w.condition.etag,
	})
	if err != nil && ctx.Err() == nil && w.isThere(ctx) { // an earlier attempt was the last one
		err = nil
	}
	if err != nil {
		err = w.settle(ctx, err)
	}
	published = err == nil
	return err
}

// abort gives the upload up, also after ctx has ended. A part that a server was
// still writing when its request was cut off can outlive that, so it is asked
// again until the server knows the upload no more, a few times at most (S3 User
// Guide, "Aborting a multipart upload").
func (w *write) abort(ctx context.Context, id *string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	for attempt := 1; ; attempt++ {
		_, err := w.store.api.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &w.store.o.Bucket, Key: w.full, UploadId: id})
		switch {
		case noUpload(err):
			return nil
		case err != nil || attempt == aborts:
			return err
		}
		if err := pause(ctx, time.Duration(attempt)*abortPause); err != nil {
			return err
		}
	}
}

// sendParts uploads a few parts at once, while it reads the next one. It ends
// as soon as one has failed.
func (w *write) sendParts(ctx context.Context, upload *string, first []byte, body io.Reader) ([]types.CompletedPart, error) {
	s := w.store
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(stop)
	slots := make(chan struct{}, max(2, partsAtOnce*defaultPart/w.part))
	var parts []*types.CompletedPart
	send := func(data []byte, done func()) {
		part := &types.CompletedPart{PartNumber: aws.Int32(int32(len(parts)) + 1)}
		parts = append(parts, part)
		g.Go(func() error {
			defer func() { done(); <-slots }()
			return w.sendPart(gctx, upload, part, data)
		})
	}
	slots <- struct{}{}
	send(first, func() {})
	var bodyErr error
	for bodyErr == nil {
		select {
		case slots <- struct{}{}:
		case <-gctx.Done():
			bodyErr = gctx.Err()
			continue
		}
		buffer := s.buffer(w.part)
		var n int
		n, bodyErr = storage.ReadFull(gctx, body, *buffer)
		switch {
		case bodyErr != nil && bodyErr != io.EOF:
		case n > 0 && len(parts) == s.maxParts:
			bodyErr = fmt.Errorf("more than %d parts of %d MiB: add ?part-size= to the bucket's URL", s.maxParts, w.part>>20)
		case n > 0:
			send((*buffer)[:n], func() { s.free(buffer) })
			continue
		}
		s.free(buffer)
		<-slots
	}
	if bodyErr != io.EOF {
		cancel()
	}
	err := g.Wait()
	switch {
	case ctx.Err() != nil:
		return nil, notWritten(s.name(w.key), storage.Ended(ctx, bodyErr))
	case bodyErr != io.EOF && !errors.Is(bodyErr, context.Canceled):
		return nil, notWritten(s.name(w.key), bodyErr)
	case err != nil:
		return nil, err
	case bodyErr != io.EOF: // the body's own, though nobody was cancelled here
		return nil, notWritten(s.name(w.key), bodyErr)
	}
	completed := make([]types.CompletedPart, len(parts))
	for i, p := range parts {
		completed[i] = *p
	}
	return completed, nil
}

// sendPart uploads one part and completes what is known of it.
func (w *write) sendPart(ctx context.Context, upload *string, part *types.CompletedPart, data []byte) error {
	s := w.store
	out, err := s.api.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &s.o.Bucket, Key: w.full, UploadId: upload, PartNumber: part.PartNumber,
		Body: bytes.NewReader(data), ContentLength: aws.Int64(int64(len(data))),
	})
	if err != nil {
		return s.failure(ctx, err, "write", w.key)
	}
	part.ETag = out.ETag
	part.ChecksumCRC32, part.ChecksumCRC32C, part.ChecksumCRC64NVME = out.ChecksumCRC32, out.ChecksumCRC32C, out.ChecksumCRC64NVME
	part.ChecksumSHA1, part.ChecksumSHA256 = out.ChecksumSHA1, out.ChecksumSHA256
	return nil
}
