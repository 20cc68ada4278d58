package server_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/registry/server"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/file"
	"github.com/dogestry/dogestry/internal/storage/mem"
	"github.com/dogestry/dogestry/internal/storage/s3"
	"github.com/dogestry/dogestry/internal/storage/s3/s3test"
)

// TestBucket: pushes and pulls, a part of a layer, and uploads that a second server
// ends, over a bucket.
func TestBucket(t *testing.T) {
	bucket := s3test.For(t)
	for _, v := range bucket.Environment() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	o, err := s3.Parse("s3://" + bucket.Bucket(t) + "/images?endpoint=" + url.QueryEscape(bucket.Endpoint))
	if err != nil {
		t.Fatal(err)
	}
	store, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	r, other := open(t, store), open(t, store)
	img := testImage(t, "app")
	a := gzipped(t, img)
	layer := a.blobs[1]
	path := r.want(202, "POST", "/v2/app/blobs/uploads/", nil).header.Get("Location")
	r.want(202, "PATCH", path, struct{ io.Reader }{bytes.NewReader(layer[:100_000])})
	other.want(202, "PATCH", path, bytes.NewReader(layer[100_000:]), "Content-Range", "100000-"+last(layer))
	r.want(201, "PUT", path+"?digest="+digestOf(layer), nil)
	other.pushed("app", "1", a)
	r.pulled("app:1", img)
	if got := r.want(200, "GET", "/v2/app/blobs/"+digestOf(layer), nil); !bytes.Equal(got.body, layer) {
		t.Errorf("a blob has %d bytes", len(got.body))
	}
	if got := r.want(206, "GET", "/v2/app/blobs/"+digestOf(layer), nil, "Range", "bytes=1000-1999"); !bytes.Equal(got.body, layer[1000:2000]) {
		t.Errorf("a part has %d bytes", len(got.body))
	}
	r.want(202, "DELETE", "/v2/app/manifests/"+a.digest(), nil)
	other.want(404, "GET", "/v2/app/manifests/1", nil)
}

func last(b []byte) string { return strconv.Itoa(len(b) - 1) }

// TestCollected: a collection leaves what was pushed, tagged or not, and frees what
// was deleted.
func TestCollected(t *testing.T) {
	r := open(t, mem.New())
	tagged, untagged, deleted := gzipped(t, testImage(t, "tagged")), gzipped(t, testImage(t, "untagged")), gzipped(t, testImage(t, "deleted"))
	r.pushed("app", "1", tagged)
	r.pushed("app", untagged.digest(), untagged)
	r.pushed("app", "2", deleted)
	signature := artifact{manifestOf(t, describe("application/vnd.oci.empty.v1+json", []byte("{}")), []descriptor{}, map[string]any{
		"subject": describe("application/vnd.oci.image.manifest.v1+json", untagged.manifest), "artifactType": "example/signature",
	}), [][]byte{[]byte("{}")}}
	r.pushed("app", signature.digest(), signature)
	r.want(202, "DELETE", "/v2/app/manifests/"+deleted.digest(), nil)
	if _, err := r.repo.Collect(t.Context(), repo.CollectOptions{Grace: 1}); err != nil {
		t.Fatal(err)
	}
	for _, a := range []artifact{tagged, untagged, signature} {
		for _, b := range a.blobs {
			r.want(200, "GET", "/v2/app/blobs/"+digestOf(b), nil)
		}
		r.want(200, "GET", "/v2/app/manifests/"+a.digest(), nil)
	}
	r.want(404, "GET", "/v2/app/blobs/"+digestOf(deleted.blobs[2]), nil) // its other layer is that of all
	r.pulled("app:1", testImage(t, "tagged"))
}

// TestOriginal: an image of format 1.0 is there as one of today.
func TestOriginal(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../../testdata/golden/1.0")); err != nil {
		t.Fatal(err)
	}
	store, err := file.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	in, err := repo.Open(t.Context(), store, repo.Options{Name: dir})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(server.New(server.Options{From: original.New(in, original.Options{Name: dir}), Besides: in}))
	t.Cleanup(s.Close)
	r := &registry{T: t, store: store, repo: in, url: s.URL, client: s.Client()}
	got := r.want(200, "GET", "/v2/myapp/manifests/1", nil)
	m, err := image.ParseManifest(got.body)
	if err != nil {
		t.Fatal(err)
	}
	if want := "12d4ac0d0d21fcae9aa2269c9a1e75bfb53200a5d6283629d10c8d9aaf50bc66"; m.Config.Digest.Hex() != want { // docs/format.md
		t.Errorf("the image is %s", m.Config.Digest)
	}
	r.want(200, "GET", "/v2/myapp/manifests/"+digestOf(got.body), nil)
	for _, d := range append(m.Layers, m.Config) {
		blob := r.want(200, "GET", "/v2/myapp/blobs/"+d.Digest.String(), nil)
		if digestOf(blob.body) != d.Digest.String() || int64(len(blob.body)) != d.Size {
			t.Errorf("%s has %d bytes", d.Digest, len(blob.body))
		}
		if d.Size > 9 {
			r.want(206, "GET", "/v2/myapp/blobs/"+d.Digest.String(), nil, "Range", "bytes=0-9")
		}
	}
}

// TestTagsOfABucket: a page of tags costs as many lists as it has thousands, and one,
// wherever it begins, and however many tags there are.
func TestTagsOfABucket(t *testing.T) {
	bucket := s3test.For(t)
	for _, v := range bucket.Environment() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	proxy, err := s3test.NewProxy(bucket)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	name := bucket.Bucket(t)
	o, err := s3.Parse("s3://" + name + "/images?endpoint=" + url.QueryEscape(proxy.Endpoint))
	if err != nil {
		t.Fatal(err)
	}
	store, err := s3.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, store)
	img := testImage(t, "app")
	r.push("app:v0000", img)
	tags := filepath.Join(bucket.Dir(name), "images", "repositories", "app")
	id, err := os.ReadFile(filepath.Join(tags, "v0000"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"v0000"}
	for i := range 3500 {
		want = append(want, fmt.Sprintf("v%04d", i+1))
		if err := os.WriteFile(filepath.Join(tags, want[i+1]), id, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		query       string
		first, last int // of the tags that are in the answer
		lists       int
	}{
		{"?n=10", 0, 9, 1},
		{"?n=10&last=v2999", 3000, 3009, 1},
		{"?n=2000&last=v0999", 1000, 2999, 3},
		{"?last=v3490", 3491, 3500, 1},
	} {
		proxy.Reset()
		got := tagsIn(t)(r.want(200, "GET", "/v2/app/tags/list"+c.query, nil).body)
		if !slices.Equal(got, want[c.first:c.last+1]) {
			t.Errorf("%s: %d tags, from %q on", c.query, len(got), got[:min(len(got), 1)])
		}
		if lists := proxy.Count("ListObjectsV2"); lists == 0 || lists > c.lists {
			t.Errorf("%s: %d lists", c.query, lists)
		}
	}
}
