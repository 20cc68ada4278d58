package s3_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// TestURLReachesWire looks at requests for what the options of a URL make of them.
func TestURLReachesWire(t *testing.T) {
	var seen atomic.Pointer[http.Request]
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen.Store(r) }))
	t.Cleanup(server.Close)
	as(t, s3test.Account{AccessKey: "AKID", SecretKey: "secret"})
	for name, want := range map[string]struct{ host, path, region string }{
		"s3://bucket/p?endpoint=http://s3.example":                                      {"s3.example", "/bucket/p/key", "us-east-1"},
		"s3://bucket/p?endpoint=http://s3.example&path-style=false":                     {"bucket.s3.example", "/p/key", "us-east-1"},
		"s3://bucket/p?endpoint=http://s3.example&region=eu-central-1":                  {"s3.example", "/bucket/p/key", "eu-central-1"},
		"s3://bucket?endpoint=http://s3.eu-west-1.amazonaws.com":                        {"bucket.s3.eu-west-1.amazonaws.com", "/key", "us-east-1"},
		"s3://bucket?endpoint=http://s3.eu-west-1.amazonaws.com&path-style=true":        {"s3.eu-west-1.amazonaws.com", "/bucket/key", "us-east-1"},
		"s3://bucket?endpoint=http://s3.example&path-style=false&region=ap-southeast-2": {"bucket.s3.example", "/key", "ap-southeast-2"},
	} {
		o, err := s3.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := s3.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		s.DialOnly(server.Listener.Addr().String())
		if _, err := s.Stat(t.Context(), "key"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		r := seen.Load()
		if scope := "/" + want.region + "/s3/aws4_request"; r.Host != want.host || r.URL.Path != want.path || !strings.Contains(r.Header.Get("Authorization"), scope) {
			t.Errorf("%s: asks %s for %s, signed %s; want %+v", name, r.Host, r.URL.Path, r.Header.Get("Authorization"), want)
		}
		_ = s.Close()
	}
}

// TestLongList lists 100,000 keys from a server that makes them up: page by page,
// no page before it is needed, and none kept.
func TestLongList(t *testing.T) {
	const pages, perPage = 100, 1000
	server := s3test.For(t)
	proxy := server.ProxyFor(t)
	var asked atomic.Int64
	proxy.SetFault(func(r *http.Request) s3test.Fault {
		if s3test.Op(r) != "ListObjectsV2" {
			return s3test.Fault{}
		}
		asked.Add(1)
		page, _ := strconv.Atoi(r.URL.Query().Get("continuation-token"))
		var b strings.Builder
		fmt.Fprintf(&b, "<ListBucketResult><IsTruncated>%v</IsTruncated><NextContinuationToken>%d</NextContinuationToken>", page+1 < pages, page+1)
		for i := range perPage {
			fmt.Fprintf(&b, "<Contents><Key>images/%064d/layer.tar.lz4</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;%032d&quot;</ETag><Size>%d</Size></Contents>",
				page*perPage+i, i, i)
		}
		b.WriteString("</ListBucketResult>")
		return s3test.Reply(http.StatusOK, b.String())
	})
	s := open(t, server.Account, proxy.Endpoint, server.Bucket(t), nil)
	held := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before, most := held(), int64(0)
	n, last := 0, ""
	for info, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("images/%064d/layer.tar.lz4", n); info.Key != want || info.Size != int64(n%perPage) {
			t.Fatalf("key %d is %+v", n, info)
		}
		n, last = n+1, info.Key
		if page := int64((n-1)/perPage + 1); asked.Load() != page {
			t.Fatalf("%d pages were asked for, and the reader is at page %d", asked.Load(), page)
		}
		if n%(10*perPage) == 0 {
			most = max(most, held()-before)
			proxy.Reset() // it keeps records
		}
	}
	if n != pages*perPage {
		t.Errorf("%d keys, the last is %s", n, last)
	}
	if most > 8<<20 { // all of them would be 20 MB and more
		t.Errorf("%d MiB are held", most>>20)
	}
}
