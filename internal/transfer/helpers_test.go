package transfer

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/file"
)

const remoteName = "much-remote"

// remoteIn opens a directory as a remote.
func remoteIn(t testing.TB, dir string) *repo.Repo {
	t.Helper()
	store, err := file.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return remoteOn(t, store, codec.LZ4)
}

func remoteOn(t testing.TB, store storage.Store, c codec.Codec) *repo.Repo {
	t.Helper()
	r, err := repo.Open(t.Context(), store, repo.Options{Name: remoteName, Codec: c})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func reference(t testing.TB, s string) image.Reference {
	t.Helper()
	ref, err := image.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// pushes are images that keep their names.
func pushes(t testing.TB, names ...string) (images []PushImage) {
	for _, n := range names {
		images = append(images, PushImage{Source: n, Target: reference(t, n)})
	}
	return images
}

func pulls(t testing.TB, names ...string) (images []PullImage) {
	for _, n := range names {
		images = append(images, PullImage{Source: reference(t, n), Target: reference(t, n)})
	}
	return images
}

func mustPush(t testing.TB, from Exporter, to remote.Target, names ...string) []Result {
	t.Helper()
	results, err := Push(t.Context(), from, to, pushes(t, names...), Options{})
	if err != nil {
		t.Fatalf("push %s: %v", names, err)
	}
	return results
}

func mustPull(t testing.TB, from remote.Source, to Loader, names ...string) []Result {
	t.Helper()
	results, err := Pull(t.Context(), from, to, pulls(t, names...), Options{})
	if err != nil {
		t.Fatalf("pull %s: %v", names, err)
	}
	return results
}

// moved returns the short diffIDs of the layers that travelled.
func moved(r Result) (ids []string) {
	for _, l := range r.Layers {
		if l.Moved {
			ids = append(ids, l.Digest.Short())
		}
	}
	return ids
}

// checkWhole proves that the remote has all of an image under a name: a new engine gets it, as it was.
func checkWhole(t testing.TB, from remote.Source, name string, m *enginetest.Image) {
	t.Helper()
	e := newClassic()
	client, stop := e.serve(t)
	defer stop()
	r := mustPull(t, from, client, name)
	if r[0].ID.String() != m.ID() {
		t.Errorf("%s is %s, want %s", name, r[0].ID, m.ID())
	}
	if got, want := e.names(), []string{name + " " + r[0].ID.Short()}; !slices.Equal(got, want) {
		t.Errorf("the engine has %q, want %q", got, want)
	}
}

// tagsOf lists a remote.
func tagsOf(t testing.TB, r remote.Source) (tags []string) {
	t.Helper()
	for tag, err := range r.References(context.WithoutCancel(t.Context()), "") {
		if err != nil {
			t.Fatal(err)
		}
		tags = append(tags, tag.Reference.String())
	}
	return tags
}

// files lists what is in a directory, with sizes and times.
func files(t testing.TB, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		list = append(list, name+" "+info.ModTime().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// noTemporary fails the test if the directory has a file that a writer did not clean up.
func noTemporary(t testing.TB, dir string) {
	t.Helper()
	for _, f := range files(t, dir) {
		if strings.HasPrefix(filepath.Base(f), ".") {
			t.Errorf("left in the remote: %s", f)
		}
	}
}

// layered is an image of layers with these contents, each some KiB, which go by the repository "much".
func layered(tag string, contents ...string) *enginetest.Image {
	m := enginetest.NewImage().Tag("much:" + tag)
	for _, c := range contents {
		m.Layer(enginetest.File(c, 0o644, strings.Repeat(c+" ", 2000)))
	}
	return m
}

// hooked is a Target that calls hooks before it does its work.
type hooked struct {
	remote.Target
	beforeTag func(ctx context.Context, id image.ID)

	mu        sync.Mutex
	layers    []image.DiffID
	documents int
	tagged    int
}

func (h *hooked) PutLayer(ctx context.Context, l image.Descriptor, tar io.Reader) (remote.Layer, error) {
	h.mu.Lock()
	h.layers = append(h.layers, l.Digest)
	h.mu.Unlock()
	return h.Target.PutLayer(ctx, l, tar)
}

func (h *hooked) PutDocument(ctx context.Context, doc []byte) error {
	h.mu.Lock()
	h.documents++
	h.mu.Unlock()
	return h.Target.PutDocument(ctx, doc)
}

func (h *hooked) Tag(ctx context.Context, ref image.Reference, id image.ID) error {
	if h.beforeTag != nil {
		h.beforeTag(ctx, id)
	}
	h.mu.Lock()
	h.tagged++
	h.mu.Unlock()
	return h.Target.Tag(ctx, ref, id)
}

// counted is an engine whose exports and loads are counted, and that may lie about what it holds.
type counted struct {
	*engine.Client
	exports int
	mu      sync.Mutex // loads run at once
	loads   int
	bytes   int64 // of archives
	held    func(held, all int) int
	load    func() error // if set, its error is what a load gives
}

func (c *counted) Export(ctx context.Context, img engine.Image) *engine.Export {
	c.exports++
	return c.Client.Export(ctx, img)
}

func (c *counted) Held(ctx context.Context, ids []image.DiffID) (int, []image.ID, error) {
	n, below, err := c.Client.Held(ctx, ids)
	if c.held != nil {
		n = c.held(n, len(ids))
	}
	return n, below, err
}

func (c *counted) Load(ctx context.Context, archive io.Reader) ([]image.ID, error) {
	c.mu.Lock()
	c.loads++
	c.mu.Unlock()
	counter := &counting{r: archive}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.bytes += counter.n
	}()
	if c.load != nil {
		if err := c.load(); err != nil {
			return nil, err
		}
	}
	return c.Client.Load(ctx, counter)
}

// flipByte changes one byte in the middle of a file.
func flipByte(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(b) == 0 {
		return errors.New("nothing to change")
	}
	b[len(b)/2] ^= 0x55
	return os.WriteFile(path, b, 0o644)
}
