package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/dogestry/dogestry/internal/storage"
)

// Stat implements storage.Store.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	full, err := s.key(key)
	if err != nil {
		return storage.Info{}, err
	}
	out, err := s.api.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.o.Bucket, Key: full})
	if err != nil {
		return storage.Info{}, s.failure(ctx, s.explain(ctx, err, full), "look at", key)
	}
	return storage.Info{
		Key:      key,
		Size:     aws.ToInt64(out.ContentLength),
		Modified: modified(out.LastModified),
		Version:  version(out.ETag),
	}, nil
}

// modified is the end of the second that the server names: it leaves out fractions.
func modified(t *time.Time) time.Time { return aws.ToTime(t).Add(time.Second - 1) }

// explain returns an error that says more than that of a HEAD: the answer to
// one has no body, and so no word about expired tokens or clocks.
func (s *Store) explain(ctx context.Context, err error, full *string) error {
	if _, status := code(err); missing(err) || status < 400 || status >= 500 {
		return err
	}
	out, more := s.api.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.o.Bucket, Key: full, Range: aws.String("bytes=0-0")})
	if more != nil && !rangeBeyond(more) {
		return more
	}
	if more == nil {
		out.Body.Close()
	}
	return err
}

func version(etag *string) string { return strings.Trim(aws.ToString(etag), `"`) }

// List implements storage.Store, a page of 1,000 keys at a time.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return s.ListAfter(ctx, prefix, "")
}

// ListAfter implements storage.LaterLister.
func (s *Store) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		in := &s3.ListObjectsV2Input{Bucket: &s.o.Bucket, Prefix: aws.String(s.prefix + prefix)}
		if after != "" {
			in.StartAfter = aws.String(s.prefix + after)
		}
		pages := s3.NewListObjectsV2Paginator(s.api, in)
		last := ""
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(storage.Info{}, s.failure(ctx, err, "list", prefix))
				return
			}
			for _, o := range page.Contents {
				key, ok := strings.CutPrefix(aws.ToString(o.Key), s.prefix)
				if !ok || storage.ValidKey(key) != nil {
					continue // others may keep theirs in the same bucket
				}
				if key <= last {
					yield(storage.Info{}, fmt.Errorf("%s: the server lists %s behind %s, which is not the order of S3", s.o.url(), key, last))
					return
				}
				last = key
				if key <= after {
					continue // of a server that does not know where to begin
				}
				if ctx.Err() != nil {
					yield(storage.Info{}, fmt.Errorf("%s: %w", s.o.url(), ctx.Err()))
					return
				}
				info := storage.Info{Key: key, Size: aws.ToInt64(o.Size), Modified: modified(o.LastModified), Version: version(o.ETag)}
				if !yield(info, nil) {
					return
				}
			}
		}
	}
}

// Delete implements storage.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	full, err := s.key(key)
	if err != nil {
		return err
	}
	_, err = s.api.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.o.Bucket, Key: full})
	if err = s.failure(ctx, err, "delete", key); errors.Is(err, storage.ErrNotFound) {
		return nil // some servers say so
	}
	return err
}

// Sweep implements storage.Sweeper: it gives up uploads of several parts that
// were begun longer than age ago, by the server's clock. It cannot tell a
// running one from one whose writer was killed; age has to be longer than an
// upload takes.
func (s *Store) Sweep(ctx context.Context, prefix string, age time.Duration) (removed int, err error) {
	uploads, err := s.unfinished(ctx, prefix)
	if err != nil {
		return 0, err
	}
	for _, u := range uploads {
		if age > 0 && u.age < age {
			continue
		}
		_, err := s.api.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.o.Bucket, Key: u.Key, UploadId: u.UploadId})
		if noUpload(err) || missing(err) {
			continue // it has just ended
		}
		if err != nil {
			return removed, s.failure(ctx, err, "give up an upload of", strings.TrimPrefix(*u.Key, s.prefix))
		}
		removed++
	}
	return removed, nil
}

// upload is one that nobody has completed.
type upload struct {
	types.MultipartUpload
	age time.Duration // by the server's clock
}

// unfinished returns the uploads under prefix. MinIO takes the prefix for a whole
// key, and finds nothing: there all of the bucket's are looked through, where
// that is allowed.
func (s *Store) unfinished(ctx context.Context, prefix string) ([]upload, error) {
	within := s.prefix + prefix
	found, err := s.uploads(ctx, within, within)
	if err == nil && len(found) == 0 && within != "" && s.custom {
		found, err = s.uploads(ctx, "", within)
		if _, status := code(err); status == http.StatusForbidden { // its own are all that somebody may see
			return nil, nil
		}
	}
	return found, s.failure(ctx, err, "list the unfinished uploads of", prefix)
}

// uploads asks for those whose keys begin with ask, and returns those of our
// objects that begin with within.
func (s *Store) uploads(ctx context.Context, ask, within string) (found []upload, err error) {
	in := &s3.ListMultipartUploadsInput{Bucket: &s.o.Bucket}
	if ask != "" {
		in.Prefix = &ask
	}
	pages := s3.NewListMultipartUploadsPaginator(s.api, in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		now, ok := awsmiddleware.GetServerTime(page.ResultMetadata)
		if !ok && len(page.Uploads) > 0 {
			return nil, errors.New("the server does not say what time it is")
		}
		for _, u := range page.Uploads {
			key, ours := strings.CutPrefix(aws.ToString(u.Key), s.prefix)
			if ours && strings.HasPrefix(*u.Key, within) && storage.ValidKey(key) == nil {
				found = append(found, upload{u, now.Sub(aws.ToTime(u.Initiated))})
			}
		}
	}
	return found, nil
}
