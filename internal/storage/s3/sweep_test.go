package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// leaveUploads begins uploads of these keys, each by a process that then dies.
func leaveUploads(t *testing.T, server *s3test.Server, bucket string, keys ...string) {
	t.Helper()
	before := len(server.Uploads(t, bucket))
	proxy := server.ProxyFor(t)
	killed := open(t, server.Account, proxy.Endpoint, bucket, func(o *s3.Options) { o.Attempts = 1 })
	proxy.SetFault(s3test.Always(s3test.Is("UploadPart", "AbortMultipartUpload"), s3test.Drop()))
	for _, key := range keys {
		if err := killed.Put(t.Context(), key, bytes.NewReader(noise(9<<20))); err == nil {
			t.Fatal("no error of an upload without parts")
		}
	}
	if left := server.Uploads(t, bucket); len(left) != before+len(keys) {
		t.Fatalf("left over: %q, want %d uploads more to sweep", left, len(keys))
	}
}

func TestSweep(t *testing.T) {
	server := s3test.For(t)
	b := server.Bucket(t)
	s := open(t, server.Account, server.Endpoint, b, nil)
	leaveUploads(t, server, b, "images/a", "images/b", "other/c")
	for _, step := range []struct {
		prefix string
		age    time.Duration
		want   int
	}{{"images/", time.Hour, 0}, {"images/", 0, 2}, {"", 0, 1}, {"", 0, 0}} {
		if n, err := s.Sweep(t.Context(), step.prefix, step.age); n != step.want || err != nil {
			t.Errorf("sweep %q of %s: %d, %v; want %d", step.prefix, step.age, n, err, step.want)
		}
	}
	if left := server.Uploads(t, b); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

// TestSweepByServerTime has servers whose clocks differ from this machine's:
// theirs says how old an upload is.
func TestSweepByServerTime(t *testing.T) {
	server := s3test.For(t)
	b := server.Bucket(t)
	proxy := server.ProxyFor(t)
	s := open(t, server.Account, proxy.Endpoint, b, nil)
	leaveUploads(t, server, b, "images/a")
	for _, step := range []struct {
		says string
		date func() string
		age  time.Duration
		want int
	}{
		{"ten minutes earlier", func() string { return time.Now().Add(-10 * time.Minute).UTC().Format(http.TimeFormat) }, time.Nanosecond, 0},
		{"nothing", func() string { return "" }, time.Nanosecond, -1},
		{"ten minutes later", func() string { return time.Now().Add(10 * time.Minute).UTC().Format(http.TimeFormat) }, 8 * time.Minute, 1},
	} {
		proxy.SetFault(func(r *http.Request) s3test.Fault {
			if s3test.Op(r) != "ListMultipartUploads" {
				return s3test.Fault{}
			}
			return s3test.Edit(func(a *http.Response) { a.Header["Date"] = []string{step.date()} })
		})
		n, err := s.Sweep(t.Context(), "", step.age)
		if step.want < 0 {
			if n != 0 || err == nil {
				t.Errorf("the server says %s: %d, %v", step.says, n, err)
			}
			continue
		}
		if n != step.want || err != nil {
			t.Errorf("the server says %s: %d, %v; want %d", step.says, n, err, step.want)
		}
	}
}

// TestSweepWithoutPrefixes has a server that takes the prefix for a whole key, as
// MinIO does, and finds nothing.
func TestSweepWithoutPrefixes(t *testing.T) {
	server := s3test.For(t)
	b := server.Bucket(t)
	proxy := server.ProxyFor(t)
	const nothing = `<ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>`
	withPrefix := func(r *http.Request) bool {
		return s3test.Op(r) == "ListMultipartUploads" && r.URL.Query().Get("prefix") != ""
	}
	whole := func(r *http.Request) bool { return s3test.Op(r) == "ListMultipartUploads" && !withPrefix(r) }
	like := s3test.Always(withPrefix, s3test.Reply(http.StatusOK, nothing))
	leaveUploads(t, server, b, "images/run/a", "images/b", "images-2/c", "other")
	s := open(t, server.Account, proxy.Endpoint, b, func(o *s3.Options) { o.Prefix = "images" })

	// Who may only see uploads under the prefix is no worse off.
	proxy.SetFault(s3test.Rules(like, s3test.Always(whole, s3test.Answer(http.StatusForbidden, "AccessDenied"))))
	if n, err := s.Sweep(t.Context(), "", 0); n != 0 || err != nil {
		t.Errorf("not allowed to look through the bucket: %d, %v", n, err)
	}
	proxy.SetFault(s3test.Rules(like, s3test.Always(whole, s3test.Answer(http.StatusNotFound, "NoSuchBucket"))))
	if n, err := s.Sweep(t.Context(), "", 0); n != 0 || fault.KindOf(err) != fault.NotFound {
		t.Errorf("no bucket: %d, %v", n, err)
	}
	proxy.SetFault(like)
	for _, step := range []struct {
		prefix string
		want   int
		left   int
	}{{"run/", 1, 3}, {"", 1, 2}, {"", 0, 2}} {
		if n, err := s.Sweep(t.Context(), step.prefix, 0); n != step.want || err != nil || len(server.Uploads(t, b)) != step.left {
			t.Errorf("sweep %q: %d, %v, left are %q; want %d", step.prefix, n, err, server.Uploads(t, b), step.want)
		}
	}
	// Where prefixes work, one question is enough if something is found.
	proxy.SetFault(nil)
	leaveUploads(t, server, b, "images/b")
	proxy.Reset()
	if n, err := s.Sweep(t.Context(), "", 0); n != 1 || err != nil || proxy.Count("ListMultipartUploads") != 1 {
		t.Errorf("%d, %v, %d requests", n, err, proxy.Count("ListMultipartUploads"))
	}
}

// TestSweptMeanwhile removes an upload that is on its way, before a part and
// before its end.
func TestSweptMeanwhile(t *testing.T) {
	server := s3test.For(t)
	b := server.Bucket(t)
	s := open(t, server.Account, server.Endpoint, b, nil)
	for name, rest := range map[string]int{"a part": 20 << 20, "the end": 0} {
		var err error
		for err == nil { // a part that the server was writing meanwhile may bring the upload back: then it is whole, and no case
			if err = putSwept(t, s, rest); err == nil {
				whole(t, s, append(noise(20<<20), noise(rest)...))
			}
		}
		if fault.KindOf(err) != fault.Other || errors.Is(err, storage.ErrNotFound) || !strings.Contains(fmt.Sprint(err), "removed meanwhile") || !strings.Contains(advice(err), "Run the same command again") {
			t.Errorf("before %s: %v (%s)", name, err, advice(err))
		}
		if _, err := s.Stat(t.Context(), "key"); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("before %s: left over: %v", name, err)
		}
		// A part that the server was writing when the upload was removed may bring it back: one more sweep is enough.
		for try := 0; len(server.Uploads(t, b)) > 0; try++ {
			if _, err := s.Sweep(t.Context(), "", 0); err != nil || try == 50 {
				t.Fatalf("before %s: left over: %q, %v", name, server.Uploads(t, b), err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// putSwept puts 20 MiB and rest, with a sweep of everything in between.
func putSwept(t *testing.T, s *s3.Store, rest int) error {
	return s.Put(t.Context(), "key", io.MultiReader(bytes.NewReader(noise(20<<20)), act(func() {
		for swept := 0; swept == 0; { // begun when the first part is full
			var err error
			if swept, err = s.Sweep(t.Context(), "", 0); err != nil {
				t.Error(err)
				return
			}
		}
	}), bytes.NewReader(noise(rest))))
}

// whole makes sure of what key holds, and removes it.
func whole(t *testing.T, s *s3.Store, want []byte) {
	t.Helper()
	if got, err := content(t.Context(), s, "key"); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, want %d, error %v", len(got), len(want), err)
	}
	if err := s.Delete(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
}

// TestPartsAreGone: a server that has the upload, and not its parts any more, is told as one that has removed it.
func TestPartsAreGone(t *testing.T) {
	server := s3test.For(t)
	proxy := server.ProxyFor(t)
	s := open(t, server.Account, proxy.Endpoint, server.Bucket(t), nil)
	proxy.SetFault(s3test.Always(s3test.Is("CompleteMultipartUpload"), s3test.Answer(http.StatusBadRequest, "InvalidPart")))
	err := s.Put(t.Context(), "key", bytes.NewReader(noise(20<<20)))
	if fault.KindOf(err) != fault.Other || !strings.Contains(fmt.Sprint(err), "removed meanwhile") {
		t.Errorf("error %v", err)
	}
}
