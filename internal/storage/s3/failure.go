package s3

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
	"github.com/dogestry/dogestry/internal/storage"
)

// name is an object as a user would name it, for messages.
func (s *Store) name(key string) string { return s.o.url() + "/" + key }

func (o Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

// code returns the service's word for what went wrong, and the HTTP status; 0
// where nobody has answered.
func code(err error) (code string, status int) {
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) {
		status = answer.HTTPStatusCode()
	}
	return code, status
}

// missing reports whether there is no such object. (HEAD has no code; a key that
// is too long for the server has none.)
func missing(err error) bool {
	c, status := code(err)
	return err != nil && (c == "NoSuchKey" || c == "KeyTooLongError" || status == http.StatusNotFound && (c == "" || c == "NotFound"))
}

// noUpload reports whether an upload is gone, or the parts that were sent: on some
// servers a part that was being written when the upload was removed brings it
// back without the others.
func noUpload(err error) bool {
	c, _ := code(err)
	return c == "NoSuchUpload" || c == "InvalidPart"
}

// lost reports whether a condition was not met.
func lost(err error) bool {
	c, status := code(err)
	return c == "PreconditionFailed" || status == http.StatusPreconditionFailed
}

// raced reports whether another write of the key was on its way at the same time.
func raced(err error) bool {
	c, status := code(err)
	return c == "ConditionalRequestConflict" || c == "OperationAborted" && status == http.StatusConflict
}

// inTheWay reports whether a server that keeps objects in directories cannot
// have "a" beside "a/b".
func inTheWay(err error) bool {
	switch c, _ := code(err); c {
	case "ObjectParentIsFile", "ExistingObjectIsDirectory", "XMinioParentIsObject", "XMinioObjectExistsAsDirectory":
		return true
	}
	return false
}

func notImplemented(err error) bool {
	c, status := code(err)
	return c == "NotImplemented" || status == http.StatusNotImplemented
}

// rangeBeyond reports whether a range begins at the end of the object or behind it.
func rangeBeyond(err error) bool {
	c, status := code(err)
	return c == "InvalidRange" || status == http.StatusRequestedRangeNotSatisfiable
}

// regionIn returns the bucket's region if the answer tells it.
func regionIn(err error) string {
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil {
		return answer.Response.Header.Get("X-Amz-Bucket-Region")
	}
	return ""
}

// failure says in the user's words why an operation on key failed. The kinds of
// package storage stay recognisable; all else, which asking again would not
// mend, is a fault with its advice.
func (s *Store) failure(ctx context.Context, err error, what, key string) error {
	if err == nil {
		return nil
	}
	name := s.o.url()
	if key != "" {
		name = s.name(key)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", name, ctx.Err())
	}
	var unsigned *noCredentials
	if errors.As(err, &unsigned) {
		return s.o.unsigned(unsigned)
	}
	var not *forbidden
	if errors.As(err, &not) {
		return fmt.Errorf("%s: %w", name, not.cause)
	}
	what = "cannot " + what + " " + name
	if refusal := sealed.Refusal(err); refusal != nil {
		return fault.Wrap(fault.Refused, refusal, "%s", what)
	}
	c, status := code(err)
	switch {
	case c == "NoSuchBucket":
		return s.noBucket()
	case missing(err) && !strings.HasPrefix(what, "cannot write"):
		return fmt.Errorf("%s: %w", name, storage.ErrNotFound)
	case noUpload(err): // not ErrNotFound: nothing is missing but what was sent just now
		return fault.New(fault.Other, "%s: its upload was removed meanwhile, by a rule of the bucket or by a sweep", what).
			Advise("Run the same command again: what is stored stays. A rule that removes unfinished uploads should wait longer than a push takes.")
	case raced(err):
		return fault.New(fault.Other, "%s: something else was written there at the same time, and the server wants it begun again", what).
			Advise("Run the same command again: what is stored stays.")
	case inTheWay(err):
		return fmt.Errorf("%s: %w", name, storage.ErrConflict)
	case errors.Is(err, storage.ErrChanged):
		return fmt.Errorf("%s: %w", name, err)
	case lost(err) && strings.HasPrefix(what, "cannot read"):
		return fmt.Errorf("%s: %w", name, errReplaced)
	}
	return s.answer(what, name, c, status, err)
}

func (s *Store) noBucket() error {
	return fault.New(fault.NotFound, "there is no bucket %s", s.o.Bucket).
		Advise("Check its name, the region and the endpoint; dogestry does not make buckets.")
}

// answer tells apart what servers refuse.
func (s *Store) answer(what, name, c string, status int, err error) error {
	switch c {
	case "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage":
		return fault.Wrap(fault.Other, storage.ErrNoSpace, "%s: %s", what, said(err))
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired":
		return fault.Wrap(fault.Refused, storage.ErrPermission, "%s: the session has expired", what).
			Advise("Log in again (aws sso login, or what your AWS_PROFILE uses) and run the same command: what is stored stays.")
	case "InvalidAccessKeyId", "InvalidToken":
		return fault.Wrap(fault.Refused, storage.ErrPermission, "%s: the server does not know the access key", what).
			Advise("Check AWS_PROFILE and AWS_ACCESS_KEY_ID, and the endpoint: %s", s.where())
	case "SignatureDoesNotMatch":
		return fault.Wrap(fault.Refused, storage.ErrPermission, "%s: the secret key does not fit the access key", what).
			Advise("Check AWS_SECRET_ACCESS_KEY, or the profile in ~/.aws/credentials.")
	case "RequestTimeTooSkewed":
		return fault.Wrap(fault.Refused, storage.ErrPermission, "%s: this machine's clock differs too much from the server's", what).
			Advise("Set the clock (timedatectl, chrony), then run the same command.")
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "MovedPermanently", "BadRequest":
		if region := regionIn(err); region != "" && region != s.api.Options().Region || c != "BadRequest" {
			return s.otherRegion(what, regionIn(err))
		}
	}
	switch {
	case status == http.StatusMovedPermanently, status == http.StatusTemporaryRedirect:
		return s.otherRegion(what, regionIn(err))
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return s.denied(what, err)
	case notImplemented(err):
		return fmt.Errorf("%s: %w: %s", what, errors.ErrUnsupported, said(err))
	case status == http.StatusInsufficientStorage:
		return fault.Wrap(fault.Other, storage.ErrNoSpace, "%s: %s", what, said(err))
	case status == 0:
		return s.unreachable(what, err)
	}
	s.o.log().Debug("not understood", "error", err)
	return fault.New(fault.Other, "%s: %s", what, said(err))
}

func (s *Store) otherRegion(what, region string) error {
	f := fault.New(fault.Other, "%s: the bucket is in another region than %s", what, s.api.Options().Region)
	if region != "" && region != s.api.Options().Region {
		return f.Advise("It is in %s: add ?region=%s to its URL, or set AWS_REGION.", region, region)
	}
	return f.Advise("Add ?region=REGION to its URL, or leave AWS_REGION unset: then the bucket is asked. Check the endpoint: %s", s.where())
}

func (s *Store) denied(what string, err error) error {
	f := fault.Wrap(fault.Refused, storage.ErrPermission, "%s: %s", what, said(err))
	begins := func(with string) bool { return strings.HasPrefix(what, "cannot "+with) }
	switch {
	case s.o.Anonymous:
		return f.Advise("The bucket does not allow this to everybody: leave out anonymous=true, and set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
	case strings.Contains(said(err), "kms:"), strings.HasPrefix(said(err), "KMS"): // not err: request IDs are random letters
		return f.Advise("The key of KMS needs kms:GenerateDataKey and kms:Decrypt for whoever pushes, kms:Decrypt for whoever pulls.")
	case begins("read"), begins("look"):
		return f.Advise("The policy needs s3:GetObject, and s3:ListBucket: without that S3 answers so for objects that are not there, too. See docs/s3.md.")
	case begins("list the unfinished"):
		return f.Advise("The policy needs s3:ListBucketMultipartUploads on the bucket. See docs/s3.md.")
	case begins("list"):
		return f.Advise("The policy needs s3:ListBucket on the bucket. See docs/s3.md.")
	case begins("give up"):
		return f.Advise("The policy needs s3:AbortMultipartUpload. See docs/s3.md.")
	case begins("delete"):
		return f.Advise("The policy needs s3:DeleteObject; a push with --if-absent needs it under run/. See docs/s3.md.")
	default:
		return f.Advise("The policy needs s3:PutObject. See docs/s3.md.")
	}
}

// unreachable tells why nobody has answered.
func (s *Store) unreachable(what string, err error) error {
	var host *net.DNSError
	var op *net.OpError
	var quiet *stalled
	f := func(reason, advice string) error {
		return fault.New(fault.Other, "%s: %s", what, reason).Advise("%s", advice)
	}
	switch {
	case errors.As(err, &host) && host.IsNotFound:
		return f("there is no host "+host.Name, "Check the endpoint, the region and the name of the bucket: "+s.where())
	case errors.Is(err, http.ErrSchemeMismatch):
		return f("the server does not speak TLS", "Write http:// in front of the endpoint if that is what you want: "+s.where())
	case untrusted(err):
		return f("its certificate is not trusted ("+reason(err)+")", "For a private authority set AWS_CA_BUNDLE to a file with its certificate.")
	case errors.As(err, &quiet):
		return f(quiet.Error(), "The network or the server hangs. Run the same command again: what is stored stays.")
	case errors.As(err, &op) && op.Op == "dial":
		return f("nobody answers ("+reason(err)+")", "Check the endpoint and the network: "+s.where())
	}
	return f(reason(err), "Run the same command again: what is stored stays.")
}

// where says which server is meant.
func (s *Store) where() string {
	if e := s.api.Options().BaseEndpoint; e != nil {
		if u, err := url.Parse(*e); err == nil {
			return u.Redacted() // the environment may hold one with a password
		}
		return "what is configured is no URL"
	}
	return "Amazon S3 in " + s.api.Options().Region
}

// said is the service's own message, or what there is instead.
func said(err error) string {
	var api smithy.APIError
	_, status := code(err)
	switch {
	case errors.As(err, &api) && api.ErrorMessage() != "" && api.ErrorMessage() != api.ErrorCode():
		return api.ErrorCode() + ", " + api.ErrorMessage()
	case errors.As(err, &api) && api.ErrorCode() != "":
		return api.ErrorCode()
	case status != 0:
		return fmt.Sprintf("the server answered %d %s", status, http.StatusText(status))
	}
	return reason(err)
}

// reason is the innermost error's text: what lies around it in the SDK names
// requests and never what the user knows.
func reason(err error) string {
	if c, status := code(err); c != "" && status != 0 {
		return c
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
