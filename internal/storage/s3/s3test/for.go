package s3test

import (
	"os"
	"sync"
	"testing"
)

// shared is the server of [For], and how many tests use it.
var shared struct {
	sync.Mutex
	server *Server
	users  int
}

// For returns a server that all tests share that run at the same time: started for the first, stopped after the last, so
// that nothing of it is left at the end of the process, and no TestMain is needed. Without versitygw the test fails: a skip
// would pass for a success. A test that kills its server starts one of its own, by [StartFor].
func For(tb testing.TB) *Server {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.users == 0 {
		s, err := Start(tb.Context(), Options{})
		if err != nil {
			tb.Fatal(err)
		}
		shared.server = s
	}
	shared.users++
	tb.Cleanup(func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.users--; shared.users > 0 {
			return
		}
		if err := shared.server.Stop(); err != nil {
			tb.Error(err)
		}
		shared.server = nil
	})
	return shared.server
}

// StartFor starts a server for one test, and stops it when the test ends.
func StartFor(tb testing.TB, o Options) *Server {
	tb.Helper()
	s, err := Start(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// Bucket is [Server.NewBucket] for tests. The bucket goes with the test.
func (s *Server) Bucket(tb testing.TB) string {
	tb.Helper()
	bucket, err := s.NewBucket()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(s.Dir(bucket)) }) // what remains goes with the server
	return bucket
}

// User is [Server.NewAccount] for tests.
func (s *Server) User(tb testing.TB) Account {
	tb.Helper()
	a, err := s.NewAccount(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// SetPolicy is [Server.PutPolicy] for tests; the policy goes with the bucket.
func (s *Server) SetPolicy(tb testing.TB, bucket, policy string) {
	tb.Helper()
	if err := s.PutPolicy(tb.Context(), bucket, policy); err != nil {
		tb.Fatal(err)
	}
}

// Uploads is [Server.OpenUploads] for tests.
func (s *Server) Uploads(tb testing.TB, bucket string) []string {
	tb.Helper()
	open, err := s.OpenUploads(bucket)
	if err != nil {
		tb.Fatal(err)
	}
	return open
}

// ProxyFor is a proxy in front of the server that goes with the test.
func (s *Server) ProxyFor(tb testing.TB) *Proxy {
	tb.Helper()
	p, err := NewProxy(s)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}
