package server_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// artifact is a manifest and the blobs that it names, as a client pushes them.
type artifact struct {
	manifest []byte
	blobs    [][]byte
}

func (a artifact) digest() string { return digestOf(a.manifest) }

type descriptor struct {
	MediaType string   `json:"mediaType"`
	Digest    string   `json:"digest"`
	Size      int      `json:"size"`
	URLs      []string `json:"urls,omitempty"`
}

func describe(mediaType string, b []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: digestOf(b), Size: len(b)}
}

// manifestOf returns a manifest; more are members of its JSON.
func manifestOf(t testing.TB, config descriptor, layers []descriptor, more map[string]any) []byte {
	t.Helper()
	m := map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers}
	for name, value := range more {
		m[name] = value
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// gzipped is an image with compressed layers, as registries have them.
func gzipped(t testing.TB, img remotetest.Image) artifact {
	t.Helper()
	a := artifact{blobs: [][]byte{img.Config}}
	var layers []descriptor
	for _, l := range img.Layers {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(l); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		a.blobs = append(a.blobs, b.Bytes())
		layers = append(layers, describe("application/vnd.oci.image.layer.v1.tar+gzip", b.Bytes()))
	}
	a.manifest = manifestOf(t, describe("application/vnd.oci.image.config.v1+json", img.Config), layers, nil)
	return a
}

// upload puts a blob in two requests.
func (r *registry) upload(name string, blob []byte) {
	r.Helper()
	at := r.want(202, "POST", "/v2/"+name+"/blobs/uploads/", nil).header.Get("Location")
	r.want(201, "PUT", at+"?digest="+digestOf(blob), bytes.NewReader(blob))
}

// put pushes an artifact.
func (r *registry) pushed(name, reference string, a artifact) answer {
	r.Helper()
	for _, b := range a.blobs {
		r.upload(name, b)
	}
	return r.want(201, "PUT", "/v2/"+name+"/manifests/"+reference, bytes.NewReader(a.manifest))
}

// pulled compares what the remote gives to a dogestry with what was pushed.
func (r *registry) pulled(ref string, img remotetest.Image) {
	r.Helper()
	id, err := r.repo.Resolve(r.Context(), remotetest.Ref(r, ref))
	if err != nil {
		r.Fatal(err)
	}
	tree, err := remote.ReadTree(r.Context(), r.repo, id, nil)
	if err != nil {
		r.Fatal(err)
	}
	got := remotetest.Image{ID: tree.Children[0].ID, Config: tree.Children[0].Doc}
	layers, err := remote.Layers(r.Context(), r.repo, img.DiffIDs())
	if err != nil {
		r.Fatal(err)
	}
	for _, l := range layers {
		b, err := remotetest.Read(r.Context(), r.repo, l)
		if err != nil {
			r.Fatal(err)
		}
		got.Layers = append(got.Layers, b)
	}
	if diff := img.Diff(got); diff != "" {
		r.Errorf("%s: %s", ref, diff)
	}
}

// TestPush: what a client puts is an image of the remote, whole, byte for byte; and
// nothing of the way is left.
func TestPush(t *testing.T) {
	r := open(t, mem.New())
	img := testImage(t, "app")
	a := gzipped(t, img)
	got := r.pushed("library/myapp", "1", a)
	if got.header.Get("Docker-Content-Digest") != a.digest() || got.header.Get("Location") != "/v2/library/myapp/manifests/"+a.digest() {
		t.Errorf("a manifest was put, and the answer has %v", got.header)
	}
	r.pulled("myapp:1", img)
	for _, path := range []string{"/v2/myapp/manifests/1", "/v2/library/myapp/manifests/" + a.digest()} {
		if got := r.want(200, "GET", path, nil); !bytes.Equal(got.body, a.manifest) {
			t.Errorf("%s is %s", path, got.body)
		}
	}
	for _, b := range append(a.blobs, img.Layers...) { // by their diffIDs, too
		if got := r.want(200, "GET", "/v2/myapp/blobs/"+digestOf(b), nil); !bytes.Equal(got.body, b) {
			t.Errorf("blob %s has %d bytes", digestOf(b), len(got.body))
		}
	}
	if left := r.keys("run/uploads/"); len(left) > 0 {
		t.Errorf("a push leaves %s", left)
	}
	if left := r.keys("run/leases/"); len(left) > 0 {
		t.Errorf("a push leaves %s", left)
	}
	// The same, with plain layers: those are stored as the remote stores layers.
	plain := testImage(t, "plain")
	r.pushed("plain", "1", artifact{plain.Manifest(), append([][]byte{plain.Config}, plain.Layers...)})
	r.pulled("plain:1", plain)
	if keys := r.keys("images/" + image.DigestOf(plain.Layers[1]).Hex()); !slices.Contains(keys, "images/"+image.DigestOf(plain.Layers[1]).Hex()+"/layer.tar.lz4") {
		t.Errorf("a plain layer is stored as %s", keys)
	}
}

// TestBlobIsNoManifest: a config that has come, and whose manifest has not, is none.
func TestBlobIsNoManifest(t *testing.T) {
	r := open(t, mem.New())
	a := gzipped(t, testImage(t, "app"))
	for _, b := range a.blobs {
		r.upload("myapp", b)
		r.refused(404, "MANIFEST_UNKNOWN", "GET", "/v2/myapp/manifests/"+digestOf(b), nil)
	}
}

// TestUploads: the ways to send a blob.
func TestUploads(t *testing.T) {
	r := open(t, mem.New())
	other := open(t, r.store) // another process, over the same remote
	begin := func() string { return r.want(202, "POST", "/v2/a/blobs/uploads/", nil).header.Get("Location") }
	blob := func(name string) []byte { return remotetest.Noise(name, 5000) }
	check := func(b []byte) {
		t.Helper()
		if got := r.want(200, "GET", "/v2/a/blobs/"+digestOf(b), nil); !bytes.Equal(got.body, b) {
			t.Errorf("%d other bytes", len(got.body))
		}
	}
	at := func(b []byte, path string, size int) string {
		t.Helper()
		if got := r.want(204, "GET", path, nil); got.header.Get("Range") != fmt.Sprintf("0-%d", size-1) {
			t.Errorf("%d bytes are there, and Range is %q", size, got.header.Get("Range"))
		}
		return path + "?digest=" + digestOf(b)
	}

	t.Run("one request", func(*testing.T) {
		b := blob("post")
		got := r.want(201, "POST", "/v2/a/blobs/uploads/?digest="+digestOf(b), bytes.NewReader(b))
		if got.header.Get("Location") != "/v2/a/blobs/"+digestOf(b) || got.header.Get("Docker-Content-Digest") != digestOf(b) {
			t.Errorf("the answer has %v", got.header)
		}
		check(b)
	})
	t.Run("stream", func(*testing.T) {
		b := blob("stream")
		path := begin()
		got := r.want(202, "PATCH", path, struct{ io.Reader }{bytes.NewReader(b)}) // of unknown length
		r.want(201, "PUT", at(b, got.header.Get("Location"), len(b)), nil)
		check(b)
	})
	t.Run("chunks, over two servers", func(*testing.T) {
		b := blob("chunks")
		path := begin()
		r.want(202, "PATCH", path, bytes.NewReader(b[:2000]), "Content-Range", "0-1999")
		for _, wrong := range []string{"0-999", "1000-1999", "2001-3000", "3000-3999"} {
			first, last, _ := strings.Cut(wrong, "-")
			var from, to int
			if _, err := fmt.Sscan(first, &from); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Sscan(last, &to); err != nil {
				t.Fatal(err)
			}
			got := other.refused(416, "BLOB_UPLOAD_INVALID", "PATCH", path, bytes.NewReader(b[from:to+1]), "Content-Range", wrong)
			if got.header.Get("Range") != "0-1999" || got.header.Get("Location") != path {
				t.Errorf("after a chunk out of order the answer has %v", got.header)
			}
		}
		other.want(202, "PATCH", path, bytes.NewReader(b[2000:4000]), "Content-Range", "2000-3999")
		r.want(201, "PUT", at(b, path, 4000), bytes.NewReader(b[4000:]), "Content-Range", "4000-4999")
		check(b)
		r.refused(404, "BLOB_UPLOAD_UNKNOWN", "GET", path, nil)
	})
	t.Run("empty", func(*testing.T) {
		path := begin()
		r.want(201, "PUT", path+"?digest="+digestOf(nil), nil)
		check([]byte{})
	})
	t.Run("cancel", func(*testing.T) {
		path := begin()
		r.want(202, "PATCH", path, bytes.NewReader(blob("cancel")))
		other.want(204, "DELETE", path, nil)
		r.refused(404, "BLOB_UPLOAD_UNKNOWN", "PATCH", path, bytes.NewReader(blob("cancel")))
		r.refused(404, "BLOB_UPLOAD_UNKNOWN", "DELETE", path, nil)
	})
	t.Run("mount", func(*testing.T) {
		b := blob("post")
		got := r.want(201, "POST", "/v2/b/blobs/uploads/?from=a&mount="+digestOf(b), nil)
		if got.header.Get("Location") != "/v2/b/blobs/"+digestOf(b) {
			t.Errorf("a mount answers with %v", got.header)
		}
		got = r.want(202, "POST", "/v2/b/blobs/uploads/?from=a&mount="+digestOf([]byte("none")), nil)
		if !strings.HasPrefix(got.header.Get("Location"), "/v2/b/blobs/uploads/") {
			t.Errorf("a mount of nothing answers with %v", got.header)
		}
		r.refused(404, "BLOB_UPLOAD_UNKNOWN", "GET", strings.Replace(got.header.Get("Location"), "/b/", "/c/", 1), nil) // of another repository
		r.refused(400, "DIGEST_INVALID", "POST", "/v2/b/blobs/uploads/?from=a&mount=x", nil)
	})
	t.Run("there already", func(*testing.T) {
		b := blob("post")
		r.want(201, "PUT", begin()+"?digest="+digestOf(b), bytes.NewReader(b))
		r.refused(400, "DIGEST_INVALID", "PUT", begin()+"?digest="+digestOf(b), bytes.NewReader(b[1:]))
		check(b)
	})
	t.Run("wrong", func(*testing.T) {
		b, want := blob("wrong"), digestOf([]byte("other"))
		r.refused(400, "DIGEST_INVALID", "POST", "/v2/a/blobs/uploads/?digest="+want, bytes.NewReader(b))
		r.refused(400, "DIGEST_INVALID", "PUT", begin()+"?digest="+want, bytes.NewReader(b))
		path := begin()
		r.want(202, "PATCH", path, bytes.NewReader(b))
		r.refused(400, "DIGEST_INVALID", "PUT", path+"?digest="+want, nil)
		r.refused(404, "BLOB_UPLOAD_UNKNOWN", "GET", path, nil) // it is of no use
		r.refused(404, "BLOB_UNKNOWN", "GET", "/v2/a/blobs/"+want, nil)
		path = begin()
		r.refused(400, "DIGEST_INVALID", "PUT", path, bytes.NewReader(b))
		r.refused(400, "SIZE_INVALID", "PATCH", path, bytes.NewReader(b), "Content-Range", "0-9")
		r.refused(400, "SIZE_INVALID", "PATCH", path, struct{ io.Reader }{bytes.NewReader(b)}, "Content-Range", "0-9999")
		r.refused(400, "BLOB_UPLOAD_INVALID", "PATCH", path, bytes.NewReader(b), "Content-Range", "9-0")
	})
}

// TestBrokenUpload: of a body that breaks off whole pieces may stay, and the rest is
// sent behind them.
func TestBrokenUpload(t *testing.T) {
	r := open(t, mem.New())
	blob := remotetest.Noise("broken", 9000)
	path := r.want(202, "POST", "/v2/a/blobs/uploads/", nil).header.Get("Location")
	r.want(202, "PATCH", path, bytes.NewReader(blob[:3000]))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, r.url+path, io.MultiReader(bytes.NewReader(blob[3000:5000]), failing{}))
	if err != nil {
		t.Fatal(err)
	}
	if res, err := r.client.Do(req); err == nil {
		res.Body.Close()
		t.Error("a request whose body breaks off succeeds")
	}
	var there int
	if _, err := fmt.Sscanf(r.want(204, "GET", path, nil).header.Get("Range"), "0-%d", &there); err != nil {
		t.Fatal(err)
	}
	r.want(201, "PUT", path+"?digest="+digestOf(blob), bytes.NewReader(blob[there+1:]))
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestBadManifests: what is refused, and why; and that nothing of it is tagged.
func TestBadManifests(t *testing.T) {
	r := open(t, mem.New())
	img := testImage(t, "app")
	a := gzipped(t, img)
	for _, b := range a.blobs {
		r.upload("myapp", b)
	}
	config := describe("application/vnd.oci.image.config.v1+json", img.Config)
	layer := describe("application/vnd.oci.image.layer.v1.tar+gzip", a.blobs[1])
	second := describe("application/vnd.oci.image.layer.v1.tar+gzip", a.blobs[2])
	absent := describe("application/vnd.oci.image.layer.v1.tar", []byte("absent"))
	foreign := absent
	foreign.URLs = []string{"https://elsewhere.example/layer"}
	const name = "/v2/myapp/manifests/bad"
	for _, c := range []struct {
		what, code string
		doc        []byte
	}{
		{"no JSON", "MANIFEST_INVALID", []byte("hello")},
		{"a config", "MANIFEST_INVALID", img.Config},
		{"a mixture", "MANIFEST_INVALID", manifestOf(t, config, []descriptor{layer, second}, map[string]any{"manifests": []string{}})},
		{"schema version 1", "MANIFEST_INVALID", []byte(`{"schemaVersion":1,"fsLayers":[],"history":[]}`)},
		{"a layer elsewhere", "MANIFEST_INVALID", manifestOf(t, config, []descriptor{layer, foreign}, nil)},
		{"a layer that is missing", "MANIFEST_BLOB_UNKNOWN", manifestOf(t, config, []descriptor{layer, absent}, nil)},
		{"a config that is missing", "MANIFEST_BLOB_UNKNOWN", manifestOf(t, absent, []descriptor{layer}, nil)},
		{"too few layers", "MANIFEST_INVALID", manifestOf(t, config, []descriptor{layer}, nil)},
		{"a layer for a config", "MANIFEST_INVALID", manifestOf(t, layer, []descriptor{layer}, nil)},
		{"an index of nothing that is there", "MANIFEST_BLOB_UNKNOWN", indexOf(t, absent)},
		{"a subject without a digest", "MANIFEST_INVALID", manifestOf(t, config, []descriptor{layer, second}, map[string]any{"subject": map[string]any{"size": 1}})},
	} {
		t.Run(c.what, func(*testing.T) {
			r.refused(400, c.code, "PUT", name, bytes.NewReader(c.doc))
			r.refused(400, c.code, "PUT", "/v2/myapp/manifests/"+digestOf(c.doc), bytes.NewReader(c.doc))
		})
	}
	got := r.do("PUT", name, bytes.NewReader(manifestOf(t, config, []descriptor{layer, absent}, nil)))
	if !strings.Contains(string(got.body), absent.Digest) || strings.Contains(string(got.body), layer.Digest) {
		t.Errorf("what is missing is told as %s", got.body)
	}
	r.refused(400, "DIGEST_INVALID", "PUT", "/v2/myapp/manifests/"+digestOf([]byte("other")), bytes.NewReader(a.manifest))
	r.refused(400, "TAG_INVALID", "PUT", "/v2/myapp/manifests/-tag", bytes.NewReader(a.manifest))
	r.refused(400, "MANIFEST_INVALID", "PUT", name, bytes.NewReader(a.manifest), "Content-Type", "application/vnd.oci.image.index.v1+json")
	r.refused(413, "SIZE_INVALID", "PUT", name, io.MultiReader(bytes.NewReader(a.manifest), strings.NewReader(strings.Repeat(" ", image.MaxDocument))))
	r.refused(404, "MANIFEST_UNKNOWN", "GET", name, nil)

	// A name that cannot live beside another one.
	r.pushed("team/app", "1", a)
	r.refused(403, "DENIED", "PUT", "/v2/team/manifests/app", bytes.NewReader(a.manifest))
}

func indexOf(t testing.TB, manifests ...descriptor) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPushIndex: those manifests of an index are marked that are there.
func TestPushIndex(t *testing.T) {
	r := open(t, mem.New())
	one, two := gzipped(t, testImage(t, "one")), gzipped(t, testImage(t, "two"))
	r.pushed("many", one.digest(), one)
	r.pushed("many", two.digest(), two)
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	absent := describe(mediaType, []byte("absent"))
	index := artifact{manifest: indexOf(t, describe(mediaType, one.manifest), describe(mediaType, two.manifest), absent)}
	r.pushed("many", "1", index)
	held, err := r.repo.Held(t.Context(), image.DigestOf(index.manifest))
	if err != nil || len(held) != 2 {
		t.Errorf("%d manifests are held, %v", len(held), err)
	}
	if got := r.want(200, "GET", "/v2/many/manifests/1", nil); !bytes.Equal(got.body, index.manifest) {
		t.Errorf("the index is %s", got.body)
	}
	r.want(404, "GET", "/v2/many/manifests/"+absent.Digest, nil)
	// A manifest of it cannot be deleted alone, while there is a tag on it.
	r.refused(409, "DENIED", "DELETE", "/v2/many/manifests/"+one.digest(), nil)
	r.want(202, "DELETE", "/v2/many/manifests/"+index.digest(), nil)
	r.want(404, "GET", "/v2/many/manifests/1", nil)
	r.want(200, "GET", "/v2/many/manifests/"+one.digest(), nil) // it was put there
	r.want(202, "DELETE", "/v2/many/manifests/"+one.digest(), nil)
	r.want(404, "GET", "/v2/many/manifests/"+one.digest(), nil)
	r.want(200, "GET", "/v2/many/manifests/"+two.digest(), nil)
}

// TestDelete: a tag alone, a manifest with its tags, and an image that has only a
// config; what was written meanwhile stays.
func TestDelete(t *testing.T) {
	r := open(t, mem.New())
	a, b := gzipped(t, testImage(t, "a")), gzipped(t, testImage(t, "b"))
	for _, tag := range []string{"1", "2", "3"} {
		r.pushed("app", tag, a)
	}
	r.pushed("app", "other", b)
	r.pushed("elsewhere", "1", a)
	r.want(202, "DELETE", "/v2/app/manifests/3", nil)
	r.refused(404, "MANIFEST_UNKNOWN", "DELETE", "/v2/app/manifests/3", nil)
	r.want(200, "GET", "/v2/app/manifests/"+a.digest(), nil)
	r.want(202, "DELETE", "/v2/app/manifests/"+a.digest(), nil)
	r.refused(404, "MANIFEST_UNKNOWN", "DELETE", "/v2/app/manifests/"+a.digest(), nil)
	for path, want := range map[string]int{
		"/v2/app/manifests/1": 404, "/v2/app/manifests/2": 404, "/v2/app/manifests/" + a.digest(): 404,
		"/v2/app/manifests/other": 200, "/v2/elsewhere/manifests/1": 200, "/v2/elsewhere/manifests/" + a.digest(): 200,
	} {
		r.want(want, "GET", path, nil)
	}
	img := testImage(t, "classic")
	r.push("classic:1", img)
	r.push("classic:2", img)
	r.want(202, "DELETE", "/v2/classic/manifests/"+digestOf(img.Manifest()), nil)
	r.want(404, "GET", "/v2/classic/manifests/1", nil)
	r.want(404, "GET", "/v2/classic/manifests/2", nil)
	r.want(404, "GET", "/v2/classic/manifests/"+digestOf(img.Manifest()), nil)
	// A tag that is damaged can be deleted too.
	r.put("repositories/app/torn", []byte("nonsense"))
	r.want(202, "DELETE", "/v2/app/manifests/torn", nil)
	r.want(404, "GET", "/v2/app/manifests/torn", nil)
}

// TestReadOnly: nothing can be written.
func TestReadOnly(t *testing.T) {
	r := open(t, mem.New())
	a := gzipped(t, testImage(t, "a"))
	r.pushed("app", "1", a)
	ro := open(t, r.store, func(s *settings) { s.readOnly = true })
	before := r.keys("")
	for method, path := range map[string]string{
		"POST": "/v2/app/blobs/uploads/", "PUT": "/v2/app/manifests/2", "PATCH": "/v2/app/blobs/uploads/1", "DELETE": "/v2/app/manifests/1",
	} {
		ro.refused(405, "UNSUPPORTED", method, path, bytes.NewReader(a.manifest))
	}
	ro.want(200, "GET", "/v2/app/manifests/1", nil)
	ro.want(200, "GET", "/v2/app/manifests/"+a.digest(), nil)
	if after := r.keys(""); !slices.Equal(before, after) {
		t.Errorf("a read-only server has changed the remote from %s to %s", before, after)
	}
}

// TestMending: what a push has to write again is not there for a client that asks
// whether it has to.
func TestMending(t *testing.T) {
	r := open(t, mem.New(), storedAs(codec.None))
	img := testImage(t, "app")
	a := gzipped(t, img)
	r.pushed("app", "1", a)
	layer := image.DigestOf(a.blobs[1])
	key := "images/" + layer.Hex() + "/blob"
	r.put(key, r.read(key)[:1000])
	r.want(404, "HEAD", "/v2/app/blobs/"+layer.String(), nil)
	r.want(202, "POST", "/v2/app/blobs/uploads/?from=app&mount="+layer.String(), nil)
	r.refused(400, "MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/app/manifests/1", bytes.NewReader(a.manifest))
	document := "images/" + image.DigestOf(a.manifest).Hex() + "/json"
	r.flip(document)
	r.want(404, "HEAD", "/v2/app/manifests/1", nil)
	r.refused(500, "UNKNOWN", "GET", "/v2/app/manifests/1", nil)
	r.pushed("app", "1", a)
	r.pulled("app:1", img)
}

// TestOtherServer: what one server remembers, another one may have changed.
func TestOtherServer(t *testing.T) {
	r := open(t, mem.New())
	other := open(t, r.store)
	img := testImage(t, "app")
	r.push("app:1", img) // by dogestry: the repository has it by its tag alone
	path := "/v2/app/manifests/" + digestOf(img.Manifest())
	r.want(200, "GET", path, nil)
	other.want(202, "DELETE", "/v2/app/manifests/1", nil)
	r.want(404, "GET", path, nil)
	other.push("app:2", img)
	r.want(200, "GET", path, nil)
	other.push("app:2", testImage(t, "moved"))
	r.want(404, "GET", path, nil)
}

// TestLyingConfig: a manifest whose config says other diffIDs than its layers have
// is taken, as registries do; but not one that lacks a layer.
func TestLyingConfig(t *testing.T) {
	r := open(t, mem.New())
	a := gzipped(t, testImage(t, "app"))
	lie := remotetest.NewImage(t, "lie", []byte("no layer"), []byte("has this"))
	a.blobs[0] = lie.Config
	a.manifest = manifestOf(t, describe("application/vnd.oci.image.config.v1+json", lie.Config), []descriptor{
		describe("application/vnd.oci.image.layer.v1.tar+gzip", a.blobs[1]), describe("application/vnd.oci.image.layer.v1.tar+gzip", a.blobs[2]),
	}, nil)
	r.pushed("app", "1", a)
	r.want(200, "GET", "/v2/app/manifests/"+a.digest(), nil)
	layer := image.DigestOf(a.blobs[1])
	for _, key := range r.keys("images/" + layer.Hex()) {
		if err := r.store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.repo.Tag(t.Context(), remotetest.Ref(t, "app:2"), image.DigestOf(a.manifest)); err == nil {
		t.Error("a manifest that lacks a layer is tagged")
	}
}
