package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/probe"
	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

func advice(err error) string { return fault.AdviceOf(err) }

// TestIgnoredConditions is about servers that take the header, and overwrite.
func TestIgnoredConditions(t *testing.T) {
	server := s3test.For(t)
	proxy := server.ProxyFor(t)
	b := server.Bucket(t)
	direct := open(t, server.Account, server.Endpoint, b, nil)
	put(t, direct, "key", []byte("old"))
	for name, rule := range map[string]s3test.Rule{
		"ignored": s3test.Always(s3test.Is("PutObject"), s3test.Ignore("If-None-Match", "If-Match")),
		"refused": func(r *http.Request) s3test.Fault {
			if r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Match") != "" {
				return s3test.Answer(http.StatusNotImplemented, "NotImplemented")
			}
			return s3test.Fault{}
		},
	} {
		proxy.SetFault(rule)
		s := open(t, server.Account, proxy.Endpoint, b, nil)
		if err := s.Create(t.Context(), "new", strings.NewReader("x")); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: create: %v, want ErrUnsupported", name, err)
		}
		if err := s.Swap(t.Context(), "key", []byte("old"), []byte("new")); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: swap: %v, want ErrUnsupported", name, err)
		}
		holds(t, direct, "key", []byte("old"))
	}
	for info, err := range direct.List(t.Context(), "") {
		if err != nil || info.Key != "key" {
			t.Errorf("left over: %s, %v", info.Key, err)
		}
	}
}

// TestLostCreate loses the answer of a create that had worked, and of one that
// came too late: they differ.
func TestLostCreate(t *testing.T) {
	server := s3test.For(t)
	for name, size := range map[string]int{"one request": 10, "parts": 9 << 20} {
		t.Run(name, func(t *testing.T) {
			proxy := server.ProxyFor(t)
			s := open(t, server.Account, proxy.Endpoint, server.Bucket(t), nil)
			if err := s.Create(t.Context(), "probe", strings.NewReader("")); err != nil {
				t.Fatal(err)
			}
			lose := func() {
				proxy.SetFault(s3test.Times(1, s3test.Is("PutObject", "CompleteMultipartUpload"), s3test.Lost()))
			}
			body := noise(size)
			lose()
			if err := s.Create(t.Context(), "mine", bytes.NewReader(body)); err != nil {
				t.Errorf("a create whose answer was lost: %v", err)
			}
			// Another writer comes between the look and the write.
			late := noise(size)
			late[0]++
			source := &between{bytes: bytes.NewReader(late), act: func() { put(t, s, "theirs", []byte("theirs")); lose() }}
			if err := s.Create(t.Context(), "theirs", source); !errors.Is(err, storage.ErrExists) {
				t.Errorf("a create that came too late: %v, want ErrExists", err)
			}
			holds(t, s, "mine", body)
			holds(t, s, "theirs", []byte("theirs"))
		})
	}
}

// between acts before the first byte.
type between struct {
	bytes *bytes.Reader
	act   func()
}

func (b *between) Read(p []byte) (int, error) {
	if b.act != nil {
		b.act()
		b.act = nil
	}
	return b.bytes.Read(p)
}

// TestConflict answers as S3 does while another conditional write of the same
// key is on its way: neither is lost yet. What is in memory is tried again; a
// body that has been read is told of.
func TestConflict(t *testing.T) {
	server := s3test.For(t)
	proxy := server.ProxyFor(t)
	b := server.Bucket(t)
	s := open(t, server.Account, proxy.Endpoint, b, func(o *s3.Options) { o.Attempts = 3 })
	create := func(key string, size int) error { return s.Create(t.Context(), key, bytes.NewReader(noise(size))) }
	if err := create("probe", 1); err != nil {
		t.Fatal(err)
	}
	conflict := s3test.Answer(http.StatusConflict, "ConditionalRequestConflict")
	proxy.SetFault(s3test.Times(2, s3test.Is("PutObject"), conflict))
	if err := create("small", 10); err != nil {
		t.Errorf("two conflicts: %v", err)
	}
	holds(t, s, "small", noise(10))
	proxy.SetFault(s3test.Times(2, s3test.Is("PutObject"), conflict))
	if err := s.Swap(t.Context(), "small", noise(10), []byte("new")); err != nil {
		t.Errorf("two conflicts of a swap: %v", err)
	}
	for name, test := range map[string]struct {
		op             string
		size, requests int
	}{"one request": {"PutObject", 10, 3}, "parts": {"CompleteMultipartUpload", 9 << 20, 1}} {
		proxy.SetFault(s3test.Always(s3test.Is(test.op), conflict))
		proxy.Reset()
		err := create("never", test.size)
		if fault.KindOf(err) != fault.Other || !strings.Contains(fmt.Sprint(err), "at the same time") || !strings.Contains(advice(err), "Run the same command again") {
			t.Errorf("%s: %v (%s)", name, err, advice(err))
		}
		if n := proxy.Count(test.op); n != test.requests {
			t.Errorf("%s: %d requests, want %d", name, n, test.requests)
		}
		if left := server.Uploads(t, b); len(left) > 0 {
			t.Errorf("%s: left over: %q", name, left)
		}
		if _, err := s.Stat(t.Context(), "never"); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestProbeStalls has a server that does not answer a probe: who waits for its
// end waits no longer than for a request of its own.
func TestProbeStalls(t *testing.T) {
	server := s3test.For(t)
	proxy := server.ProxyFor(t)
	s := open(t, server.Account, proxy.Endpoint, server.Bucket(t), nil)
	proxy.SetFault(s3test.Times(1, s3test.Is("PutObject"), s3test.Stall()))
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() { first <- s.Create(ctx, "key", strings.NewReader("x")) }()
	for !faulty(proxy) {
		time.Sleep(time.Millisecond)
	}
	second, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	start := time.Now()
	time.AfterFunc(30*time.Second, cancel) // or a broken one would wait for ever
	if err := s.Create(second, "other", strings.NewReader("x")); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 20*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.Create(t.Context(), "key", strings.NewReader("x")); err != nil {
		t.Error(err)
	}
}

// TestKilledProbe is about a process that dies between a probe and its removal.
func TestKilledProbe(t *testing.T) {
	server := s3test.For(t)
	proxy := server.ProxyFor(t)
	b := server.Bucket(t)
	direct := open(t, server.Account, server.Endpoint, b, nil)
	s := open(t, server.Account, proxy.Endpoint, b, func(o *s3.Options) { o.Attempts = 1 })
	proxy.SetFault(s3test.Always(s3test.Is("DeleteObject"), s3test.Drop()))
	if err := s.Create(t.Context(), "key", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := probe.Sweep(t.Context(), direct, time.Hour); n != 0 || err != nil {
		t.Errorf("swept %d young ones, %v", n, err)
	}
	if n, err := probe.Sweep(t.Context(), direct, 0); n != 1 || err != nil {
		t.Errorf("swept %d, %v; want the probe", n, err)
	}
	for info, err := range direct.List(t.Context(), "") {
		if err != nil || info.Key != "key" {
			t.Errorf("left over: %s, %v", info.Key, err)
		}
	}
}

// TestHeaders looks at what new objects are asked to be.
func TestHeaders(t *testing.T) {
	server := s3test.For(t)
	proxy := server.ProxyFor(t)
	want := map[string]string{
		"X-Amz-Server-Side-Encryption":                "aws:kms",
		"X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "alias/images",
		"X-Amz-Storage-Class":                         "STANDARD_IA",
		"X-Amz-Acl":                                   "bucket-owner-full-control",
	}
	var names []string
	for name := range want {
		names = append(names, name)
	}
	o, err := s3.Parse("s3://b/p?sse=aws:kms&kms-key=alias/images&storage-class=standard_ia&acl=bucket-owner-full-control")
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, server.Account, proxy.Endpoint, server.Bucket(t), func(to *s3.Options) {
		to.Encryption, to.KMSKey, to.StorageClass, to.ACL = o.Encryption, o.KMSKey, o.StorageClass, o.ACL
	})
	proxy.SetFault(func(r *http.Request) s3test.Fault {
		if r.Header.Get("Accept-Encoding") != "" || !strings.Contains(r.Header.Get("Authorization"), "x-amz-date") || strings.Contains(r.Header.Get("Authorization"), "encoding") {
			t.Errorf("%s: %q, signed: %s", s3test.Op(r), r.Header.Get("Accept-Encoding"), r.Header.Get("Authorization"))
		}
		return s3test.Ignore(names...) // this server has no keys
	})
	put(t, s, "small", []byte("x"))
	put(t, s, "large", noise(17<<20))
	holds(t, s, "large", noise(17<<20))
	seen := map[string]int{}
	for _, r := range proxy.Requests() {
		makes := r.Op == "PutObject" || r.Op == "CreateMultipartUpload"
		for name, value := range want {
			if got := r.Header.Get(name); makes && got != value || !makes && got != "" {
				t.Errorf("%s has %s: %q", r.Op, name, got)
			}
		}
		for name := range r.Header {
			if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-checksum") || strings.HasPrefix(lower, "x-amz-trailer") || lower == "x-amz-sdk-checksum-algorithm" {
				t.Errorf("%s has %s, which some servers do not know", r.Op, name)
			}
		}
		seen[r.Op]++
	}
	if seen["PutObject"] != 1 || seen["CreateMultipartUpload"] != 1 || seen["UploadPart"] != 3 {
		t.Errorf("requests: %v", seen)
	}
	var sizes []int64
	for _, r := range proxy.Requests() {
		if r.Op == "UploadPart" && r.Query.Get("partNumber") != "3" {
			sizes = append(sizes, r.Sent)
		}
	}
	for _, size := range sizes {
		if size != 8<<20 {
			t.Errorf("parts of %v bytes, want equal ones", sizes)
		}
	}
}
