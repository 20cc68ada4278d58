package transfer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// These tests run on real engines with the containerd image store. Images there are named by manifests and indexes.

func eachContainerd(t *testing.T, test func(t *testing.T, e *enginetest.Engine, client *counted)) {
	t.Helper()
	enginetest.EachContainerd(t, func(t *testing.T, e *enginetest.Engine) { test(t, e, &counted{Client: connect(t, e.Host)}) })
}

// eachLook is eachContainerd with both ways to find out what the engine has: in its store, and by asking.
func eachLook(t *testing.T, test func(t *testing.T, e *enginetest.Engine, client *counted)) {
	t.Helper()
	enginetest.EachContainerd(t, func(t *testing.T, e *enginetest.Engine) {
		for _, use := range []engine.StoreUse{engine.StoreAuto, engine.StoreOff} {
			t.Run(string(use), func(t *testing.T) { test(t, e, connectWith(t, engine.Options{URL: e.Host, Store: use})) })
		}
	})
}

func connectWith(t *testing.T, o engine.Options) *counted {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	c, err := engine.Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &counted{Client: c}
}

// loadLayout loads an image of a layout and removes it with the test.
func loadLayout(t *testing.T, e *enginetest.Engine, l *enginetest.Layout, n enginetest.Node, name string, without ...string) {
	t.Helper()
	if err := e.LoadArchive(t.Context(), bytes.NewReader(l.Archive(n, name, without...))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAll(t, e, name) })
}

// removeAll removes an image with all its names, if it is there.
func removeAll(t *testing.T, e *enginetest.Engine, name string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	id, ok, err := e.ImageID(ctx, name)
	if err == nil && ok {
		_, err = e.Docker(ctx, nil, "rmi", "-f", id)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// savedBlobs are the names of the blobs that the engine exports of an image.
func savedBlobs(t *testing.T, e *enginetest.Engine, name string) (digests []string) {
	t.Helper()
	var b bytes.Buffer
	if err := e.Save(t.Context(), &b, name); err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			return digests
		}
		if err != nil {
			t.Fatal(err)
		}
		if hex, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok && hex != "" {
			digests = append(digests, "sha256:"+hex)
		}
	}
}

func sorted(ids []string) []string { return slices.Compact(slices.Sorted(slices.Values(ids))) }

// remoteFiles are all files of a remote and their contents.
func remoteFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		found[strings.TrimPrefix(path, dir)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func without(files map[string]string, part string) map[string]string {
	for name := range files {
		if strings.Contains(name, part) {
			delete(files, name)
		}
	}
	return files
}

// TestContainerdRoundTrip: whatever the layers are compressed by, and whether they are read in the engine's own store or
// in an export, the image comes back with its ID and all its blobs, and nothing moves twice.
func TestContainerdRoundTrip(t *testing.T) { eachContainerd(t, testContainerdRoundTrip) }

func testContainerdRoundTrip(t *testing.T, e *enginetest.Engine, _ *counted) {
	for name, compressions := range map[string][]enginetest.Compression{
		"raw": {enginetest.Raw}, "gzip": {enginetest.Gzip}, "zstd": {enginetest.Zstd}, "mixed": {enginetest.Raw, enginetest.Gzip, enginetest.Zstd},
	} {
		t.Run(name, func(t *testing.T) {
			m := layered("there", name+"-a", name+"-b", name+"-c")
			var l enginetest.Layout
			n := l.Image(m, compressions...)
			var written []map[string]string
			for _, use := range []engine.StoreUse{engine.StoreRequire, engine.StoreOff} {
				client := connectWith(t, engine.Options{URL: e.Host, Store: use, CacheDir: t.TempDir()})
				loadLayout(t, e, &l, n, "much:there")
				dir := t.TempDir()
				r := remoteIn(t, dir)
				results := mustPush(t, client, r, "much:there")
				if want := map[engine.StoreUse]int{engine.StoreOff: 1}[use]; results[0].ID.String() != n.Digest || len(moved(results[0])) != 3 || client.exports != want {
					t.Errorf("%s: pushed %+v by %d exports", use, results, client.exports)
				}
				if again := mustPush(t, client, r, "much:there"); len(moved(again[0])) > 0 || len(again[0].Layers) != 3 || client.exports > 1 {
					t.Errorf("%s: pushed again: %+v, %d exports", use, again, client.exports)
				}
				noTemporary(t, dir)
				written = append(written, remoteFiles(t, dir))
				removeAll(t, e, "much:there")
				results = mustPull(t, r, client, "much:there")
				if id, _, err := e.ImageID(t.Context(), "much:there"); err != nil || id != n.Digest || results[0].ID.String() != id || len(moved(results[0])) != 3 {
					t.Errorf("%s: pulled %+v, the engine has %s, error %v", use, results, id, err)
				}
				if got, want := savedBlobs(t, e, "much:there"), sorted(n.Blobs); !slices.Equal(got, want) {
					t.Errorf("%s: the engine exports %q, want %q", use, got, want)
				}
				loads := client.loads
				if again := mustPull(t, r, client, "much:there"); len(moved(again[0])) > 0 || client.loads > loads {
					t.Errorf("%s: pulled again: %+v, %d loads", use, again, client.loads-loads)
				}
				checkWhole(t, r, "much:there", m) // a classic store gets the same image by its config
			}
			for path := range written[0] {
				if written[1][path] != written[0][path] {
					t.Errorf("%s differs, or is not there, when layers come from an export", path)
				}
			}
			if len(written[0]) != len(written[1]) {
				t.Errorf("%d files from the own store, %d from an export", len(written[0]), len(written[1]))
			}
		})
	}
}

// TestContainerdTakesClassic: what a classic store pushed has the ID of its synthesised manifest there, and goes back.
func TestContainerdTakesClassic(t *testing.T) { eachContainerd(t, testContainerdTakesClassic) }

func testContainerdTakesClassic(t *testing.T, e *enginetest.Engine, client *counted) {
	m := layered("crossing", "a", "b", "a", "c")
	r := stocked(t, m)
	results := mustPull(t, r, client, "much:crossing")
	defer removeAll(t, e, "much:crossing")
	config, err := image.ParseConfig(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	layers, err := remote.Layers(t.Context(), r, config.DiffIDs)
	if err != nil {
		t.Fatal(err)
	}
	var descriptors []image.Descriptor
	for _, l := range layers {
		descriptors = append(descriptors, image.Descriptor{Digest: l.Digest, Size: l.Size})
	}
	want := image.DigestOf(image.SynthesizeManifest(m.Config(), descriptors))
	if id, _, err := e.ImageID(t.Context(), "much:crossing"); err != nil || id != want.String() || results[0].ID != want {
		t.Errorf("it is %s in the engine and %s in the result, want %s, error %v", id, results[0].ID, want, err)
	}
	dir := t.TempDir()
	again := remoteIn(t, dir)
	mustPush(t, client, again, "much:crossing")
	checkWhole(t, again, "much:crossing", m)
	if moved := moved(mustPush(t, client, r, "much:crossing")[0]); len(moved) > 0 {
		t.Errorf("back to where it came from, %q move", moved)
	}
	checkWhole(t, r, "much:crossing", m)
}

// TestContainerdSharesLayers: what an engine has is not sent, unless it has it under another digest; then all of it is.
func TestContainerdSharesLayers(t *testing.T) { eachLook(t, testContainerdSharesLayers) }

func testContainerdSharesLayers(t *testing.T, e *enginetest.Engine, client *counted) {
	base, derived := layered("base", "share-a", "share-b"), layered("derived", "share-a", "share-b", "share-c")
	var l enginetest.Layout
	rawBase, raw, packed := l.Image(base), l.Image(derived), l.Image(base, enginetest.Gzip)
	r := remoteIn(t, t.TempDir())
	loadLayout(t, e, &l, rawBase, "much:base")
	loadLayout(t, e, &l, raw, "much:derived")
	mustPush(t, client, r, "much:base", "much:derived")
	removeAll(t, e, "much:derived")

	result := mustPull(t, r, client, "much:derived")[0]
	if got := moved(result); len(got) != 1 || result.ID.String() != raw.Digest {
		t.Errorf("beside its base %q moved of %s", got, result.ID)
	}
	if got, want := savedBlobs(t, e, "much:derived"), sorted(raw.Blobs); !slices.Equal(got, want) {
		t.Errorf("the engine exports %q, want %q", got, want)
	}
	removeAll(t, e, "much:derived")
	removeAll(t, e, "much:base")

	// The same layers, unpacked from other blobs: a load without them would succeed, and leave a hollow image.
	loadLayout(t, e, &l, packed, "much:base")
	result = mustPull(t, r, client, "much:derived")[0]
	if got := moved(result); len(got) != 3 {
		t.Errorf("beside its base in gzip %q moved", got)
	}
	if got, want := savedBlobs(t, e, "much:derived"), sorted(raw.Blobs); !slices.Equal(got, want) {
		t.Errorf("the engine exports %q, want %q", got, want)
	}
}

// deceived is an engine that seems to have blobs.
type deceived struct {
	*counted
	blobs map[image.Digest]bool
}

func (d *deceived) HeldBlobs(context.Context, []image.Digest, engine.ManifestReader) (map[image.Digest]bool, error) {
	return d.blobs, nil
}

// TestContainerdLacksBlobs: where the engine lacks what it seemed to have, all is sent, once; also where it says nothing.
func TestContainerdLacksBlobs(t *testing.T) { eachContainerd(t, testContainerdLacksBlobs) }

func testContainerdLacksBlobs(t *testing.T, e *enginetest.Engine, client *counted) {
	for name, unpacked := range map[string]bool{"it says so": false, "it says nothing": true} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{1, 2} {
				// Other layers each time: an engine may keep for a while what it has been told to remove.
				m := layered("lacking", fmt.Sprintf("%s %d a", name, n), fmt.Sprintf("%s %d b", name, n))
				r := stocked(t, m)
				if unpacked {
					var l enginetest.Layout
					loadLayout(t, e, &l, l.Image(m, enginetest.Gzip), "much:packed")
				}
				held := map[image.Digest]bool{}
				for _, layer := range m.Layers()[:n] {
					held[image.DigestOf(layer.Bytes())] = true
				}
				client.loads = 0
				result := mustPull(t, r, &deceived{client, held}, "much:lacking")[0]
				if len(moved(result)) != 2 || client.loads != 2 {
					t.Errorf("%d said to be held: %+v by %d loads", n, result, client.loads)
				}
				if got := savedBlobs(t, e, "much:lacking"); len(got) != 4 {
					t.Errorf("%d said to be held: the engine exports %q", n, got)
				}
				removeAll(t, e, "much:lacking")
			}
		})
	}
}

// TestContainerdHollow: an image that the engine lists and lacks parts of is not pushed.
func TestContainerdHollow(t *testing.T) { eachContainerd(t, testContainerdHollow) }

func testContainerdHollow(t *testing.T, e *enginetest.Engine, _ *counted) {
	m := layered("hollow", "hollow-a", "hollow-b")
	var l enginetest.Layout
	raw := l.Image(m)
	loadLayout(t, e, &l, l.Image(m, enginetest.Gzip), "much:packed")
	loadLayout(t, e, &l, raw, "much:hollow", raw.Blobs[0])
	for _, use := range []engine.StoreUse{engine.StoreAuto, engine.StoreOff} {
		dir := t.TempDir()
		_, err := Push(t.Context(), connectWith(t, engine.Options{URL: e.Host, Store: use}), remoteIn(t, dir), pushes(t, "much:hollow"), Options{})
		if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), "much:hollow") {
			t.Errorf("%s: error %v", use, err)
		}
		if found := without(remoteFiles(t, dir), "/VERSION"); len(found) > 0 {
			t.Errorf("%s: it wrote %d files", use, len(found))
		}
	}
}

// TestContainerdFailures: damage in the remote and an interrupt leave nothing in the engine.
func TestContainerdFailures(t *testing.T) { eachContainerd(t, testContainerdFailures) }

func testContainerdFailures(t *testing.T, e *enginetest.Engine, client *counted) {
	m := layered("failing", "fail-a", "fail-b")
	var l enginetest.Layout
	n := l.Image(m, enginetest.Gzip)
	loadLayout(t, e, &l, n, "much:failing")
	dir := t.TempDir()
	r := remoteIn(t, dir)
	mustPush(t, client, r, "much:failing")
	removeAll(t, e, "much:failing")
	before := listed(t, e)

	bad := n.Blobs[1][len("sha256:"):]
	blob := filepath.Join(dir, "images", bad, "blob")
	if err := flipByte(blob); err != nil {
		t.Fatal(err)
	}
	_, err := Pull(t.Context(), r, client, pulls(t, "much:failing"), Options{})
	if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), bad[:12]) {
		t.Errorf("damage: error %v", err)
	}
	if after := listed(t, e); after != before {
		t.Errorf("damage: the engine has\n%s, had\n%s", after, before)
	}
	if err := flipByte(blob); err != nil { // back
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	client.load = func() error { cancel(); return nil }
	_, err = Pull(ctx, r, client, pulls(t, "much:failing"), Options{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("interrupt: error %v", err)
	}
	client.load = nil
	for range 1000 {
		if listed(t, e) == before {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if after := listed(t, e); after != before {
		t.Errorf("interrupt: the engine has\n%s, had\n%s", after, before)
	}
	// Blobs of the load before may be there still, and go while the next one passes over them.
	client.loads, client.load = 0, func() error {
		client.load = nil
		return fmt.Errorf("%w: so it says", engine.ErrLacksLayer)
	}
	mustPull(t, r, client, "much:failing")
	if client.loads != 2 && client.loads != 3 { // the third where such a blob went while the second passed over it
		t.Errorf("%d loads, want one more", client.loads)
	}
	removeAll(t, e, "much:failing")
	client.load = func() error { return fmt.Errorf("%w: so it says", engine.ErrLacksLayer) }
	if _, err := Pull(t.Context(), r, client, pulls(t, "much:failing"), Options{}); !fault.Is(err, fault.Other) || !strings.Contains(err.Error(), "could not unpack much:failing") {
		t.Errorf("a layer that is never there: %v", err)
	}
	client.load = nil
	if after := listed(t, e); after != before {
		t.Errorf("a layer that is never there: the engine has\n%s, had\n%s", after, before)
	}
}
