package readthrough_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// probe is a remote that counts what it is asked for.
type probe struct {
	*repo.Repo
	store *mem.Store

	mu    sync.Mutex
	asked map[string]int // by method

	// body, unless it is nil, replaces what is read of a layer.
	body func(ctx context.Context, body io.ReadCloser) io.ReadCloser
}

func newProbe(t testing.TB) *probe {
	t.Helper()
	s := mem.New()
	return &probe{Repo: open(t, s), store: s, asked: map[string]int{}}
}

func (p *probe) count(method string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked[method]++
}

// since returns how often a method was called since the last call of since.
func (p *probe) since(method string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.asked[method]
	p.asked[method] = 0
	return n
}

func (p *probe) replaced(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.body == nil {
		return body
	}
	return p.body(ctx, body)
}

func (p *probe) replace(body func(context.Context, io.ReadCloser) io.ReadCloser) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.body = body
}

func (p *probe) Resolve(ctx context.Context, ref image.Reference) (image.ID, error) {
	p.count("resolve")
	return p.Repo.Resolve(ctx, ref)
}

func (p *probe) Document(ctx context.Context, id image.Digest) ([]byte, error) {
	p.count("document")
	return p.Repo.Document(ctx, id)
}

func (p *probe) Look(ctx context.Context, c remote.Closure, known map[image.Digest]remote.Layer) (*remote.Found, error) {
	p.count("look")
	return p.Repo.Look(ctx, c, known)
}

func (p *probe) Open(ctx context.Context, layer remote.Layer) (io.ReadCloser, error) {
	p.count("open")
	body, err := p.Repo.Open(ctx, layer)
	if err != nil {
		return nil, err
	}
	return p.replaced(ctx, body), nil
}

func (p *probe) OpenStored(ctx context.Context, layer remote.Layer) (remote.Stored, error) {
	p.count("stored")
	stored, err := p.Repo.OpenStored(ctx, layer)
	if err == nil {
		stored.Body = p.replaced(ctx, stored.Body)
	}
	return stored, err
}

// plain is a remote that keeps layers in no way of its own.
type plain struct{ remote.Source }

// gate is a body that stops after some bytes until it is opened.
type gate struct {
	io.ReadCloser
	ctx  context.Context
	left int
	open <-chan struct{}
}

func (g *gate) Read(p []byte) (int, error) {
	if g.left == 0 {
		select {
		case <-g.open:
			g.left = -1
		case <-g.ctx.Done():
			return 0, g.ctx.Err()
		}
	}
	if g.left > 0 {
		p = p[:min(len(p), g.left)]
	}
	n, err := g.ReadCloser.Read(p)
	if g.left > 0 {
		g.left -= n
	}
	return n, err
}

// pushed is an image of layers that p has.
func pushed(t testing.TB, p *probe, ref string, layers ...[]byte) remotetest.Image {
	t.Helper()
	img := remotetest.NewImage(t, ref, layers...)
	if _, err := remotetest.Push(t.Context(), p.Repo, remotetest.Ref(t, ref), img); err != nil {
		t.Fatal(err)
	}
	return img
}

// layerOf looks a layer up.
func layerOf(t testing.TB, from remote.Source, tar []byte) remote.Layer {
	t.Helper()
	layers, err := remote.Layers(t.Context(), from, []image.Digest{image.DigestOf(tar)})
	if err != nil {
		t.Fatal(err)
	}
	return layers[0]
}

// reads fails the test unless a layer can be read.
func reads(t testing.TB, from remote.Source, tar []byte) {
	t.Helper()
	got, err := remotetest.Read(t.Context(), from, layerOf(t, from, tar))
	if err != nil || !bytes.Equal(got, tar) {
		t.Errorf("%d bytes of %d, %v", len(got), len(tar), err)
	}
}

// notes is what a cache tells.
type notes struct {
	mu    sync.Mutex
	lines []string
}

func (n *notes) add(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, line)
}

// since returns what was told since the last call of since.
func (n *notes) since() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := strings.Join(n.lines, "\n")
	n.lines = nil
	return all
}

// files returns all that is in a directory, and how large it is together.
func files(t testing.TB, dir string) (names []string, size int64) {
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
		names = append(names, filepath.ToSlash(name))
		size += info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names, size
}

// layerFile returns the file of a layer in a cache, "" where there is none.
func layerFile(t testing.TB, dir string, id image.Digest) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "images", id.Hex(), "[lb]*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// flip damages the byte in the middle of a file.
func flip(t testing.TB, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 0xff
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
