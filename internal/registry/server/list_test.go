package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// pages asks for a list to its end and returns what all pages have.
func pages[T any](r *registry, path string, page func(body []byte) []T) (all []T, requests int) {
	r.Helper()
	for path != "" {
		got := r.want(200, "GET", path, nil)
		all = append(all, page(got.body)...)
		requests++
		if path = ""; got.header.Get("Link") != "" {
			link, ok := strings.CutSuffix(got.header.Get("Link"), `>; rel="next"`)
			if next, err := url.Parse(strings.TrimPrefix(link, "<")); !ok || err != nil || requests > 100 {
				r.Fatalf("Link is %q", got.header.Get("Link"))
			} else {
				path = next.String()
			}
		}
	}
	return all, requests
}

func tagsIn(t *testing.T) func([]byte) []string {
	return func(body []byte) []string {
		t.Helper()
		var list struct{ Tags, Repositories *[]string }
		if err := json.Unmarshal(body, &list); err != nil || list.Tags == nil && list.Repositories == nil {
			t.Fatalf("the list is %s", body)
		}
		if list.Tags != nil {
			return *list.Tags
		}
		return *list.Repositories
	}
}

// TestTags: in order, page by page, and none of another repository.
func TestTags(t *testing.T) {
	r := open(t, mem.New())
	img := testImage(t, "app")
	var want []string
	for i := range 12 {
		want = append(want, fmt.Sprintf("v%d", i))
	}
	for _, tag := range want {
		r.push("app:"+tag, img)
	}
	r.push("app/sub:x", img)
	r.push("apple:x", img)
	slices.Sort(want)
	for _, c := range []struct {
		query    string
		want     []string
		requests int
	}{
		{"", want, 1},
		{"?n=5", want, 3},
		{"?n=12", want, 1},
		{"?n=4", want, 3},
		{"?n=100000", want, 1},
		{"?last=v11", want[slices.Index(want, "v11")+1:], 1},
		{"?n=2&last=v11", want[slices.Index(want, "v11")+1:], 4},
		{"?last=v10zzz", want[slices.Index(want, "v11"):], 1}, // no tag, and in between
		{"?last=zzz", nil, 1},
		{"?n=0", nil, 1},
	} {
		got, requests := pages(r, "/v2/library/app/tags/list"+c.query, tagsIn(t))
		if !slices.Equal(got, c.want) || requests != c.requests {
			t.Errorf("%q: %s in %d requests, want %s in %d", c.query, got, requests, c.want, c.requests)
		}
	}
	if got := r.want(200, "GET", "/v2/library/app/tags/list?n=1", nil); !strings.HasPrefix(string(got.body), `{"name":"library/app","tags":["v0"]}`) {
		t.Errorf("a page is %s", got.body)
	}
	r.refused(400, "PAGINATION_NUMBER_INVALID", "GET", "/v2/app/tags/list?n=-1", nil)
	r.refused(400, "PAGINATION_NUMBER_INVALID", "GET", "/v2/app/tags/list?n=x", nil)
}

// TestCatalog: repositories, each once, without those that no client can ask for.
func TestCatalog(t *testing.T) {
	r := open(t, mem.New())
	if got, _ := pages(r, "/v2/_catalog", tagsIn(t)); len(got) > 0 {
		t.Errorf("an empty remote has %s", got)
	}
	img := testImage(t, "app")
	want := []string{"a-b", "a/b", "app", "quay.io/org/tool"}
	for _, name := range append(want, "localhost:5000/app") {
		r.push(name+":1", img)
		r.push(name+":2", img)
	}
	r.pushed("app/untagged", digestOf(gzipped(t, img).manifest), gzipped(t, img)) // known by its digest alone
	want = slices.Insert(want, 3, "app/untagged")
	if got, _ := pages(r, "/v2/app/untagged/tags/list", tagsIn(t)); len(got) > 0 {
		t.Errorf("without tags it lists %s", got)
	}
	for query, requests := range map[string]int{"": 1, "?n=1": 5, "?n=3": 2, "?n=5": 1} {
		got, n := pages(r, "/v2/_catalog"+query, tagsIn(t))
		if !slices.Equal(got, want) || n != requests {
			t.Errorf("%q: %s in %d requests, want %s in %d", query, got, n, want, requests)
		}
	}
}

// TestReferrers: what refers to a manifest is listed with what it says of itself.
func TestReferrers(t *testing.T) {
	r := open(t, mem.New())
	subject := gzipped(t, testImage(t, "app"))
	empty := describe("application/vnd.oci.empty.v1+json", []byte("{}"))
	refers := map[string]any{"subject": describe("application/vnd.oci.image.manifest.v1+json", subject.manifest)}
	path := "/v2/app/referrers/" + subject.digest()
	type entry struct {
		MediaType, Digest, ArtifactType string
		Size                            int
		Annotations                     map[string]string
	}
	list := func(body []byte) []entry {
		t.Helper()
		var index struct {
			SchemaVersion int
			MediaType     string
			Manifests     *[]entry
		}
		if err := json.Unmarshal(body, &index); err != nil || index.SchemaVersion != 2 || index.MediaType != "application/vnd.oci.image.index.v1+json" || index.Manifests == nil {
			t.Fatalf("the list is %s", body)
		}
		return *index.Manifests
	}
	if got := r.want(200, "GET", path, nil); len(list(got.body)) > 0 || got.header.Get("Content-Type") != "application/vnd.oci.image.index.v1+json" {
		t.Errorf("without referrers it answers %s, %v", got.body, got.header)
	}
	put := func(more map[string]any) artifact {
		t.Helper()
		for name, value := range refers {
			more[name] = value
		}
		a := artifact{manifestOf(t, empty, []descriptor{empty}, more), [][]byte{[]byte("{}")}}
		if got := r.pushed("app", a.digest(), a); got.header.Get("OCI-Subject") != subject.digest() {
			t.Errorf("OCI-Subject is %q", got.header.Get("OCI-Subject"))
		}
		return a
	}
	signature := put(map[string]any{"artifactType": "example/signature", "annotations": map[string]string{"by": "me"}}) // before the subject
	r.pushed("app", "1", subject)
	config := put(map[string]any{"annotations": map[string]string{"n": "2"}}) // says its type by its config
	got := list(r.want(200, "GET", path, nil).body)
	want := []entry{
		{"application/vnd.oci.image.manifest.v1+json", signature.digest(), "example/signature", len(signature.manifest), map[string]string{"by": "me"}},
		{"application/vnd.oci.image.manifest.v1+json", config.digest(), "application/vnd.oci.empty.v1+json", len(config.manifest), map[string]string{"n": "2"}},
	}
	slices.SortFunc(want, func(a, b entry) int { return strings.Compare(a.Digest, b.Digest) })
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("it lists %v, want %v", got, want)
	}
	filtered := r.want(200, "GET", path+"?artifactType=example%2Fsignature", nil)
	if l := list(filtered.body); len(l) != 1 || l[0].Digest != signature.digest() || filtered.header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("filtered it answers %s, %v", filtered.body, filtered.header)
	}
	if l := list(r.want(200, "GET", strings.Replace(path, "/app/", "/other/", 1), nil).body); len(l) > 0 {
		t.Errorf("another repository lists %v", l)
	}
	r.refused(400, "DIGEST_INVALID", "GET", "/v2/app/referrers/latest", nil)
	r.want(200, "GET", "/v2/app/manifests/"+signature.digest(), nil)
	r.want(202, "DELETE", "/v2/app/manifests/"+signature.digest(), nil)
	if l := list(r.want(200, "GET", path, nil).body); len(l) != 1 {
		t.Errorf("with one deleted it lists %v", l)
	}

	// Many large ones come in pages.
	for i := range 2 {
		put(map[string]any{"artifactType": "example/large", "annotations": map[string]string{"n": fmt.Sprint(i), "text": strings.Repeat("x", 1600<<10)}})
	}
	large, requests := pages(r, path+"?artifactType=example%2Flarge", list)
	if len(large) != 2 || requests != 2 {
		t.Errorf("%d large ones in %d requests", len(large), requests)
	}
}

// TestSwept: while a collection is about to delete what a client pushes or relies
// on, it is asked to come again.
func TestSwept(t *testing.T) {
	r := open(t, mem.New())
	img := testImage(t, "app")
	a := gzipped(t, img)
	for _, b := range a.blobs {
		r.upload("app", b)
	}
	const generation = "0123456789abcdef0123456789abcdef"
	sweep := func(state string, ids ...[]byte) {
		var list strings.Builder
		for _, b := range ids {
			list.WriteString(image.DigestOf(b).Hex() + "\n")
		}
		r.put("run/lists/"+generation, []byte(list.String()))
		r.put("run/sweep", []byte(`{"generation":"`+generation+`","state":"`+state+`"}`))
	}
	blob := remotetest.Noise("swept", 1000)
	sweep("list", a.blobs[1], blob)
	upload := r.want(202, "POST", "/v2/app/blobs/uploads/", nil).header.Get("Location")
	r.want(202, "PATCH", upload, bytes.NewReader(blob[:400]))
	for range 2 { // as it was told to, and the upload is what it was
		r.refused(503, "UNAVAILABLE", "PUT", upload+"?digest="+digestOf(blob), bytes.NewReader(blob[400:]))
	}
	for _, c := range []struct{ method, path, body string }{
		{"PUT", "/v2/app/manifests/1", string(a.manifest)},
		{"POST", "/v2/app/blobs/uploads/?digest=" + digestOf(blob), string(blob)},
	} {
		got := r.refused(503, "UNAVAILABLE", c.method, c.path, strings.NewReader(c.body))
		if got.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: 503 without Retry-After", c.method, c.path)
		}
	}
	r.want(404, "GET", "/v2/app/manifests/1", nil)
	r.want(201, "POST", "/v2/app/blobs/uploads/?digest="+digestOf([]byte("another")), strings.NewReader("another"))
	// It has deleted the layer: then the manifest names what is missing.
	for _, key := range r.keys("images/" + image.DigestOf(a.blobs[1]).Hex()) {
		if err := r.store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	sweep("ended")
	r.want(201, "PUT", upload+"?digest="+digestOf(blob), bytes.NewReader(blob[400:]))
	r.refused(400, "MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/app/manifests/1", strings.NewReader(string(a.manifest)))
	r.pushed("app", "1", a)
	r.pulled("app:1", img)
}
