// Package s3 is a bucket of Amazon S3, or of a server that speaks its protocol,
// as a storage.Store (Amazon S3 API Reference, 2006-03-01). An object's key is
// the store's prefix and its own; it is written straight to that key, large
// ones in parts that become visible together.
//
// Reads and lists of S3 see every write that has finished, which is what the
// repository format asks for.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/throttle"
)

// Store is a bucket, or what lies under a prefix in it. It is safe for
// concurrent use. Whoever opens it calls Close.
//
// An upload of several parts that is killed leaves the parts, which are no
// object and cost money: see Sweep, and a lifecycle rule of the bucket.
type Store struct {
	api    *s3.Client
	o      Options
	prefix string // of all keys, with its slash, or empty
	retry  *retryer

	transport  *http.Transport
	custom     bool       // not Amazon's own service
	conditions conditions // which ones the server honours
	maxParts   int        // of an upload
	small      sync.Pool  // *[]byte of readSize
	parts      sync.Pool  // *[]byte of defaultPart
}

var (
	_ storage.Store   = (*Store)(nil)
	_ storage.Creator = (*Store)(nil)
	_ storage.Swapper = (*Store)(nil)

	_ storage.LaterLister = (*Store)(nil)
	_ storage.Sweeper     = (*Store)(nil)
)

// connections bounds how many requests are on their way at once before they
// take a connection of their own each time.
const connections = 128

// Open finds credentials and region. It reads no object: whether the bucket is
// there shows at the first request.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{o: o, maxParts: maxParts, conditions: conditions{turn: make(chan struct{}, 1)}}
	if o.Prefix != "" {
		s.prefix = o.Prefix + "/"
	}
	s.small.New = func() any { b := make([]byte, readSize); return &b }
	s.parts.New = func() any { b := make([]byte, defaultPart); return &b }
	s.retry = newRetryer(o)
	loads := []func(*config.LoadOptions) error{
		config.WithRetryer(func() aws.Retryer { return credentialRetryer(o) }),
		config.WithAppID("dogestry"),
		config.WithLogger(logging.LoggerFunc(func(_ logging.Classification, format string, args ...any) {
			o.log().Debug(fmt.Sprintf(format, args...)) // it writes to stderr else
		})),
		config.WithHTTPClient(o.client()),
	}
	if o.Seal != nil {
		more, err := o.sealedLoads()
		if err != nil {
			return nil, err
		}
		loads = append(loads, more...)
	}
	if o.Region != "" {
		loads = append(loads, config.WithRegion(o.Region))
	}
	if o.Profile != "" {
		loads = append(loads, config.WithSharedConfigProfile(o.Profile))
	}
	if o.Anonymous {
		loads = append(loads, config.WithCredentialsProvider(aws.AnonymousCredentials{}))
	}
	c, err := config.LoadDefaultConfig(ctx, loads...)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", o.url(), ctx.Err())
		}
		return nil, fault.Wrap(fault.Other, err, "cannot use the AWS configuration for %s", o.url()).
			Advise("Look at AWS_PROFILE, AWS_CA_BUNDLE and ~/.aws/config.")
	}
	s.useTransport(&c)
	if err := s.connect(ctx, c); err != nil {
		return nil, err
	}
	return s, nil
}

// useTransport replaces the SDK's HTTP client, once that knows the user's own
// authorities, by one on the same transport that ends what hangs and has no
// time limit else: large objects take their time.
func (s *Store) useTransport(c *aws.Config) {
	s.transport = http.DefaultTransport.(*http.Transport).Clone()
	if b, ok := c.HTTPClient.(*awshttp.BuildableClient); ok {
		s.transport = b.GetTransport()
	}
	t := s.transport
	t.MaxIdleConns, t.MaxIdleConnsPerHost = connections, connections
	t.ReadBufferSize, t.WriteBufferSize = 64<<10, 64<<10
	t.DisableCompression = true // ranges are of what is stored
	// HTTP/1.1 alone: HTTP/2 would put pieces and parts that travel at once on one connection, which has the speed of one.
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.ForceAttemptHTTP2, t.TLSNextProto = false, nil
	if t.TLSClientConfig != nil {
		t.TLSClientConfig.NextProtos = nil // the SDK's has HTTP/2 in it already
	}
	shared := throttle.New(s.o.UploadLimit, s.o.DownloadLimit)
	t.WriteBufferSize = shared.Piece(t.WriteBufferSize)
	t.DialContext = shared.Dial(t.DialContext)
	limit := s.o.Stall
	if limit == 0 {
		limit = defaultStall
	}
	c.HTTPClient = &stalls{
		client:    &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		limit:     limit,
		piece:     t.WriteBufferSize,
		contacted: &s.retry.contacted,
	}
}

// Close closes idle connections. The store may be used again after it.
func (s *Store) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// connect makes the client, once region and credentials are known.
func (s *Store) connect(ctx context.Context, c aws.Config) error {
	if err := s.o.checkProcess(c); err != nil {
		return err
	}
	if !s.o.Anonymous {
		c.Credentials = &wallet{CredentialsProvider: c.Credentials}
		if err := s.checkCredentials(ctx, c); err != nil {
			return err
		}
	}
	s.api = s3.NewFromConfig(c, s.adapt)
	if s.api.Options().Region == "" {
		region, err := s.findRegion(ctx, c)
		if err != nil {
			return err
		}
		c.Region = region
		s.api = s3.NewFromConfig(c, s.adapt)
	}
	return nil
}

// adapt sets what S3-compatible servers need.
func (s *Store) adapt(o *s3.Options) {
	o.Retryer = s.retry
	if s.o.Endpoint != "" {
		o.BaseEndpoint = &s.o.Endpoint
	}
	if o.BaseEndpoint != nil {
		u, err := url.Parse(*o.BaseEndpoint)
		s.custom = err != nil || !amazon(u.Hostname())
	}
	if s.custom {
		// Many of these servers break on the checksums that AWS has added since,
		// have no host name for each bucket, and no other way to sign.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.UsePathStyle = true
		o.DisableS3ExpressSessionAuth = aws.Bool(true)
		o.APIOptions = append(o.APIOptions, leaveOutEncoding)
	}
	if s.o.PathStyle != nil {
		o.UsePathStyle = *s.o.PathStyle
	}
	o.DisableLogOutputChecksumValidationSkipped = true
	o.APIOptions = append(o.APIOptions, guard)
	if s.o.Seal != nil {
		o.APIOptions = append(o.APIOptions, s.admit)
	}
}

// guard asks storage.Allowed when a request is signed and about to be sent; also
// before each retry, which is signed anew. Reads have no guard to ask.
func guard(stack *middleware.Stack) error {
	return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("dogestry:Guard",
		func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			if changes(ctx) {
				if err := storage.Allowed(ctx); err != nil {
					return middleware.FinalizeOutput{}, middleware.Metadata{}, &forbidden{err}
				}
			}
			return next.HandleFinalize(ctx, in)
		}), "Signing", middleware.After)
}

// changes reports whether a request makes or removes an object.
func changes(ctx context.Context) bool {
	switch awsmiddleware.GetOperationName(ctx) {
	case "PutObject", "CompleteMultipartUpload", "DeleteObject", "DeleteObjects":
		return true
	}
	return false
}

// forbidden is the error of a guard: the request was not sent, and is not to be.
type forbidden struct{ cause error }

func (f *forbidden) Error() string        { return f.cause.Error() }
func (f *forbidden) Unwrap() error        { return f.cause }
func (f *forbidden) RetryableError() bool { return false }

// leaveOutEncoding takes away the Accept-Encoding that the SDK would sign: what
// stands before some servers, such as Google's, changes it. None is sent at all,
// which means the same.
func leaveOutEncoding(stack *middleware.Stack) error {
	return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("dogestry:LeaveOutEncoding",
		func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			if r, ok := in.Request.(*smithyhttp.Request); ok {
				r.Header.Del("Accept-Encoding")
			}
			return next.HandleFinalize(ctx, in)
		}), "Signing", middleware.Before)
}

func amazon(host string) bool {
	return strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn")
}

// checkCredentials asks for them before they are needed: the error of a request
// would tell of every place where there are none.
func (s *Store) checkCredentials(ctx context.Context, c aws.Config) error {
	_, err := c.Credentials.Retrieve(ctx)
	if err == nil {
		return nil
	}
	return s.failure(ctx, err, "get AWS credentials for", "")
}

// findRegion asks the bucket where it is: S3 says so in the answer to anybody's
// HEAD, also where it refuses it. Servers that say nothing take the default.
func (s *Store) findRegion(ctx context.Context, c aws.Config) (string, error) {
	const anywhere = "us-east-1"
	c.Region, c.Credentials = anywhere, aws.AnonymousCredentials{}
	api := s3.NewFromConfig(c, s.adapt)
	out, err := api.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.o.Bucket})
	if err == nil {
		return cmpOr(aws.ToString(out.BucketRegion), anywhere), nil
	}
	if region := regionIn(err); region != "" {
		return region, nil
	}
	var answered *awshttp.ResponseError
	if errors.As(err, &answered) && answered.HTTPStatusCode() != http.StatusNotFound {
		return anywhere, nil
	}
	if answered != nil {
		return "", s.noBucket()
	}
	return "", s.failure(ctx, err, "find the region of the bucket", "")
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// key returns an object's key in the bucket.
func (s *Store) key(key string) (*string, error) {
	if err := storage.ValidKey(key); err != nil {
		return nil, err
	}
	full := s.prefix + key
	if len(full) > storage.MaxKey {
		return nil, fmt.Errorf("%w %.40q…: longer than %d bytes with the prefix", storage.ErrInvalidKey, key, storage.MaxKey)
	}
	return &full, nil
}

// Region is where the store takes the bucket to be.
func (s *Store) Region() string { return s.api.Options().Region }
