package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
)

// fake is an engine that speaks as little of the API as dogestry needs, and gives the answers that a test wants.
type fake struct {
	export http.HandlerFunc // GET /images/get
	load   http.HandlerFunc // POST /images/load
	// images are what the engine has: an ID and its layers, and the tags it goes by.
	images map[string]fakeImage
	driver [][2]string // GET /info, DriverStatus
	id     string      // GET /info, ID

	inspects, exports atomic.Int32
}

type fakeImage struct {
	layers  []string
	tags    []string
	digests []string
	created int64
}

var versionPrefix = regexp.MustCompile(`^/v1\.\d+`)

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := versionPrefix.ReplaceAllString(r.URL.Path, "")
	switch {
	case path == "/_ping":
		w.Header().Set("Api-Version", "1.41")
	case path == "/info":
		answerJSON(w, http.StatusOK, map[string]any{"DriverStatus": f.driver, "ID": f.id, "Name": "machine", "DockerRootDir": "/data", "Driver": "overlay2"})
	case path == "/version":
		answerJSON(w, http.StatusOK, map[string]any{})
	case path == "/images/get" && f.export != nil:
		f.exports.Add(1)
		f.export(w, r)
	case path == "/images/load" && f.load != nil:
		f.load(w, r)
	case path == "/images/json":
		list := []map[string]any{}
		for id, i := range f.images {
			list = append(list, map[string]any{"Id": id, "RepoTags": i.tags, "RepoDigests": i.digests, "Created": i.created})
		}
		answerJSON(w, http.StatusOK, list)
	case strings.HasPrefix(path, "/images/") && strings.HasSuffix(path, "/json"):
		f.inspects.Add(1)
		id := strings.TrimSuffix(strings.TrimPrefix(path, "/images/"), "/json")
		i, ok := f.images[id]
		if !ok {
			answerJSON(w, http.StatusNotFound, map[string]string{"message": "No such image: " + id})
			return
		}
		answerJSON(w, http.StatusOK, map[string]any{"Id": id, "RepoTags": i.tags, "RootFS": map[string]any{"Type": "layers", "Layers": i.layers}})
	default:
		answerJSON(w, http.StatusInternalServerError, map[string]string{"message": "unexpected " + r.Method + " " + path})
	}
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// says is a handler that gives one answer.
func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// hangUp ends the connection in the middle of the answer.
func hangUp() { panic(http.ErrAbortHandler) }

// quiet is the log of fakes.
var quiet = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)

// start runs the fake on a unix socket and returns its URL.
func (f *fake) start(t testing.TB) string {
	t.Helper()
	socket := filepath.Join(shortDir(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: f, ReadHeaderTimeout: time.Minute, ErrorLog: quiet}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return "unix://" + socket
}

// shortDir is t.TempDir with a name that is short enough for a socket's path, and open to other users.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// connect starts the fake and connects to it.
func (f *fake) connect(t testing.TB) *Client {
	t.Helper()
	return connect(t, f.start(t))
}

func connect(t testing.TB, url string) *Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := Connect(ctx, Options{URL: url, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// described is what an engine would tell about a crafted image.
func described(t testing.TB, m *enginetest.Image) Image {
	t.Helper()
	img := Image{ID: mustDigest(t, m.ID()), Tags: m.Tags()}
	for _, d := range m.DiffIDs() {
		img.DiffIDs = append(img.DiffIDs, mustDigest(t, d))
	}
	return img
}

func mustDigest(t testing.TB, s string) image.Digest {
	t.Helper()
	d, err := image.ParseDigest(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// entry is a member of an export.
type entry struct {
	name string
	body []byte
	link string // of a symbolic link
	size int64  // if set, what the header says, whatever body is
}

// tarOf writes an archive. It ends without the end mark where an entry lies about its size.
func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: 0o644, Size: int64(len(e.body))}
		switch {
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		case e.size != 0:
			h.Size = e.size
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.body); err != nil {
			t.Fatal(err)
		}
		if e.size != 0 {
			return b.Bytes()
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// gives is an export of just these bytes.
func gives(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) }
}

// walked is what a walk through an export met.
type walked struct {
	config []byte
	layers map[image.DiffID]image.Digest // what each layer was said to be, and the digest of its bytes
	sizes  map[image.DiffID]int64
}

// walk reads an export to its end.
func walk(x *Export) (walked, error) {
	w := walked{layers: map[image.DiffID]image.Digest{}, sizes: map[image.DiffID]int64{}}
	defer x.Close()
	for {
		item, err := x.Next()
		if err == io.EOF {
			return w, nil
		}
		if err != nil {
			return w, err
		}
		if item.Document {
			if w.config, err = image.ReadDocument(item.Body, item.Digest); err != nil {
				return w, err
			}
			continue
		}
		sum, n, err := hashOf(item.Body)
		if err != nil {
			return w, err
		}
		w.layers[item.Digest] = sum
		w.sizes[item.Digest] = n
	}
}

func hashOf(r io.Reader) (image.Digest, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return image.Digest(h.Sum(nil)), n, err
}

// check fails the test unless all of the image was met, and nothing else.
func (w walked) check(t testing.TB, m *enginetest.Image) {
	t.Helper()
	if !bytes.Equal(w.config, m.Config()) {
		t.Errorf("config is %.200q, want %.200q", w.config, m.Config())
	}
	want := map[image.DiffID]bool{}
	for _, d := range m.DiffIDs() {
		want[mustDigest(t, d)] = true
	}
	for d := range want {
		if w.layers[d] != d {
			t.Errorf("layer %s has the bytes of %s", d.Short(), w.layers[d].Short())
		}
	}
	if len(w.layers) != len(want) {
		t.Errorf("%d layers, want %d", len(w.layers), len(want))
	}
}
