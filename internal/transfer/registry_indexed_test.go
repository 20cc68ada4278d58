package transfer

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/remote"
)

// TestRegistryIndexed: layers that end with an index, in a stock registry. Engines pull them by themselves, those that take
// zstd; a pull of dogestry's into a classic store puts the second release together, and one into a containerd image store,
// which wants the blob itself, reads no part of it.
func TestRegistryIndexed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root reads the engine's own directory")
	}
	enginetest.Each(t, testRegistryIndexed)
	enginetest.EachContainerd(t, testRegistryIndexed)
}

func testRegistryIndexed(t *testing.T, e *enginetest.Engine) {
	s, one, two := indexedReleases(t)
	proxy := registrytest.NewProxy(t, s)
	c := connectWith(t, engine.Options{URL: e.Host, Store: engine.StoreAuto})
	lists := fmt.Sprint(digestOf(t, two.Layers()[0]), " ", digestOf(t, layerOf(two)))
	same := func(name string) {
		t.Helper()
		if got := docker(t, e, "image", "inspect", "--format", "{{join .RootFS.Layers \" \"}}", name); got != lists {
			t.Errorf("the engine has %s, want %s", got, lists)
		}
	}
	if c.Unpacks("zstd") {
		name := s.Host + "/much:2"
		docker(t, e, "pull", "--quiet", name)
		same(name)
		removeAll(t, e, name)
	}
	var parts atomic.Int64
	proxy.Rule(func(r *http.Request) registrytest.Fault {
		if r.Header.Get("Range") != "" {
			parts.Add(1)
		}
		return registrytest.Fault{}
	})
	o := Options{Delta: DeltaAlways, leastDelta: 1 << 10, CacheDir: t.TempDir()}
	pull := func(m *enginetest.Image) LayerResult {
		t.Helper()
		t.Cleanup(func() { removeAll(t, e, m.Tags()[0]) })
		results, err := Pull(t.Context(), registryAt(t, proxy.Host, "", client.Zstd), c, pulls(t, m.Tags()[0]), o)
		if err != nil {
			t.Fatal(err)
		}
		return results[0].Layers[1]
	}
	pull(one)
	got := pull(two)
	same("much:2")
	if c.Kind() == engine.Containerd {
		if got.Local > 0 || got.Fetched > 0 || parts.Load() > 0 {
			t.Errorf("%+v, and %d parts were read", got, parts.Load())
		}
	} else if got.Local < releaseFiles*releaseSize*6/10 || got.Size != layerOf(two).Size() {
		t.Errorf("%+v", got)
	}
}

// indexedReleases is a registry that has two releases.
func indexedReleases(t *testing.T) (s *registrytest.Server, one, two *enginetest.Image) {
	t.Helper()
	s = registrytest.Start(t, registrytest.Options{})
	one, two = releases()
	for _, m := range []*enginetest.Image{one, two} {
		to := registryAt(t, s.Host, "", client.Zstd).In("much")
		copyIn(t, m, to)
		_, there, err := to.Missing(t.Context(), remote.Closure{Layers: []image.Digest{digestOf(t, layerOf(m))}})
		if err != nil || len(there) != 1 {
			t.Fatalf("%v, error %v", there, err)
		}
		blob, err := os.ReadFile(s.Blob(there[0].Packed))
		if err != nil {
			t.Fatal(err)
		}
		if x := framesOf(t, blob); x.Size != layerOf(m).Size() {
			t.Errorf("an index of %d bytes, want %d", x.Size, layerOf(m).Size())
		}
	}
	return s, one, two
}

// TestRegistryIndexedClients: skopeo and crane take such layers for what they are.
func TestRegistryIndexedClients(t *testing.T) {
	s, _, two := indexedReleases(t)
	name := s.Host + "/much:2"
	run := func(program string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
			t.Errorf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
		}
	}
	dir := filepath.Join(t.TempDir(), "dir")
	run("skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "--dest-decompress", "docker://"+name, "dir:"+dir)
	for _, l := range two.Layers() {
		if content, err := os.ReadFile(filepath.Join(dir, strings.TrimPrefix(l.DiffID(), "sha256:"))); err != nil || !bytes.Equal(content, l.Bytes()) {
			t.Errorf("skopeo makes another tar of layer %.20s: %d bytes, error %v", l.DiffID(), len(content), err)
		}
	}
	crane, err := filepath.Abs("../../.cache/bin/crane")
	if err != nil {
		t.Fatal(err)
	}
	files := filepath.Join(t.TempDir(), "files.tar")
	run(crane, "export", "--insecure", name, files)
	if info, err := os.Stat(files); err != nil || info.Size() < releaseFiles*releaseSize {
		t.Errorf("crane exports %v, error %v", info, err)
	}
}
