package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// settled waits until count is want, however busy the machine is, and a while
// longer, in which it may grow. It returns what it is then.
func settled(count func() int64, want int64) int64 {
	for deadline := time.Now().Add(30 * time.Second); count() < want && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond)
	return count()
}

// TestReadAhead makes sure that no more is fetched than fits into what a reader
// may hold, and that this much is.
func TestReadAhead(t *testing.T) {
	server := s3test.For(t)
	proxy := server.ProxyFor(t)
	s := open(t, server.Account, proxy.Endpoint, server.Bucket(t), nil)
	body := noise(40 << 20)
	put(t, s, "key", body)
	proxy.Reset()
	received := func() (n int64) {
		for _, r := range proxy.Requests() {
			n += r.Received
		}
		return n
	}
	r, err := s.Get(t.Context(), "key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if n := settled(received, 16<<20); n != 16<<20 || proxy.Count() != 4 {
		t.Errorf("%d bytes in %d requests, and nobody reads", n, proxy.Count())
	}
	if _, err := io.ReadFull(r, make([]byte, 4<<20+1)); err != nil { // one piece, and a byte of the next
		t.Fatal(err)
	}
	if n := settled(received, 20<<20); n != 20<<20 || proxy.Count() != 5 {
		t.Errorf("%d bytes in %d requests when a piece was read", n, proxy.Count())
	}
	_ = r.Close()

	var running, most atomic.Int64
	proxy.SetFault(func(*http.Request) s3test.Fault {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(20 * time.Millisecond)
		return s3test.Edit(func(*http.Response) { running.Add(-1) })
	})
	holds(t, s, "key", body)
	if n := most.Load(); n < 2 || n > 4 {
		t.Errorf("%d requests at once, want some, and at most 4", n)
	}
}

// TestPartsAtOnce lets no part through: then no more is read of the body than
// four parts.
func TestPartsAtOnce(t *testing.T) {
	server := s3test.For(t)
	for name, test := range map[string]struct {
		partSize, parts int64
	}{"as they are": {0, 4}, "large ones": {16 << 20, 2}, "small ones": {5 << 20, 6}} {
		t.Run(name, func(t *testing.T) {
			proxy := server.ProxyFor(t)
			s := open(t, server.Account, proxy.Endpoint, server.Bucket(t), func(o *s3.Options) { o.PartSize = test.partSize })
			free := make(chan struct{})
			proxy.SetFault(func(r *http.Request) s3test.Fault {
				if s3test.Op(r) == "UploadPart" {
					<-free
				}
				return s3test.Fault{}
			})
			var read atomic.Int64
			source := readerFunc(func(p []byte) (int, error) {
				n := min(int64(len(p)), 70<<20-read.Load())
				if n == 0 {
					return 0, io.EOF
				}
				read.Add(n)
				return int(n), nil
			})
			done := make(chan error)
			go func() { done <- s.Put(t.Context(), "key", source) }()
			parts := settled(func() int64 { return int64(proxy.Count("UploadPart")) }, test.parts)
			if n := read.Load(); parts != test.parts || n > 32<<20 {
				t.Errorf("%d bytes read, %d parts on their way", n, parts)
			}
			close(free)
			if err := <-done; err != nil || read.Load() != 70<<20 {
				t.Errorf("%d bytes, %v", read.Load(), err)
			}
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestCancel ends the context while the server does not answer a request.
func TestCancel(t *testing.T) {
	server := s3test.For(t)
	b := server.Bucket(t)
	direct := open(t, server.Account, server.Endpoint, b, nil)
	put(t, direct, "large", noise(20<<20))
	put(t, direct, "small", []byte("old"))
	small := func(ctx context.Context, s *s3.Store) error { return s.Put(ctx, "new", strings.NewReader("x")) }
	large := func(ctx context.Context, s *s3.Store) error { return s.Put(ctx, "new", bytes.NewReader(noise(40<<20))) }
	get := func(ctx context.Context, s *s3.Store) error { _, err := content(ctx, s, "large"); return err }
	stall, busy := s3test.Stall(), s3test.Answer(http.StatusServiceUnavailable, "SlowDown")
	for name, test := range map[string]struct {
		rule s3test.Rule
		run  func(context.Context, *s3.Store) error
	}{
		"put":                   {s3test.Always(s3test.Is("PutObject"), stall), small},
		"put, repeated":         {s3test.Always(s3test.Is("PutObject"), busy), small},
		"begin":                 {s3test.Always(s3test.Is("CreateMultipartUpload"), stall), large},
		"first parts":           {s3test.Always(s3test.Is("UploadPart"), stall), large},
		"a later part":          {s3test.Between(4, -1, s3test.Is("UploadPart"), stall), large},
		"parts, repeated":       {s3test.Always(s3test.Is("UploadPart"), busy), large},
		"complete":              {s3test.Always(s3test.Is("CompleteMultipartUpload"), stall), large},
		"get":                   {s3test.Always(s3test.Is("GetObject"), stall), get},
		"a later piece":         {s3test.Between(3, -1, s3test.Is("GetObject"), stall), get},
		"in a piece":            {s3test.Between(2, -1, s3test.Is("GetObject"), s3test.StallResponse(1<<20)), get},
		"get, repeated":         {s3test.Between(2, -1, s3test.Is("GetObject"), busy), get},
		"pieces that break off": {s3test.Between(2, -1, s3test.Is("GetObject"), s3test.TruncateResponse(0)), get},
		"stat": {s3test.Always(s3test.Is("HeadObject"), stall), func(ctx context.Context, s *s3.Store) error {
			_, err := s.Stat(ctx, "small")
			return err
		}},
		"list": {s3test.Always(s3test.Is("ListObjectsV2"), stall), func(ctx context.Context, s *s3.Store) error {
			for _, err := range s.List(ctx, "") {
				return err
			}
			return nil
		}},
		"delete": {s3test.Always(s3test.Is("DeleteObject"), stall), func(ctx context.Context, s *s3.Store) error { return s.Delete(ctx, "small") }},
		"create": {s3test.Always(s3test.On("new", "PutObject"), stall), func(ctx context.Context, s *s3.Store) error {
			return s.Create(ctx, "new", strings.NewReader("x"))
		}},
		"swap": {s3test.Always(s3test.On("small", "PutObject"), stall), func(ctx context.Context, s *s3.Store) error {
			return s.Swap(ctx, "small", []byte("old"), []byte("x"))
		}},
		"sweep": {s3test.Always(s3test.Is("ListMultipartUploads"), stall), func(ctx context.Context, s *s3.Store) error {
			_, err := s.Sweep(ctx, "", 0)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := server.ProxyFor(t)
			s := open(t, server.Account, proxy.Endpoint, b, func(o *s3.Options) { o.MaxBackoff = time.Minute })
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			proxy.SetFault(test.rule)
			cancelled := make(chan time.Time, 1)
			go func() {
				for !faulty(proxy) {
					time.Sleep(time.Millisecond)
				}
				rest(proxy)
				cancelled <- time.Now()
				cancel()
			}()
			err := test.run(ctx, s)
			took := time.Since(<-cancelled)
			if !errors.Is(err, context.Canceled) || took > 10*time.Second {
				t.Errorf("%v, %s after the end of its context", err, took)
			}
			if left := server.Uploads(t, b); len(left) > 0 {
				t.Errorf("left over: %q", left)
			}
			if _, err := direct.Stat(t.Context(), "new"); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("what was cancelled is there: %v", err)
			}
		})
	}
	holds(t, direct, "small", []byte("old"))
}

// rest waits until parts and pieces have come to rest: each has its answer or has met its fault, and for a while no other
// comes. A part that the server still writes could bring back an upload that was given up.
func rest(p *s3test.Proxy) {
	for quiet, last := 0, 0; quiet < 10; time.Sleep(20 * time.Millisecond) {
		all := p.Requests()
		running := slices.ContainsFunc(all, func(r s3test.Record) bool { return !r.Faulty && r.Status == 0 })
		if quiet++; running || len(all) != last {
			quiet = 0
		}
		last = len(all)
	}
}

// faulty reports whether a request has met its fault.
func faulty(p *s3test.Proxy) bool {
	return slices.ContainsFunc(p.Requests(), func(r s3test.Record) bool { return r.Faulty })
}

// atMost is a body of which no more is known.
type atMost struct {
	io.Reader
	bytes int64
}

func (a atMost) AtMost() int64 { return a.bytes }

func TestPartSize(t *testing.T) {
	const mib, gib, tib = 1 << 20, 1 << 30, 1 << 40
	for _, test := range []struct{ set, bytes, want int64 }{
		{0, -1, 8 * mib},
		{0, 0, 8 * mib},
		{0, 80_000 * mib, 8 * mib},
		{0, 80_000*mib + 1, 16 * mib},
		{0, tib, 128 * mib},
		{0, 5 * tib, gib},
		{0, 1 << 62, 5 * gib},
		{5 * mib, 50_000 * mib, 5 * mib},
		{5 * mib, 50_000*mib + 1, 10 * mib},
		{64 * mib, tib, 128 * mib},
		{5 * gib, 5 * tib, 5 * gib},
	} {
		var body io.Reader = strings.NewReader("")
		if test.bytes >= 0 {
			body = atMost{body, test.bytes}
		}
		if got := s3.PartSize(s3.Options{PartSize: test.set}, body); got != test.want {
			t.Errorf("parts of %d for %d bytes, set to %d: want %d", got, test.bytes, test.set, test.want)
		}
	}
}

func TestTooManyParts(t *testing.T) {
	server := s3test.For(t)
	b := server.Bucket(t)
	s := open(t, server.Account, server.Endpoint, b, nil)
	s.SetMaxParts(3)
	put(t, s, "enough", noise(3*(8<<20)))
	err := s.Put(t.Context(), "key", bytes.NewReader(noise(3*(8<<20)+1)))
	if want := "more than 3 parts of 8 MiB: add ?part-size="; err == nil || !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("%v, want %q", err, want)
	}
	if _, err := s.Stat(t.Context(), "key"); !errors.Is(err, storage.ErrNotFound) || len(server.Uploads(t, b)) > 0 {
		t.Errorf("left over: %v, %q", err, server.Uploads(t, b))
	}
}
