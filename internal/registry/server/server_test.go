package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/server"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// registry is a server over a store, and a client of it.
type registry struct {
	*testing.T
	store  storage.Store
	repo   *repo.Repo
	url    string
	client *http.Client
}

// settings are what open may be asked to change.
type settings struct {
	server   server.Options
	repo     repo.Options
	readOnly bool
}

func mirrorOf(names ...string) func(*settings) {
	return func(s *settings) { s.server.Mirrors = names }
}

func storedAs(c codec.Codec) func(*settings) { return func(s *settings) { s.repo.Codec = c } }

// open serves what a store holds.
func open(t *testing.T, store storage.Store, changes ...func(*settings)) *registry {
	t.Helper()
	o := settings{
		server: server.Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil))},
		repo:   repo.Options{Name: "the remote", Codec: codec.LZ4, NoWait: true},
	}
	for _, change := range changes {
		change(&o)
	}
	in, err := repo.Open(t.Context(), store, o.repo)
	if err != nil {
		t.Fatal(err)
	}
	if o.server.From = in; !o.readOnly {
		o.server.To = in
	}
	s := httptest.NewUnstartedServer(server.New(o.server))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // what is aborted on purpose
	s.Start()
	t.Cleanup(s.Close)
	return &registry{T: t, store: store, repo: in, url: s.URL, client: s.Client()}
}

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // of the body
}

// do sends a request; headers are pairs of name and value.
func (r *registry) do(method, path string, body io.Reader, headers ...string) answer {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, r.url+path, body)
	if err != nil {
		r.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, b, err}
}

func (r *registry) get(path string, headers ...string) answer {
	r.Helper()
	return r.do(http.MethodGet, path, nil, headers...)
}

// want does a request that must have this status.
func (r *registry) want(status int, method, path string, body io.Reader, headers ...string) answer {
	r.Helper()
	a := r.do(method, path, body, headers...)
	if a.status != status {
		r.Errorf("%s %s: %d, want %d: %.500s", method, path, a.status, status, a.body)
	}
	return a
}

// refused does a request that must fail with this status and code.
func (r *registry) refused(status int, code, method, path string, body io.Reader, headers ...string) answer {
	r.Helper()
	a := r.want(status, method, path, body, headers...)
	var doc struct {
		Errors []struct {
			Code, Message string
			Detail        any
		}
	}
	if err := json.Unmarshal(a.body, &doc); err != nil || len(doc.Errors) == 0 || doc.Errors[0].Code != code {
		r.Errorf("%s %s: the error is %.500s, want %s", method, path, a.body, code)
	}
	return a
}

// push brings an image into the remote as dogestry does.
func (r *registry) push(ref string, img remotetest.Image) {
	r.Helper()
	if _, err := remotetest.Push(r.Context(), r.repo, remotetest.Ref(r, ref), img); err != nil {
		r.Fatal(err)
	}
}

func digestOf(b []byte) string { return image.DigestOf(b).String() }

// put writes an object of the store.
func (r *registry) put(key string, content []byte) {
	r.Helper()
	if err := r.store.Put(r.Context(), key, bytes.NewReader(content)); err != nil {
		r.Fatal(err)
	}
}

// read returns an object of the store.
func (r *registry) read(key string) []byte {
	r.Helper()
	b, err := storage.Read(r.Context(), r.store, key, 1<<30)
	if err != nil {
		r.Fatal(err)
	}
	return b
}

// keys returns those of the store that begin so.
func (r *registry) keys(prefix string) (keys []string) {
	r.Helper()
	for info, err := range r.store.List(r.Context(), prefix) {
		if err != nil {
			r.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// flip damages the byte in the middle of an object.
func (r *registry) flip(key string) {
	r.Helper()
	b := bytes.Clone(r.read(key))
	b[len(b)/2] ^= 1
	r.put(key, b)
}

func testImage(t testing.TB, name string) remotetest.Image {
	return remotetest.NewImage(t, name, remotetest.FileLayer(t, "base", string(remotetest.Noise("base", 300_000))), remotetest.FileLayer(t, name, name))
}

// TestPull: what dogestry has pushed from a classic store is there as an image with
// plain layers, by its tag and by its digest.
func TestPull(t *testing.T) {
	for _, c := range []codec.Codec{codec.LZ4, codec.Zstd, codec.None} {
		t.Run(c.Name(), func(t *testing.T) {
			r := open(t, mem.New(), storedAs(c))
			img := testImage(t, "app")
			r.push("myapp:1", img)
			if got := r.want(200, "GET", "/v2/", nil); string(got.body) != "{}" {
				t.Errorf("the base answers %s", got.body)
			}
			manifest := img.Manifest()
			for _, path := range []string{"/v2/myapp/manifests/1", "/v2/library/myapp/manifests/1", "/v2/myapp/manifests/" + digestOf(manifest)} {
				got := r.want(200, "GET", path, nil)
				if !bytes.Equal(got.body, manifest) {
					t.Errorf("%s is %s", path, got.body)
				}
				for name, want := range map[string]string{
					"Content-Type": "application/vnd.oci.image.manifest.v1+json", "Docker-Content-Digest": digestOf(manifest), "Etag": `"` + digestOf(manifest) + `"`,
				} {
					if got.header.Get(name) != want {
						t.Errorf("%s: %s is %q, want %q", path, name, got.header.Get(name), want)
					}
				}
				head := r.want(200, "HEAD", path, nil)
				if head.header.Get("Content-Length") != got.header.Get("Content-Length") || head.header.Get("Docker-Content-Digest") != digestOf(manifest) {
					t.Errorf("HEAD %s answers %v", path, head.header)
				}
				r.want(304, "GET", path, nil, "If-None-Match", got.header.Get("Etag"))
			}
			for _, blob := range append(append([][]byte{}, img.Layers...), img.Config) {
				path := "/v2/myapp/blobs/" + digestOf(blob)
				got := r.want(200, "GET", path, nil)
				if got.err != nil || !bytes.Equal(got.body, blob) {
					t.Errorf("%s has %d bytes (%v), want %d", path, len(got.body), got.err, len(blob))
				}
				head := r.want(200, "HEAD", path, nil)
				if head.header.Get("Content-Length") != got.header.Get("Content-Length") || head.header.Get("Accept-Ranges") != "bytes" {
					t.Errorf("HEAD %s answers %v", path, head.header)
				}
				r.want(304, "GET", path, nil, "If-None-Match", `"x", W/"`+digestOf(blob)+`"`)
			}
		})
	}
}

// TestNothing: what is not there, or no name, is told with its code.
func TestNothing(t *testing.T) {
	r := open(t, mem.New())
	img := testImage(t, "app")
	r.push("myapp:1", img)
	r.push("team/other:1", testImage(t, "other"))
	none := digestOf([]byte("none"))
	for _, c := range []struct {
		status int
		code   string
		path   string
	}{
		{404, "MANIFEST_UNKNOWN", "/v2/myapp/manifests/2"},
		{404, "MANIFEST_UNKNOWN", "/v2/nothing/manifests/1"},
		{404, "MANIFEST_UNKNOWN", "/v2/myapp/manifests/" + none},
		{404, "MANIFEST_UNKNOWN", "/v2/team/other/manifests/" + digestOf(img.Manifest())}, // another repository's
		{404, "MANIFEST_UNKNOWN", "/v2/myapp/manifests/" + digestOf(img.Config)},          // no manifest
		{404, "MANIFEST_UNKNOWN", "/v2/myapp/manifests/-tag"},
		{404, "BLOB_UNKNOWN", "/v2/myapp/blobs/" + none},
		{400, "DIGEST_INVALID", "/v2/myapp/blobs/sha256:12"},
		{400, "DIGEST_INVALID", "/v2/myapp/manifests/sha256:12"},
		{400, "DIGEST_INVALID", "/v2/myapp/manifests/sha512:" + strings.Repeat("ab", 64)},
		{400, "NAME_INVALID", "/v2/My/manifests/1"},
		{400, "NAME_INVALID", "/v2/a//b/manifests/1"},
		{400, "NAME_INVALID", "/v2/" + strings.Repeat("a", 64) + strings.Repeat("/aaaaaaaaa", 20) + "/manifests/1"},
		{404, "NAME_UNKNOWN", "/v2/nothing/tags/list"},
		{404, "UNSUPPORTED", "/v2/myapp/else"},
		{404, "UNSUPPORTED", "/v1/search"},
	} {
		r.refused(c.status, c.code, "GET", c.path, nil)
	}
	if got := r.want(404, "HEAD", "/v2/myapp/manifests/2", nil); len(got.body) > 0 {
		t.Errorf("the answer to a HEAD has the body %s", got.body)
	}
	r.refused(405, "UNSUPPORTED", "POST", "/v2/", nil)
	r.refused(405, "UNSUPPORTED", "DELETE", "/v2/myapp/blobs/"+digestOf(img.Layers[0]), nil)
	r.refused(405, "UNSUPPORTED", "PUT", "/v2/myapp/tags/list", nil)
}

// TestNames: which names are those of the specification.
func TestNames(t *testing.T) {
	r := open(t, mem.New())
	for name, ok := range map[string]bool{
		"a": true, "a/b/c": true, "a.b/c": true, "a_b": true, "a__b": true, "a---b": true, "0/1": true,
		"a___b": false, "a..b": false, "a._b": false, "-a": false, "a-": false, "a/-b": false, "A": false, "a:1": false, "a b": false, "ä": false,
	} {
		want := 404
		if !ok {
			want = 400
		}
		r.want(want, "GET", (&urlPath{"/v2/" + name + "/manifests/1"}).String(), nil)
	}
}

// urlPath escapes a path.
type urlPath struct{ path string }

func (p *urlPath) String() string {
	return strings.NewReplacer(" ", "%20", "ä", "%C3%A4").Replace(p.path)
}

// TestMirror: which registries' names are answered.
func TestMirror(t *testing.T) {
	store := mem.New()
	img, other, team := testImage(t, "debian"), testImage(t, "quay"), testImage(t, "team")
	r := open(t, store)
	r.push("debian:bookworm", img)
	r.push("quay.io/org/tool:1", other)
	r.push("team/app:1", team)
	r.push("localhost:5000/app:1", team)
	for path, want := range map[string]int{
		"/v2/library/debian/manifests/bookworm": 200, "/v2/debian/manifests/bookworm": 200,
		"/v2/quay.io/org/tool/manifests/1": 200, "/v2/org/tool/manifests/1": 404,
		"/v2/library/debian/manifests/bookworm?ns=docker.io": 404, // it is no mirror of it
		"/v2/org/tool/manifests/1?ns=quay.io":                404,
	} {
		r.want(want, "GET", path, nil)
	}
	r.want(200, "GET", "/v2/debian/manifests/bookworm?ns=here.example:5000", nil, "Host", "here.example:5000")

	m := open(t, store, mirrorOf("docker.io", "quay.io", "localhost:5000"))
	for path, want := range map[string]int{
		"/v2/library/debian/manifests/bookworm?ns=docker.io":       200,
		"/v2/library/debian/manifests/bookworm?ns=index.docker.io": 200,
		"/v2/team/app/manifests/1?ns=docker.io":                    200,
		"/v2/org/tool/manifests/1?ns=quay.io":                      200,
		"/v2/app/manifests/1?ns=localhost:5000":                    200,
		"/v2/org/tool/manifests/1?ns=docker.io":                    404,
		"/v2/quay.io/org/tool/manifests/1?ns=docker.io":            404,
		"/v2/org/tool/manifests/1?ns=ghcr.io":                      404,
	} {
		m.want(want, "GET", path, nil)
	}
}

// TestIndex: of an index all that is held can be asked for, by its digest.
func TestIndex(t *testing.T) {
	r := open(t, mem.New())
	img := testImage(t, "app")
	manifest := img.Manifest()
	index := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + digestOf(manifest) + `","size":1},` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + digestOf([]byte("absent")) + `","size":1}]}`)
	if err := remotetest.Put(t.Context(), r.repo, img, img.Closure()); err != nil {
		t.Fatal(err)
	}
	for _, doc := range [][]byte{manifest, index} {
		if err := r.repo.PutDocument(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
	}
	id := image.DigestOf(index)
	if err := r.repo.Hold(t.Context(), id, []image.Digest{image.DigestOf(manifest)}); err != nil {
		t.Fatal(err)
	}
	if err := r.repo.Tag(t.Context(), remotetest.Ref(t, "many:1"), id); err != nil {
		t.Fatal(err)
	}
	got := r.want(200, "GET", "/v2/many/manifests/1", nil)
	if !bytes.Equal(got.body, index) || got.header.Get("Content-Type") != "application/vnd.oci.image.index.v1+json" {
		t.Errorf("the index is %s, %v", got.body, got.header)
	}
	for path, want := range map[string]int{
		"/v2/many/manifests/" + digestOf(index):            200,
		"/v2/many/manifests/" + digestOf(manifest):         200,
		"/v2/many/manifests/" + digestOf([]byte("absent")): 404,
		"/v2/few/manifests/" + digestOf(manifest):          404,
	} {
		r.want(want, "GET", path, nil)
		if fresh := open(t, r.store); fresh != nil {
			fresh.want(want, "GET", path, nil)
		}
	}
}

// TestDamage: a damaged layer breaks the connection off before its last byte, and
// a damaged document is an error.
func TestDamage(t *testing.T) {
	var told atomic.Int64
	tell := func(s *settings) { s.server.Damage = func(error) { told.Add(1) } }
	r := open(t, mem.New(), tell, storedAs(codec.None))
	img := testImage(t, "app")
	r.push("myapp:1", img)
	layer := image.DigestOf(img.Layers[0])
	r.flip("images/" + layer.Hex() + "/layer.tar")
	for range 2 { // also when it is asked for again
		got := r.get("/v2/myapp/blobs/" + layer.String())
		if got.err == nil || len(got.body) >= len(img.Layers[0]) {
			t.Errorf("a damaged layer came with %d of %d bytes, %v", len(got.body), len(img.Layers[0]), got.err)
		}
	}
	r.refused(500, "UNKNOWN", "GET", "/v2/myapp/blobs/"+layer.String(), nil, "Range", "bytes=0-9")
	r.flip("images/" + img.ID.Hex() + "/json")
	r.refused(500, "UNKNOWN", "GET", "/v2/myapp/manifests/1", nil)
	if n := told.Load(); n != 4 {
		t.Errorf("damage was told %d times, want 4", n)
	}
	if body := r.get("/v2/myapp/manifests/1").body; bytes.Contains(body, []byte("the remote")) {
		t.Errorf("the client is told how things are inside: %s", body)
	}
}

// TestGone: parts of an entry are no blob.
func TestGone(t *testing.T) {
	r := open(t, mem.New())
	img := testImage(t, "app")
	r.push("myapp:1", img)
	layer := image.DigestOf(img.Layers[0])
	if err := r.store.Delete(t.Context(), "images/"+layer.Hex()+"/layer.tar.lz4"); err != nil {
		t.Fatal(err)
	}
	r.refused(404, "BLOB_UNKNOWN", "GET", "/v2/myapp/blobs/"+layer.String(), nil)
}

// fetch opens a blob, or bytes 7 to 999 of it.
func (r *registry) fetch(url string, ranged bool) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if ranged {
		req.Header.Set("Range", "bytes=7-999")
	}
	res, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// unsized is a remote that does not know how large its layers are.
type unsized struct{ *repo.Repo }

func (u unsized) Look(ctx context.Context, c remote.Closure, known map[image.Digest]remote.Layer) (*remote.Found, error) {
	found, err := u.Repo.Look(ctx, c, known)
	if err == nil {
		for id, l := range found.Layers {
			l.Size = -1
			found.Layers[id] = l
		}
	}
	return found, err
}

// TestUnsized: a layer whose size is not known comes in chunks, and damage is an end
// that is none.
func TestUnsized(t *testing.T) {
	writer := open(t, mem.New(), storedAs(codec.None))
	img := testImage(t, "app")
	writer.push("myapp:1", img)
	s := httptest.NewUnstartedServer(server.New(server.Options{From: unsized{writer.repo}}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Start()
	t.Cleanup(s.Close)
	r := &registry{T: t, store: writer.store, repo: writer.repo, url: s.URL, client: s.Client()}
	path := "/v2/myapp/blobs/" + digestOf(img.Layers[0])
	for _, headers := range [][]string{nil, {"Range", "bytes=0-9"}} {
		if got := r.want(200, "GET", path, nil, headers...); !bytes.Equal(got.body, img.Layers[0]) || got.header.Get("Content-Length") != "" {
			t.Errorf("%d bytes, %v", len(got.body), got.header)
		}
	}
	if got := r.want(200, "GET", "/v2/myapp/manifests/1", nil); !bytes.Equal(got.body, img.Manifest()) {
		t.Errorf("the manifest is %s", got.body)
	}
	r.flip("images/" + image.DigestOf(img.Layers[0]).Hex() + "/layer.tar")
	if got := r.get(path); got.status == 200 && got.err == nil {
		t.Errorf("a damaged layer came whole, with %d bytes", len(got.body))
	}
	connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if _, err := io.WriteString(connection, "GET "+path+" HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if old, err := io.ReadAll(connection); err != nil || !strings.Contains(string(old), " 505 ") {
		t.Errorf("HTTP/1.0 is answered with %.200q, %v", old, err)
	}
}
