package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"

	"github.com/dogestry/dogestry/internal/sealed"
)

// What may pass is tried again for about a minute.
const (
	defaultAttempts = 10
	defaultBackoff  = 20 * time.Second
)

// retryer is the SDK's standard one, which tells of what it does, and fails at
// once where the first contact shows that nobody is there.
type retryer struct {
	aws.RetryerV2
	notify    func(string)
	tell      func(err error, d time.Duration) // before each retry
	contacted atomic.Bool                      // the server has answered
}

func newRetryer(o Options) *retryer {
	r := &retryer{notify: o.Notify}
	if r.notify == nil {
		r.notify = func(string) {}
	}
	r.tell = func(err error, d time.Duration) {
		r.notify(fmt.Sprintf("the bucket does not answer as it should (%s), trying again in %s", reason(err), d.Round(100*time.Millisecond)))
	}
	r.RetryerV2 = retry.NewStandard(func(s *retry.StandardOptions) {
		s.MaxAttempts = defaultAttempts
		if o.Attempts > 0 {
			s.MaxAttempts = o.Attempts
		}
		s.MaxBackoff = defaultBackoff
		if o.MaxBackoff > 0 {
			s.MaxBackoff = o.MaxBackoff
		}
		s.Backoff = retry.NewExponentialJitterBackoff(s.MaxBackoff)
		s.RateLimiter = ratelimit.None // it would give up early where many requests fail at once
		s.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(r.judge)}, s.Retryables...)
	})
	return r
}

// judge decides what the SDK would decide otherwise.
func (r *retryer) judge(err error) aws.Ternary {
	var op *net.OpError
	switch {
	case untrusted(err), errors.Is(err, http.ErrSchemeMismatch), errors.Is(err, sealed.ErrSealed):
		return aws.FalseTernary
	case errors.As(err, &op) && op.Op == "dial" && !r.contacted.Load() && (!op.Temporary() || linkLocal(op.Addr)):
		return aws.FalseTernary // but a name server or a way that is busy is no sign that nobody is there
	case errors.Is(err, io.ErrUnexpectedEOF): // in the middle of an answer
		return aws.TrueTernary
	}
	return aws.UnknownTernary
}

// linkLocal reports whether an address is one where metadata services are, where
// there are any.
func linkLocal(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLinkLocalUnicast()
}

// untrusted reports whether the server has a certificate that nobody here vouches for.
func untrusted(err error) bool {
	var unverified *tls.CertificateVerificationError
	return errors.As(err, &unverified)
}

// RetryDelay is called before each retry, and never else.
func (r *retryer) RetryDelay(attempt int, err error) (time.Duration, error) {
	d, failed := r.RetryerV2.RetryDelay(attempt, err)
	if failed == nil {
		r.tell(err, d)
	}
	return d, failed
}

// wait sleeps before another attempt of what the SDK does not retry: an answer
// that broke off. It returns err when there have been enough, or it is no use.
func (r *retryer) wait(ctx context.Context, attempt int, err error) error {
	if attempt >= r.MaxAttempts() || !r.IsErrorRetryable(err) && !brokeOff(err) {
		return err
	}
	d, failed := r.RetryDelay(attempt, err)
	if failed != nil {
		return err
	}
	return pause(ctx, d)
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// brokeOff reports whether a body ended before its length.
func brokeOff(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}
