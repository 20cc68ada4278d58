package s3

import (
	"context"
	"io"
	"net"
)

// SetMaxParts makes an upload that is too large for S3 a small one.
func (s *Store) SetMaxParts(n int) { s.maxParts = n }

// PartSize is what Put would choose for body.
func PartSize(o Options, body io.Reader) int64 { return (&Store{o: o}).partSize(body) }

// RetriesFirst reports whether the first request that ever was is repeated after err.
func RetriesFirst(err error) bool { return newRetryer(Options{}).IsErrorRetryable(err) }

// DialOnly lets all connections go to address, whatever the host.
func (s *Store) DialOnly(address string) {
	s.transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
}
