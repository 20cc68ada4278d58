package transfer

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
)

// classic is an engine with a classic image store, in memory: quick enough for loops, and it does as it is told to fail.
// What real engines do, tests on real engines prove.
type classic struct {
	mu      sync.Mutex
	images  map[image.ID]*classicImage
	exports int               // requests for one
	loads   int               // requests for one
	changed int               // requests that change anything
	bytes   int64             // of all archives that were sent to be loaded
	busy    map[net.Conn]bool // connections with a request
	socket  string            // where it serves, once it does

	// How it behaves. A test that changes this after a first request does so by now.
	spoil func(name string, content []byte) []byte // changes an entry of an export; nil leaves it out
	deny  map[string]string                        // method and path after the version → message of a 500
	lies  bool                                     // says that it has loaded, and has not

	// happens is told what comes of the load of an image of n layers: "begins", "layer" for each, "end", "answers". An error
	// is the load's; errCut cuts the connection off.
	happens func(n int, what string) error
}

type classicImage struct {
	config []byte
	layers [][]byte
	chain  []image.ChainID
	ids    []image.DiffID
	tags   map[string]bool
}

var errCut = errors.New("the connection is cut off")

func newClassic(images ...*enginetest.Image) *classic {
	c := &classic{images: map[image.ID]*classicImage{}, busy: map[net.Conn]bool{}}
	for _, m := range images {
		c.put(m)
	}
	return c
}

// now changes how the engine behaves. It may still be busy with a client that has gone.
func (c *classic) now(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

// put gives the engine an image with all its tags.
func (c *classic) put(m *enginetest.Image) {
	var layers [][]byte
	for _, l := range m.Layers() {
		layers = append(layers, l.Bytes())
	}
	i := c.keep(m.Config(), layers)
	for _, tag := range m.Tags() {
		c.tag(i, tag)
	}
}

func (c *classic) keep(config []byte, layers [][]byte) *classicImage {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := image.DigestOf(config)
	if c.images[id] == nil {
		i := &classicImage{config: config, layers: layers, tags: map[string]bool{}}
		for _, l := range layers {
			i.ids = append(i.ids, image.DigestOf(l))
		}
		i.chain = image.ChainIDs(i.ids)
		c.images[id] = i
	}
	return c.images[id]
}

// tag moves a tag, as engines do: the image that had it stays.
func (c *classic) tag(i *classicImage, tag string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, other := range c.images {
		delete(other.tags, tag)
	}
	i.tags[tag] = true
}

// names is what `docker images` would say: "tag id", and "<none> id", sorted.
func (c *classic) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for id, i := range c.images {
		for tag := range i.tags {
			names = append(names, tag+" "+id.Short())
		}
		if len(i.tags) == 0 {
			names = append(names, "<none> "+id.Short())
		}
	}
	slices.Sort(names)
	return names
}

// idle waits until the engine has ended what it still does for clients that have gone. It asks for something itself: when
// that is answered, connections that came before are known.
func (c *classic) idle(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		own, err := net.Dial("unix", c.socket)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(own, "GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
		_, err = io.Copy(io.Discard, own)
		_ = own.Close()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // a request on a connection that is known may be about to be read
		c.mu.Lock()
		n := len(c.busy)
		c.mu.Unlock()
		if n == 0 {
			return
		}
	}
	t.Fatal("the engine is busy and busy")
}

// state notes which connections have a request.
func (c *classic) state(conn net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if delete(c.busy, conn); s == http.StateActive {
		c.busy[conn] = true
	}
}

func (c *classic) find(name string) (image.ID, *classicImage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, i := range c.images {
		if id.String() == name || i.tags[name] {
			return id, i
		}
	}
	return image.ID{}, nil
}

var (
	version   = regexp.MustCompile(`^/v1\.\d+`)
	imagePath = regexp.MustCompile(`^/images/(.+)/(json|tag)$`)
)

func (c *classic) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := version.ReplaceAllString(r.URL.Path, "")
	c.mu.Lock()
	denied := c.deny[r.Method+" "+path]
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		c.changed++
	}
	c.mu.Unlock()
	if denied != "" {
		answer(w, http.StatusInternalServerError, map[string]string{"message": denied})
		return
	}
	switch m := imagePath.FindStringSubmatch(path); {
	case path == "/_ping":
		w.Header().Set("Api-Version", "1.41")
	case path == "/info":
		answer(w, http.StatusOK, map[string]any{"OSType": "linux", "Architecture": runtime.GOARCH})
	case path == "/version":
		answer(w, http.StatusOK, map[string]any{})
	case path == "/images/json":
		list := []map[string]any{}
		c.mu.Lock()
		for id, i := range c.images {
			list = append(list, map[string]any{"Id": id.String(), "RepoTags": slices.Sorted(maps.Keys(i.tags))})
		}
		c.mu.Unlock()
		answer(w, http.StatusOK, list)
	case path == "/images/get":
		c.export(w, r.URL.Query().Get("names"))
	case path == "/images/load":
		c.load(w, r.Body)
	case m != nil:
		c.image(w, r, m[1], m[2])
	case r.Method == http.MethodDelete:
		id, i := c.find(strings.TrimPrefix(path, "/images/"))
		if i == nil {
			answer(w, http.StatusNotFound, map[string]string{"message": "No such image"})
			return
		}
		c.mu.Lock()
		delete(c.images, id)
		c.mu.Unlock()
		answer(w, http.StatusOK, []any{})
	default:
		answer(w, http.StatusInternalServerError, map[string]string{"message": "unexpected " + r.Method + " " + path})
	}
}

func (c *classic) image(w http.ResponseWriter, r *http.Request, name, verb string) {
	id, i := c.find(name)
	if i == nil {
		answer(w, http.StatusNotFound, map[string]string{"message": "No such image: " + name})
		return
	}
	if verb == "tag" {
		repo := strings.TrimPrefix(strings.TrimPrefix(r.URL.Query().Get("repo"), "docker.io/"), "library/")
		c.tag(i, repo+":"+r.URL.Query().Get("tag"))
		w.WriteHeader(http.StatusCreated)
		return
	}
	c.mu.Lock()
	tags := slices.Sorted(maps.Keys(i.tags))
	c.mu.Unlock()
	layers := []string{}
	for _, d := range i.ids {
		layers = append(layers, d.String())
	}
	answer(w, http.StatusOK, map[string]any{
		"Id": id.String(), "RepoTags": tags, "Os": "linux", "Architecture": "amd64", "RootFS": map[string]any{"Type": "layers", "Layers": layers},
	})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// export writes the layout of Docker 25, in which the config comes behind the layers.
func (c *classic) export(w http.ResponseWriter, name string) {
	id, i := c.find(name)
	c.mu.Lock()
	c.exports++
	spoil := c.spoil
	c.mu.Unlock()
	if i == nil {
		answer(w, http.StatusNotFound, map[string]string{"message": "No such image: " + name})
		return
	}
	if len(i.layers) == 0 {
		answer(w, http.StatusInternalServerError, map[string]string{"message": "empty export - not implemented"})
		return
	}
	t := tar.NewWriter(w)
	write := func(name string, content []byte) {
		if spoil != nil {
			if content = spoil(name, content); content == nil {
				return
			}
		}
		_ = t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))})
		_, _ = t.Write(content)
	}
	for n, l := range i.layers {
		write("blobs/sha256/"+i.ids[n].Hex(), l)
	}
	write("blobs/sha256/"+id.Hex(), i.config)
	_ = t.Close()
}

func (c *classic) load(w http.ResponseWriter, body io.Reader) {
	c.mu.Lock()
	c.loads++
	hook, lies := c.happens, c.lies
	c.mu.Unlock()
	files := map[string][]byte{}
	happens := func(what string) error {
		if hook == nil {
			return nil
		}
		err := hook(strings.Count(string(files["manifest.json"]), "blobs/")-1, what)
		if errors.Is(err, errCut) {
			panic(http.ErrAbortHandler)
		}
		return err
	}
	var failed error
	counted := &counting{r: body}
	t := tar.NewReader(counted)
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			files[h.Name], err = io.ReadAll(t)
		}
		if err == nil && failed == nil && h.Name == "manifest.json" {
			failed = happens("begins")
		}
		if err == nil && failed == nil && len(files) > 5 { // behind the documents
			failed = happens("layer")
		}
		if err != nil {
			answer(w, http.StatusOK, map[string]string{"error": "unpacking the archive: " + err.Error()})
			return
		}
	}
	_, _ = io.Copy(io.Discard, counted)
	c.mu.Lock()
	c.bytes += counted.n
	c.mu.Unlock()
	if failed == nil {
		failed = happens("end")
	}
	i, err := c.unpack(files)
	err = errors.Join(failed, err)
	if err != nil {
		answer(w, http.StatusOK, map[string]string{"error": err.Error()})
		return
	}
	if !lies {
		i = c.keep(i.config, i.layers)
	}
	if err := happens("answers"); err != nil {
		answer(w, http.StatusOK, map[string]string{"error": err.Error()})
		return
	}
	answer(w, http.StatusOK, map[string]string{"stream": "Loaded image ID: " + image.DigestOf(i.config).String() + "\n"})
}

// unpack takes layers from the archive, or where that has none, from images with the same layers up to there.
func (c *classic) unpack(files map[string][]byte) (*classicImage, error) {
	var manifest []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil || len(manifest) != 1 {
		return nil, fmt.Errorf("manifest.json: %v", err)
	}
	i := &classicImage{config: files[manifest[0].Config]}
	config, err := image.ParseConfig(i.config)
	if err != nil {
		return nil, err
	}
	chain := image.ChainIDs(config.DiffIDs)
	for n, name := range manifest[0].Layers {
		layer := c.layer(n, chain[n])
		if layer == nil {
			var ok bool
			if layer, ok = files[name]; !ok {
				return nil, fmt.Errorf("open /docker-import-1/%s: no such file or directory", name)
			}
			if tar, err := io.ReadAll(codec.Inflate(bytes.NewReader(layer))); err == nil {
				layer = tar
			}
		}
		if image.DigestOf(layer) != config.DiffIDs[n] {
			return nil, fmt.Errorf("invalid diffID for layer %d", n)
		}
		i.layers = append(i.layers, layer)
	}
	return i, nil
}

func (c *classic) layer(n int, chain image.ChainID) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range c.images {
		if n < len(i.chain) && i.chain[n] == chain {
			return i.layers[n]
		}
	}
	return nil
}

type counting struct {
	r io.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// connect runs the engine on a socket until the test ends, and connects to it.
func (c *classic) connect(t testing.TB) *engine.Client {
	t.Helper()
	client, stop := c.serve(t)
	t.Cleanup(stop)
	return client
}

func (c *classic) serve(t testing.TB) (client *engine.Client, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "e") // t.TempDir may be too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c.socket = socket
	server := &http.Server{Handler: c, ConnState: c.state, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() { _ = server.Serve(l); close(done) }()
	client = dial(t, "unix://"+socket)
	return client, func() {
		_ = client.Close()
		_ = server.Close()
		<-done
		_ = os.RemoveAll(dir)
	}
}

func dial(t testing.TB, url string) *engine.Client {
	t.Helper()
	// Most tests are about exports; stored_test.go is about the other way.
	return dialWith(t, engine.Options{URL: url, Store: engine.StoreOff})
}

func dialWith(t testing.TB, o engine.Options) *engine.Client {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e, err := engine.Connect(context.WithoutCancel(t.Context()), o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// connect connects to an engine until the test ends.
func connect(t testing.TB, url string) *engine.Client {
	t.Helper()
	e := dial(t, url)
	t.Cleanup(func() { _ = e.Close() })
	return e
}
