package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// TestRetries makes each kind of request fail in each way that may pass.
func TestRetries(t *testing.T) {
	server := s3test.For(t)
	small, large := []byte("small"), noise(17<<20)
	lists := func(ctx context.Context, s *s3.Store) error {
		n := 0
		for _, err := range s.List(ctx, "") {
			if err != nil {
				return err
			}
			n++
		}
		if n != 2 {
			return fmt.Errorf("%d keys", n)
		}
		return nil
	}
	reads := func(key string, want []byte) func(context.Context, *s3.Store) error {
		return func(ctx context.Context, s *s3.Store) error {
			got, err := content(ctx, s, key)
			if err == nil && !bytes.Equal(got, want) {
				err = fmt.Errorf("%d wrong bytes", len(got))
			}
			return err
		}
	}
	writes := func(key string, body []byte) func(context.Context, *s3.Store) error {
		return func(ctx context.Context, s *s3.Store) error {
			if err := s.Put(ctx, key, bytes.NewReader(body)); err != nil {
				return err
			}
			return reads(key, body)(ctx, s)
		}
	}
	swaps := func(ctx context.Context, s *s3.Store) error {
		if err := s.Swap(ctx, "small", small, []byte("new")); err != nil {
			return err
		}
		return reads("small", []byte("new"))(ctx, s)
	}
	operations := map[string]struct {
		ops []string // that fail
		run func(context.Context, *s3.Store) error
	}{
		"put":        {[]string{"PutObject"}, writes("put", small)},
		"begin":      {[]string{"CreateMultipartUpload"}, writes("parts", large)},
		"part":       {[]string{"UploadPart"}, writes("parts", large)},
		"complete":   {[]string{"CompleteMultipartUpload"}, writes("parts", large)},
		"get":        {[]string{"GetObject"}, reads("small", small)},
		"get pieces": {[]string{"GetObject"}, reads("large", large)},
		"list":       {[]string{"ListObjectsV2"}, lists},
		"stat": {[]string{"HeadObject"}, func(ctx context.Context, s *s3.Store) error {
			_, err := s.Stat(ctx, "small")
			return err
		}},
		"delete": {[]string{"DeleteObject"}, func(ctx context.Context, s *s3.Store) error { return s.Delete(ctx, "nothing") }},
		"create": {[]string{"PutObject"}, func(ctx context.Context, s *s3.Store) error {
			if err := s.Create(ctx, "new", bytes.NewReader(small)); err != nil {
				return err
			}
			return reads("new", small)(ctx, s)
		}},
		"swap":      {[]string{"PutObject"}, swaps},
		"swap read": {[]string{"GetObject"}, swaps},
	}
	faults := map[string]s3test.Fault{
		"503":                  s3test.Answer(http.StatusServiceUnavailable, "SlowDown"),
		"500":                  s3test.Answer(http.StatusInternalServerError, "InternalError"),
		"500 when it was done": s3test.Answer(http.StatusInternalServerError, "InternalError").AfterDone(),
		"dropped":              s3test.Drop(),
		"answer lost":          s3test.Lost(),
		"stalled":              s3test.Stall(),
		"request reset":        s3test.ResetRequest(3),
		"answer reset":         s3test.ResetResponse(3),
		"answer truncated":     s3test.TruncateResponse(3),
		"answer stalled":       s3test.StallResponse(3),
	}
	for opName, op := range operations {
		filled := func(t *testing.T) (bucket string, direct *s3.Store) {
			bucket = server.Bucket(t)
			direct = open(t, server.Account, server.Endpoint, bucket, nil)
			put(t, direct, "small", small)
			if opName == "get pieces" || opName == "list" {
				put(t, direct, "large", large)
			}
			return bucket, direct
		}
		probe := func(s *s3.Store) error {
			if opName == "create" || strings.HasPrefix(opName, "swap") {
				return s.Create(t.Context(), "probe", strings.NewReader(""))
			}
			return nil
		}
		// enough is how long a server may say nothing, on a machine as busy as this one: where there is no fault, that is no stall.
		enough := func(t *testing.T) time.Duration {
			for stall := 150 * time.Millisecond; ; stall *= 2 {
				b, _ := filled(t)
				s := open(t, server.Account, server.Endpoint, b, func(o *s3.Options) { o.Stall, o.Attempts = stall, 1 })
				err := probe(s)
				if err == nil {
					err = op.run(t.Context(), s)
				}
				if err == nil {
					return stall
				}
				if stall > time.Minute {
					t.Fatal(err)
				}
			}
		}
		t.Run(opName, func(t *testing.T) {
			for faultName, fault := range faults {
				stalls := strings.Contains(faultName, "stalled") // on a busy machine also where no fault is
				stall := time.Duration(0)
				if stalls {
					stall = enough(t)
				}
				b, direct := filled(t)
				proxy, err := s3test.NewProxy(server)
				if err != nil {
					t.Fatal(err)
				}
				var told notes
				s := open(t, server.Account, proxy.Endpoint, b, func(o *s3.Options) {
					if o.Notify = told.add; stalls {
						o.Stall, o.Attempts = stall, 30
					}
				})
				if err := probe(s); err != nil { // which is about the server
					t.Fatal(err)
				}
				rule := s3test.Times(2, s3test.Is(op.ops...), fault)
				proxy.Reset()
				proxy.SetFault(rule)
				if err := op.run(t.Context(), s); err != nil {
					t.Errorf("%s: %v", faultName, err)
				}
				faulty := 0
				for _, r := range proxy.Requests() {
					if r.Faulty {
						faulty++
					}
				}
				if breaksAll(faultName) && (faulty != 2 || told.all() == "") || faulty == 0 {
					t.Errorf("%s: %d faults, told %q", faultName, faulty, told.all())
				}
				left := server.Uploads(t, b)
				if opName == "begin" || stalls { // nobody knows the ID of an upload whose answer was lost: that is what Sweep is for
					if n, err := direct.Sweep(t.Context(), "", 0); n != len(left) || err != nil {
						t.Errorf("%s: swept %d of %d, %v", faultName, n, len(left), err)
					}
					left = server.Uploads(t, b)
				}
				if len(left) > 0 {
					t.Errorf("%s: left over: %q", faultName, left)
				}
				proxy.SetFault(nil)
				proxy.Close()
			}
		})
	}
}

// TestErrorInSuccess has the answer 200 to the end of an upload hold an error:
// S3 begins that answer before it knows.
func TestErrorInSuccess(t *testing.T) {
	server := s3test.For(t)
	proxy := server.ProxyFor(t)
	b := server.Bucket(t)
	s := open(t, server.Account, proxy.Endpoint, b, func(o *s3.Options) { o.Attempts = 3 })
	body := noise(17 << 20)
	for _, failed := range []s3test.Fault{s3test.Answer(http.StatusOK, "InternalError"), s3test.Answer(http.StatusOK, "InternalError").AfterDone()} {
		proxy.SetFault(s3test.Times(2, s3test.Is("CompleteMultipartUpload"), failed))
		put(t, s, "once", body)
		holds(t, s, "once", body)
	}
	proxy.SetFault(s3test.Always(s3test.Is("CompleteMultipartUpload"), s3test.Answer(http.StatusOK, "InternalError")))
	if err := s.Put(t.Context(), "never", bytes.NewReader(body)); err == nil || !strings.Contains(err.Error(), "InternalError") {
		t.Errorf("it fails always: %v", err)
	}
	if _, err := s.Stat(t.Context(), "never"); !errors.Is(err, storage.ErrNotFound) || len(server.Uploads(t, b)) > 0 {
		t.Errorf("left over: %v, %q", err, server.Uploads(t, b))
	}
}

// breaksAll reports whether a fault breaks each request: one that has no body,
// or whose answer has none, does not break off in it.
func breaksAll(fault string) bool {
	switch fault {
	case "request reset", "answer reset", "answer truncated", "answer stalled":
		return false
	}
	return true
}

// TestFirstContact is about failures of the very first request: what shows that
// nobody is there is told at once, what may pass is tried again.
func TestFirstContact(t *testing.T) {
	dial := func(err error) error { return fmt.Errorf("x: %w", &net.OpError{Op: "dial", Net: "tcp", Err: err}) }
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"refused":             {dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), false},
		"no such host":        {dial(&net.DNSError{IsNotFound: true}), false},
		"dial timeout":        {dial(os.ErrDeadlineExceeded), true},
		"the system's":        {dial(os.NewSyscallError("connect", syscall.ETIMEDOUT)), true},
		"name server is busy": {dial(&net.DNSError{IsTemporary: true}), true},
		"name server is slow": {dial(&net.DNSError{IsTimeout: true}), true},
		"no metadata service": {&net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(169, 254, 169, 254)}, Err: os.ErrDeadlineExceeded}, false},
	} {
		if got := s3.RetriesFirst(test.err); got != test.want {
			t.Errorf("%s: tried again: %v, want %v", name, got, test.want)
		}
	}
}

// TestResume makes sure that a broken read goes on at its byte.
func TestResume(t *testing.T) {
	server := s3test.For(t)
	proxy := server.ProxyFor(t)
	b := server.Bucket(t)
	s := open(t, server.Account, proxy.Endpoint, b, nil)
	body := noise(10 << 20)
	put(t, s, "key", body)
	proxy.Reset()
	second := func(r *http.Request) bool { return strings.HasPrefix(r.Header.Get("Range"), "bytes=4194304-") }
	proxy.SetFault(s3test.Times(1, second, s3test.TruncateResponse(3<<20)))
	holds(t, s, "key", body)
	var received int64
	var ranges []string
	for _, r := range proxy.Requests() {
		received += r.Received
		ranges = append(ranges, r.Header.Get("Range"))
		if r.Header.Get("If-Match") == "" && len(ranges) > 1 {
			t.Errorf("%s without a condition", r.Header.Get("Range"))
		}
	}
	if received > int64(len(body))+64<<10 {
		t.Errorf("%d bytes for an object of %d: %q", received, len(body), ranges)
	}
	if len(ranges) != 4 {
		t.Errorf("requests for %q, want three pieces and a rest", ranges)
	}
}

// TestReplaced replaces an object while it is read.
func TestReplaced(t *testing.T) {
	server := s3test.For(t)
	for name, rule := range map[string]s3test.Rule{
		"noticed by the server": nil,
		"noticed by us":         s3test.Always(s3test.Is("GetObject"), s3test.Ignore("If-Match")),
	} {
		proxy := server.ProxyFor(t)
		b := server.Bucket(t)
		s := open(t, server.Account, proxy.Endpoint, b, nil)
		put(t, s, "key", noise(40<<20))
		proxy.SetFault(rule)
		r, err := s.Get(t.Context(), "key", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		other := noise(40 << 20)
		other[39<<20]++
		put(t, s, "key", other)
		_, err = io.Copy(io.Discard, r)
		if !errors.Is(err, storage.ErrChanged) {
			t.Errorf("%s: %v, want ErrChanged", name, err)
		}
		_ = r.Close()
	}
}

// TestAtOnce is about failures that asking again would not mend: one request,
// and words that say what to do.
func TestAtOnce(t *testing.T) {
	server := s3test.For(t)
	proxy := server.ProxyFor(t)
	b := server.Bucket(t)
	s := open(t, server.Account, proxy.Endpoint, b, nil)
	for _, test := range []struct {
		status int
		code   string
		want   string // in the text
		advice string // in the advice
	}{
		{http.StatusForbidden, "AccessDenied", "AccessDenied", "s3:PutObject"},
		{http.StatusNotFound, "NoSuchBucket", "no bucket " + b, "does not make buckets"},
		{http.StatusBadRequest, "ExpiredToken", "session has expired", "aws sso login"},
		{http.StatusForbidden, "InvalidAccessKeyId", "does not know the access key", "AWS_ACCESS_KEY_ID"},
		{http.StatusForbidden, "SignatureDoesNotMatch", "secret key does not fit", "AWS_SECRET_ACCESS_KEY"},
		{http.StatusInsufficientStorage, "XMinioStorageFull", "no space left", ""},
	} {
		t.Run(test.code, func(t *testing.T) {
			proxy.Reset()
			proxy.SetFault(s3test.Always(s3test.Any, s3test.Answer(test.status, test.code)))
			err := s.Put(t.Context(), "key", strings.NewReader("x"))
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(advice(err), test.advice) {
				t.Errorf("%v (%s)", err, advice(err))
			}
			if n := proxy.Count(); n != 1 {
				t.Errorf("%d requests", n)
			}
			if strings.Contains(fmt.Sprint(err), server.SecretKey) {
				t.Errorf("the secret key is in %v", err)
			}
		})
	}
}

func TestClockSkew(t *testing.T) {
	server := s3test.For(t)
	proxy := server.ProxyFor(t)
	s := open(t, server.Account, proxy.Endpoint, server.Bucket(t), nil)
	proxy.SetFault(s3test.Always(s3test.Any, s3test.Answer(http.StatusForbidden, "RequestTimeTooSkewed")))
	start := time.Now()
	_, err := content(t.Context(), s, "key")
	if err == nil || !strings.Contains(err.Error(), "clock") || !strings.Contains(advice(err), "Set the clock") || time.Since(start) > 5*time.Second {
		t.Errorf("after %s: %v (%s)", time.Since(start), err, advice(err))
	}
}

func TestOtherRegion(t *testing.T) {
	server := s3test.For(t)
	proxy := server.ProxyFor(t)
	b := server.Bucket(t)
	s := open(t, server.Account, proxy.Endpoint, b, func(o *s3.Options) { o.Region = "us-east-1" })
	proxy.SetFault(s3test.Always(s3test.Any, s3test.Redirect("eu-west-1")))
	for name, run := range map[string]func() error{
		"get":  func() error { _, err := content(t.Context(), s, "key"); return err },
		"stat": func() error { _, err := s.Stat(t.Context(), "key"); return err },
		"put":  func() error { return s.Put(t.Context(), "key", strings.NewReader("x")) },
	} {
		if err := run(); err == nil || !strings.Contains(err.Error(), "another region") || !strings.Contains(advice(err), "?region=eu-west-1") {
			t.Errorf("%s: %v (%s)", name, err, advice(err))
		}
	}
	t.Run("asked of the bucket", func(t *testing.T) {
		proxy.SetFault(s3test.Always(s3test.Is("HeadBucket"), s3test.Redirect("eu-west-1")))
		proxy.Reset()
		s := open(t, server.Account, proxy.Endpoint, b, func(*s3.Options) { t.Setenv("AWS_REGION", "") })
		_, _ = s.Stat(t.Context(), "key") // the server is in another region, and refuses
		if n := proxy.Count("HeadBucket"); n != 1 {
			t.Errorf("the bucket was asked %d times", n)
		}
		if s.Region() != "eu-west-1" {
			t.Errorf("region %q", s.Region())
		}
	})
	t.Run("no bucket to ask", func(t *testing.T) {
		proxy.SetFault(s3test.Always(s3test.Is("HeadBucket"), s3test.Answer(http.StatusNotFound, "NoSuchBucket")))
		_, err := tryOpen(t, server.Account, proxy.Endpoint, b, func(*s3.Options) { t.Setenv("AWS_REGION", "") })
		if fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), "there is no bucket") {
			t.Errorf("%v", err)
		}
	})
}

// TestKilledServer kills the server in the middle of an upload and starts it again.
func TestKilledServer(t *testing.T) {
	server := s3test.StartFor(t, s3test.Options{})
	b := server.Bucket(t)
	var told notes
	s := open(t, server.Account, server.Endpoint, b, func(o *s3.Options) { o.Notify, o.MaxBackoff = told.add, time.Second })
	body := noise(40 << 20)
	killed := false
	source := io.MultiReader(bytes.NewReader(body[:20<<20]), act(func() {
		killed = true
		server.Kill()
		time.AfterFunc(300*time.Millisecond, func() {
			if err := server.Restart(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
	}), bytes.NewReader(body[20<<20:]))
	if err := s.Put(t.Context(), "key", source); err != nil {
		t.Fatal(err)
	}
	holds(t, s, "key", body)
	if !killed || told.all() == "" {
		t.Errorf("killed %v, told %q", killed, told.all())
	}
}

// act is a reader of nothing that does something.
type act func()

func (a act) Read([]byte) (int, error) { a(); return 0, io.EOF }

// TestGuardBeforeRetry: a retry asks the guard again, and is not sent where it says no.
func TestGuardBeforeRetry(t *testing.T) {
	server := s3test.For(t)
	for name, change := range map[string]func(context.Context, *s3.Store) error{
		"PutObject":    func(ctx context.Context, s *s3.Store) error { return s.Put(ctx, "key", strings.NewReader("new")) },
		"DeleteObject": func(ctx context.Context, s *s3.Store) error { return s.Delete(ctx, "key") },
	} {
		proxy := server.ProxyFor(t)
		s := open(t, server.Account, proxy.Endpoint, server.Bucket(t), nil)
		if err := s.Put(t.Context(), "key", strings.NewReader("old")); err != nil {
			t.Fatal(err)
		}
		proxy.Reset()
		proxy.SetFault(s3test.Times(1, s3test.Is(name), s3test.Answer(http.StatusServiceUnavailable, "SlowDown")))
		asked, no := 0, errors.New("no")
		err := change(storage.WithGuard(t.Context(), func(context.Context) error {
			if asked++; asked > 1 {
				return no
			}
			return nil
		}), s)
		if !errors.Is(err, no) || asked != 2 || proxy.Count(name) != 1 {
			t.Errorf("%s: asked %d times, sent %d times, error %v", name, asked, proxy.Count(name), err)
		}
		if got, err := content(t.Context(), s, "key"); err != nil || string(got) != "old" {
			t.Errorf("%s: it holds %q, error %v", name, got, err)
		}
	}
}
