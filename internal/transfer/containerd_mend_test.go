package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// entryDir is where an entry lies in a directory remote.
func entryDir(dir, digest string) string {
	return filepath.Join(dir, "images", strings.TrimPrefix(digest, "sha256:"))
}

// bothWays runs a test with the engine's own store, and with exports.
func bothWays(t *testing.T, e *enginetest.Engine, test func(t *testing.T, client *counted)) {
	t.Helper()
	for _, use := range []engine.StoreUse{engine.StoreRequire, engine.StoreOff} {
		t.Run(string(use), func(t *testing.T) {
			test(t, connectWith(t, engine.Options{URL: e.Host, Store: use, CacheDir: t.TempDir()}))
		})
	}
}

// TestContainerdMends: whatever entry of an image vanishes before its tag is written, the push writes it again; also the
// one that says which blob holds a layer.
func TestContainerdMends(t *testing.T) { eachContainerd(t, testContainerdMends) }

func testContainerdMends(t *testing.T, e *enginetest.Engine, _ *counted) {
	m := layered("mended", "mend-a", "mend-b")
	var l enginetest.Layout
	n := l.Image(m, enginetest.Gzip)
	loadLayout(t, e, &l, n, "much:mended")
	gone := append([]string{m.Layers()[0].DiffID(), m.Layers()[1].DiffID()}, n.Blobs...)
	bothWays(t, e, func(t *testing.T, client *counted) {
		for _, id := range gone {
			dir := t.TempDir()
			r := remoteIn(t, dir)
			vanish := true
			to := &hooked{Target: r, beforeTag: func(context.Context, image.ID) {
				if vanish {
					vanish = false
					must(t, os.RemoveAll(entryDir(dir, id)))
				}
			}}
			mustPush(t, client, to, "much:mended")
			if vanish || to.tagged != 2 {
				t.Errorf("%s: tagged %d times", id, to.tagged)
			}
			checkWhole(t, r, "much:mended", m)
			noTemporary(t, dir)
		}
	})
}

// TestContainerdCompletes: a later push completes what a copy has left out or cut, and the next one moves nothing.
func TestContainerdCompletes(t *testing.T) { eachContainerd(t, testContainerdCompletes) }

func testContainerdCompletes(t *testing.T, e *enginetest.Engine, _ *counted) {
	m := layered("completed", "complete-a", "complete-b")
	var l enginetest.Layout
	n := l.Image(m, enginetest.Gzip)
	loadLayout(t, e, &l, n, "much:completed")
	diffID := m.Layers()[0].DiffID()
	bothWays(t, e, func(t *testing.T, client *counted) {
		for name, damage := range map[string]func(dir string) error{
			"no alias": func(dir string) error { return os.RemoveAll(entryDir(dir, diffID)) },
			"no blob":  func(dir string) error { return os.RemoveAll(entryDir(dir, n.Blobs[0])) },
			"an alias beside a file of another push": func(dir string) error {
				return os.WriteFile(filepath.Join(entryDir(dir, diffID), "layer.tar.lz4"), []byte("begun"), 0o644)
			},
			"no documents": func(dir string) error {
				var errs []error
				for _, id := range n.Blobs[2:] {
					errs = append(errs, os.RemoveAll(entryDir(dir, id)))
				}
				return errors.Join(errs...)
			},
			"no documents and no alias": func(dir string) error {
				errs := []error{os.RemoveAll(entryDir(dir, diffID))}
				for _, id := range n.Blobs[2:] {
					errs = append(errs, os.RemoveAll(entryDir(dir, id)))
				}
				return errors.Join(errs...)
			},
		} {
			dir := t.TempDir()
			r := remoteIn(t, dir)
			mustPush(t, client, r, "much:completed")
			must(t, damage(dir))
			if _, err := Push(t.Context(), client, r, pushes(t, "much:completed"), Options{}); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if again := moved(mustPush(t, client, r, "much:completed")[0]); len(again) > 0 {
				t.Errorf("%s: the next push moves %q", name, again)
			}
			checkWhole(t, r, "much:completed", m)
		}
	})
}

// TestContainerdBesideCutLayer: a layer that is there as a file of the wrong size, from a classic engine, is made whole by
// the blob that a push brings.
func TestContainerdBesideCutLayer(t *testing.T) { eachContainerd(t, testContainerdBesideCutLayer) }

func testContainerdBesideCutLayer(t *testing.T, e *enginetest.Engine, _ *counted) {
	m := layered("cut", "cut-a", "cut-b")
	var l enginetest.Layout
	loadLayout(t, e, &l, l.Image(m, enginetest.Gzip), "much:cut")
	bothWays(t, e, func(t *testing.T, client *counted) {
		dir := t.TempDir()
		r := remoteIn(t, dir)
		mustPush(t, newClassic(m).connect(t), r, "much:cut")
		must(t, os.Truncate(filepath.Join(entryDir(dir, m.Layers()[0].DiffID()), "layer.tar.lz4"), 100))
		mustPush(t, client, r, "much:cut")
		if again := moved(mustPush(t, client, r, "much:cut")[0]); len(again) > 0 {
			t.Errorf("the next push moves %q", again)
		}
		checkWhole(t, r, "much:cut", m)
	})
}

// TestContainerdOthersPlatform: a remote that holds another platform of an index, and lacks a part of it, is told to be
// incomplete by a push that cannot complete it.
func TestContainerdOthersPlatform(t *testing.T) { eachContainerd(t, testContainerdOthersPlatform) }

func testContainerdOthersPlatform(t *testing.T, e *enginetest.Engine, _ *counted) {
	own := layered("own", "own-a")
	other := layered("other", "other-a").EditConfig(func(b []byte) []byte {
		return []byte(strings.Replace(string(b), `"`+runtime.GOARCH+`"`, `"riscv64"`, 1))
	})
	var l enginetest.Layout
	here, there := l.Image(own, enginetest.Gzip).For("linux", runtime.GOARCH), l.Image(other, enginetest.Gzip).For("linux", "riscv64")
	index := l.Index(here, there)
	for lost, id := range map[string]string{"layer": there.Blobs[0], "document": there.Digest} {
		bothWays(t, e, func(t *testing.T, client *counted) {
			dir := t.TempDir()
			r := remoteIn(t, dir)
			loadLayout(t, e, &l, index, "much:others")
			mustPush(t, client, r, "much:others")
			removeAll(t, e, "much:others")
			loadLayout(t, e, &l, index, "much:others", there.Blobs...)
			must(t, os.RemoveAll(entryDir(dir, id)))
			_, err := Push(t.Context(), client, r, pushes(t, "much:others"), Options{})
			if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), "another platform of much:others") || !strings.Contains(err.Error(), id[7:19]) {
				t.Errorf("without a %s: %v", lost, err)
			}
			removeAll(t, e, "much:others")
		})
	}
}

// TestContainerdOnePlatform: an image of one platform alone is not pushed as another.
func TestContainerdOnePlatform(t *testing.T) { eachContainerd(t, testContainerdOnePlatform) }

func testContainerdOnePlatform(t *testing.T, e *enginetest.Engine, client *counted) {
	m := layered("one", "one-a")
	var l enginetest.Layout
	loadLayout(t, e, &l, l.Image(m), "much:one")
	checkOnePlatform(t, client, "much:one")
}

func checkOnePlatform(t *testing.T, client Exporter, name string) {
	t.Helper()
	r := remoteIn(t, t.TempDir())
	_, err := Push(t.Context(), client, r, pushes(t, name), Options{Platform: image.Platform{OS: "linux", Architecture: "riscv64"}})
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "linux/riscv64") || len(tagsOf(t, r)) > 0 {
		t.Errorf("pushed as another platform: %v, tags %q", err, tagsOf(t, r))
	}
	if _, err := Push(t.Context(), client, r, pushes(t, name), Options{Platform: image.Platform{OS: "linux", Architecture: runtime.GOARCH}}); err != nil {
		t.Error(err)
	}
}

// ownBlobs is a data root with blobs of the engine's own content store.
func ownBlobs(t *testing.T, e *enginetest.Engine, digests []string) (root, blobs string) {
	t.Helper()
	const plugin = "io.containerd.content.v1.content/blobs/sha256"
	root = t.TempDir()
	blobs = filepath.Join(root, "containerd", "daemon", plugin)
	must(t, os.MkdirAll(blobs, 0o700))
	for _, d := range digests {
		hex := strings.TrimPrefix(d, "sha256:")
		err := copyFile(filepath.Join(blobs, hex), filepath.Join(e.DataRoot(), "containerd", "daemon", plugin, hex))
		if errors.Is(err, os.ErrNotExist) { // where the machine has a containerd, engines use that
			err = copyFile(filepath.Join(blobs, hex), filepath.Join("/var/lib/containerd", plugin, hex))
		}
		must(t, err)
	}
	return root, blobs
}

// TestContainerdStoredDamaged: what is missing or wrong in the engine's own store comes from an export, or is told where
// there is to be none.
func TestContainerdStoredDamaged(t *testing.T) { eachContainerd(t, testContainerdStoredDamaged) }

func testContainerdStoredDamaged(t *testing.T, e *enginetest.Engine, _ *counted) {
	m := layered("own", "stored-a", "stored-b", "stored-c")
	var l enginetest.Layout
	n := l.Image(m, enginetest.Gzip)
	loadLayout(t, e, &l, n, "much:own")
	config := "sha256:" + image.DigestOf(m.Config()).Hex()
	for name, spoil := range map[string]func(blobs string) error{
		"a layer is missing":  func(blobs string) error { return os.Remove(filepath.Join(blobs, n.Blobs[0][7:])) },
		"a layer is damaged":  func(blobs string) error { return flipByte(filepath.Join(blobs, n.Blobs[1][7:])) },
		"a layer is cut":      func(blobs string) error { return os.Truncate(filepath.Join(blobs, n.Blobs[1][7:]), 20) },
		"a layer is no file":  func(blobs string) error { return replaceByDir(filepath.Join(blobs, n.Blobs[0][7:])) },
		"the config is gone":  func(blobs string) error { return os.Remove(filepath.Join(blobs, config[7:])) },
		"the config is wrong": func(blobs string) error { return flipByte(filepath.Join(blobs, config[7:])) },
	} {
		root, blobs := ownBlobs(t, e, n.Blobs)
		must(t, spoil(blobs))
		client := connectWith(t, engine.Options{URL: e.Host, DataRoot: root})
		r := remoteIn(t, t.TempDir())
		mustPush(t, client, r, "much:own")
		if client.exports != 1 {
			t.Errorf("%s: %d exports", name, client.exports)
		}
		checkWhole(t, r, "much:own", m)

		client = connectWith(t, engine.Options{URL: e.Host, DataRoot: root, Store: engine.StoreRequire})
		dir := t.TempDir()
		_, err := Push(t.Context(), client, remoteIn(t, dir), pushes(t, "much:own"), Options{})
		if !fault.Is(err, fault.Damaged) || !strings.Contains(fault.AdviceOf(err), "--engine-store") || client.exports > 0 {
			t.Errorf("%s, and no export: %v, %d exports", name, err, client.exports)
		}
		noTemporary(t, dir)
	}
}

func replaceByDir(path string) error {
	return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
}

// TestDryRunsShareLayers: of several images of one call a layer moves once, and a dry run says so.
func TestDryRunsShareLayers(t *testing.T) {
	one, two := layered("one", "base", "a"), layered("two", "base", "b")
	e := newClassic(one, two)
	client := e.connect(t)
	results, err := Push(t.Context(), client, remoteIn(t, t.TempDir()), pushes(t, "much:one", "much:two"), Options{DryRun: true})
	if err != nil || fmt.Sprint(len(moved(results[0])), len(moved(results[1]))) != "2 1" {
		t.Errorf("push: %+v, error %v", results, err)
	}
	r := stocked(t, one, two)
	results, err = Pull(t.Context(), r, newClassic().connect(t), pulls(t, "much:one", "much:two"), Options{DryRun: true})
	if err != nil || fmt.Sprint(len(moved(results[0])), len(moved(results[1]))) != "2 1" {
		t.Errorf("pull: %+v, error %v", results, err)
	}
}

// TestClassicOnePlatform: the same of a classic store.
func TestClassicOnePlatform(t *testing.T) {
	checkOnePlatform(t, newClassic(layered("one", "a")).connect(t), "much:one")
}
