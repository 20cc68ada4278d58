package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/chunk"
	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/readthrough"
	"github.com/dogestry/dogestry/internal/registry/client"
	"github.com/dogestry/dogestry/internal/registry/registrytest"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage/file"
)

// cachedRegistry is a registry with three releases, of which each was built out of the one before, and a cache. No
// engine's own layers can be read, and nothing but the cache remembers what was pulled.
type cachedRegistry struct {
	*registryWorld
	three *enginetest.Image
	at    string // the cache's directory
	limit int64
	told  []string // by the cache
}

func newCachedRegistry(t *testing.T) *cachedRegistry {
	t.Helper()
	w := &cachedRegistry{registryWorld: newRegistryWorld(t, registrytest.Options{}), at: t.TempDir(), limit: 1 << 30}
	w.o.CacheDir = ""
	w.three = enginetest.NewImage().Tag("much:3").Add(w.one.Layers()[0]).Layer(thirdRelease()...)
	copyIn(t, w.three, registryAt(t, w.host, "", client.Zstd).In("much"))
	return w
}

// thirdRelease has the file that changed in the second one, and another one changed besides. They lie in different frames.
func thirdRelease() []enginetest.Entry {
	entries := release(firstRelease.Add(time.Hour), 17)
	changed := release(firstRelease.Add(2*time.Hour), 50)
	for i := range entries {
		if i == 50 {
			entries[i] = changed[i]
		}
		entries[i].Header.ModTime = firstRelease.Add(2 * time.Hour)
	}
	return entries
}

// through opens the registry through the cache, as each run does.
func (w *cachedRegistry) through(t *testing.T) *readthrough.Registry {
	t.Helper()
	dir, err := file.Open(w.at)
	must(t, err)
	t.Cleanup(func() { _ = dir.Close() })
	cache, err := readthrough.Open(t.Context(), dir, readthrough.Options{
		Name: "the-cache", Limit: w.limit, Notify: func(line string) { w.told = append(w.told, line) },
	})
	must(t, err)
	return cache.NewRegistry(w.registry(t))
}

// brings pulls an image onto an engine that has the first release, and proves that it has come. It returns the
// release's layer, and how many bytes came from the registry.
func (w *cachedRegistry) brings(t *testing.T, from remote.Source, unpacks bool, m *enginetest.Image) (LayerResult, int64) {
	t.Helper()
	w.engine = newClassic()
	if m != w.one {
		w.engine = newClassic(w.one)
	}
	k := &keeper{Client: w.engine.connect(t)}
	to := Loader(k)
	if unpacks {
		to = unpackingKeeper{k}
	}
	w.wire.received.Store(0)
	results, err := Pull(t.Context(), from, to, pulls(t, m.Tags()[0]), w.o)
	must(t, err)
	w.check(t, m)
	return results[0].Layers[1], w.wire.received.Load()
}

func (w *cachedRegistry) check(t *testing.T, m *enginetest.Image) {
	t.Helper()
	id, i := w.engine.find(m.Tags()[0])
	if i == nil || id.String() != m.ID() || !bytes.Equal(i.layers[1], layerOf(m).Bytes()) {
		t.Errorf("the engine has %q, want %s", w.engine.names(), m.ID())
	}
}

// quiet fails the test where anybody was told anything.
func (w *cachedRegistry) quiet(t *testing.T) {
	t.Helper()
	if len(w.said.notes) > 0 || len(w.told) > 0 {
		t.Errorf("notes: %q, and by the cache %q", w.said.notes, w.told)
	}
}

// keeps reports whether the cache has the tar of a release.
func (w *cachedRegistry) keeps(t *testing.T, m *enginetest.Image) bool {
	t.Helper()
	_, err := os.Stat(w.tar(m))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}

func (w *cachedRegistry) tar(m *enginetest.Image) string {
	return filepath.Join(w.at, filepath.FromSlash(fileOf(layerOf(m))))
}

// blob returns the digest of what a release's layer is compressed in.
func (w *cachedRegistry) blob(t *testing.T, m *enginetest.Image) image.Digest {
	t.Helper()
	in := w.registry(t).In("much")
	id, err := in.Resolve(t.Context(), reference(t, m.Tags()[0]))
	must(t, err)
	doc, err := in.Document(t.Context(), id)
	must(t, err)
	manifest, err := image.ParseManifest(doc)
	must(t, err)
	return manifest.Layers[1].Digest
}

// TestDeltaOfRegistryOfTheCache: the first release comes whole, as a blob or, for an engine that takes no zstd, as a tar. The
// second is put together out of that, and kept; and the third out of the second, whose new content is not fetched again.
func TestDeltaOfRegistryOfTheCache(t *testing.T) {
	for name, unpacks := range map[string]bool{"tars": false, "blobs": true} {
		t.Run(name, func(t *testing.T) {
			w := newCachedRegistry(t)
			_, whole := w.brings(t, w.through(t), unpacks, w.one)
			if w.keeps(t, w.one) == unpacks {
				t.Errorf("the tar of the first one is there: %v", !unpacks)
			}
			without := w.at // the second release
			w.at = filepath.Join(t.TempDir(), "copy")
			must(t, os.CopyFS(w.at, os.DirFS(without)))
			got, came := w.brings(t, w.through(t), unpacks, w.two)
			if want := int64(releaseSize * releaseFiles); got.Local < want*6/10 || got.Size != layerOf(w.two).Size() || came > whole/2 || got.Fetched > came {
				t.Errorf("the second one: %+v, and %d bytes came, of the first one %d", got, came, whole)
			}
			if !w.keeps(t, w.two) {
				t.Error("the second one is not kept")
			}
			got, came = w.brings(t, w.through(t), unpacks, w.three)
			w.at = without
			first, all := w.brings(t, w.through(t), unpacks, w.three)
			if frame := int64(100 << 10); got.Local == 0 || first.Local == 0 || got.Fetched > first.Fetched-frame || came > all-frame {
				t.Errorf("the third one: %+v, %d bytes; without the second one %+v, %d bytes", got, came, first, all)
			}
			w.quiet(t)
		})
	}
}

// TestMadeLayerOfRegistryIsRead: what was put together is given to who wants the tar, and not taken for the blob, which is
// the registry's, byte for byte, also in a copy.
func TestMadeLayerOfRegistryIsRead(t *testing.T) {
	w := newCachedRegistry(t)
	w.brings(t, w.through(t), true, w.one)
	w.brings(t, w.through(t), true, w.two)
	blob := w.blob(t, w.two)
	if got, came := w.brings(t, w.through(t), true, w.two); got.Fetched > 0 || came > got.Stored/10 {
		t.Errorf("once more: %+v, and %d bytes came", got, came)
	}
	want, err := os.ReadFile(w.server.Blob(blob))
	must(t, err)
	to := t.TempDir()
	_, err = Copy(t.Context(), w.through(t), remoteIn(t, to), copies(t, "much:2"), CopyOptions{})
	must(t, err)
	if got, err := os.ReadFile(filepath.Join(to, "images", blob.Hex(), "blob")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy has %d bytes of %d, %v", len(got), len(want), err)
	}
	must(t, os.RemoveAll(filepath.Join(w.at, "images", blob.Hex())))
	for range 2 { // from the registry, and of the cache
		from := w.through(t).In("much")
		layers, err := remote.Layers(t.Context(), from, []image.Digest{blob})
		must(t, err)
		body, err := from.Open(t.Context(), layers[0])
		must(t, err)
		got, err := io.ReadAll(body)
		if err == nil {
			err = body.Close()
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
		}
	}
	if !w.keeps(t, w.two) {
		t.Error("the tar is gone")
	}
	w.quiet(t)
}

// TestDeltaOfRegistryOfTheDamagedCache: what is damaged in the cache is fetched, and so is what was put together and damaged since.
func TestDeltaOfRegistryOfTheDamagedCache(t *testing.T) {
	w := newCachedRegistry(t)
	w.brings(t, w.through(t), true, w.one)
	damage := func(path string) {
		t.Helper()
		b, err := os.ReadFile(path)
		must(t, err)
		b[len(b)/2] ^= 1
		must(t, os.WriteFile(path, b, 0o644))
	}
	damage(filepath.Join(w.at, "images", w.blob(t, w.one).Hex(), "blob"))
	if got, _ := w.brings(t, w.through(t), true, w.two); got.Local == 0 {
		t.Errorf("the first one is damaged: %+v", got)
	}
	damage(w.tar(w.two))
	if got, _ := w.brings(t, w.through(t), true, w.three); got.Local == 0 {
		t.Errorf("so is the second one: %+v", got)
	}
	w.quiet(t)
}

// TestMadeLayerOfRegistryIsDamaged: one that is kept and damaged is read from the registry, by a run that has read
// nothing else of the image there.
func TestMadeLayerOfRegistryIsDamaged(t *testing.T) {
	w := newCachedRegistry(t)
	w.brings(t, w.through(t), true, w.one)
	w.brings(t, w.through(t), true, w.two)
	b, err := os.ReadFile(w.tar(w.two))
	must(t, err)
	clear(b[len(b)/2:])
	must(t, os.WriteFile(w.tar(w.two), b, 0o644))
	blob, err := os.Stat(w.server.Blob(w.blob(t, w.two)))
	must(t, err)
	if _, came := w.brings(t, w.through(t), true, w.two); came < blob.Size() || len(w.told) != 1 || !strings.Contains(w.told[0], "was damaged") {
		t.Errorf("%d bytes came of %d, and it was told %q", came, blob.Size(), w.told)
	}
}

// TestLayerOfTheCacheIsAnother: what a cache has as a layer, and decodes, and is another one, turns out when most of it is with
// the engine. It is read from the registry, by the same pull.
func TestLayerOfTheCacheIsAnother(t *testing.T) {
	for name, c := range map[string]struct {
		made   bool
		method codec.Codec
	}{"made": {true, codec.LZ4}, "blob": {false, codec.Zstd}} {
		t.Run(name, func(t *testing.T) {
			w := newCachedRegistry(t)
			w.brings(t, w.through(t), true, w.one)
			m, path := w.one, filepath.Join(w.at, "images", w.blob(t, w.one).Hex(), "blob")
			if c.made {
				w.brings(t, w.through(t), true, w.two)
				m, path = w.two, w.tar(w.two)
			}
			other := bytes.Clone(layerOf(m).Bytes())
			other[len(other)/2] ^= 1
			encoded := chunk.Encode(c.method, bytes.NewReader(other))
			b, err := io.ReadAll(encoded)
			must(t, errors.Join(err, encoded.Close()))
			was, err := os.Stat(path)
			must(t, err)
			b = b[:framesOf(t, b).Stored]
			b = codec.AppendSkippable(b, 0, make([]byte, was.Size()-int64(len(b))-codec.SkippableHeader)) // in place of the index
			must(t, os.WriteFile(path, b, 0o644))
			blob, err := os.Stat(w.server.Blob(w.blob(t, m)))
			must(t, err)
			for again := range 2 {
				_, came := w.brings(t, w.through(t), true, m)
				if again == 0 && came < blob.Size() || again > 0 && came > blob.Size()/10 || len(w.told) != 1 || !strings.Contains(w.told[0], "was damaged") {
					t.Errorf("time %d: %d bytes came of %d, and it was told %q", again, came, blob.Size(), w.told)
				}
			}
			if len(w.said.notes) > 0 {
				t.Errorf("notes: %q", w.said.notes)
			}
		})
	}
}

// TestDeltaOfRegistryIsMisledBesideTheCache: of a layer that is there already, an index that says another size does not
// make the cache lose it, and neither is it given to the engine in that size; nor is one that is read whole after all.
func TestDeltaOfRegistryIsMisledBesideTheCache(t *testing.T) {
	w := newCachedRegistry(t)
	w.brings(t, w.through(t), true, w.one)
	w.brings(t, w.through(t), true, w.two) // by another one, since it was planned
	blob := w.blob(t, w.two)
	info, err := os.Stat(w.server.Blob(blob))
	must(t, err)
	at := remote.Layer{Digest: digestOf(t, layerOf(w.two)), Packed: blob, Stored: info.Size()}
	for _, there := range []bool{true, false} {
		if !there {
			w.at = t.TempDir()
		}
		for _, wrong := range []int64{-1, +1} {
			for _, already := range []bool{false, true} { // since the index of another layer has lied, too
				at.Size = layerOf(w.two).Size() + wrong
				from := w.through(t).In("much")
				d := &deltas{o: w.o.withDefaults(), keeper: from.(remote.Keeper), source: from, relation: &relation{found: true}, misled: already}
				body, err := d.open(t.Context(), from, at)
				must(t, err)
				got, err := io.ReadAll(body)
				if err == nil || !d.isMisled() || int64(len(got)) >= min(at.Size, layerOf(w.two).Size()) {
					t.Errorf("there %v, %+d, %v: %d bytes, %v", there, wrong, already, len(got), err)
				}
				must(t, body.Close())
				if there && !w.keeps(t, w.two) {
					t.Fatal("it is gone")
				}
			}
		}
	}
	w.quiet(t)
}

// TestDeltaOfRegistryIsMisledIntoTheCache: an index that lies keeps no engine from the image, and brings nothing wrong
// into the cache.
func TestDeltaOfRegistryIsMisledIntoTheCache(t *testing.T) {
	w := newCachedRegistry(t)
	w.brings(t, w.through(t), true, w.one)
	w.forge(t)
	if got, _ := w.brings(t, w.through(t), true, w.two); got.Local != 0 || !got.Moved {
		t.Errorf("%+v", got)
	}
	if notes := strings.Join(w.said.notes, "\n"); !strings.Contains(notes, "an index in the remote is wrong") || len(w.told) > 0 {
		t.Errorf("notes %q, and by the cache %q", notes, w.told)
	}
	w.said.notes = nil
	if got, came := w.brings(t, w.through(t), true, w.two); came > got.Stored/10 {
		t.Errorf("once more: %d bytes came", came)
	}
	w.quiet(t)
}

// TestDeltaOfRegistryForMany: of several engines that want a release at once, through one cache, one puts it together for all.
func TestDeltaOfRegistryForMany(t *testing.T) {
	w := newCachedRegistry(t)
	w.brings(t, w.through(t), true, w.one)
	at := w.at
	w.at = filepath.Join(t.TempDir(), "copy")
	must(t, os.CopyFS(w.at, os.DirFS(at)))
	_, one := w.brings(t, w.through(t), true, w.two)
	w.at = at
	from := w.through(t)
	w.o.Progress = nil
	var once sync.Once
	var size int64
	var not error
	w.o.Rebuild = func(_ context.Context, _ image.Digest, find func() (int64, error)) (int64, error) { // as a fleet does
		once.Do(func() { size, not = find() })
		return size, not
	}
	w.wire.received.Store(0)
	var g errgroup.Group
	var rebuilt atomic.Int64
	for range 4 {
		e := newClassic(w.one)
		client := unpackingKeeper{&keeper{Client: e.connect(t)}}
		g.Go(func() error {
			results, err := Pull(context.WithoutCancel(t.Context()), from, client, pulls(t, "much:2"), w.o)
			if err != nil {
				return err
			}
			if id, i := e.find("much:2"); i == nil || id.String() != w.two.ID() || !bytes.Equal(i.layers[1], layerOf(w.two).Bytes()) {
				return fmt.Errorf("the engine has %q, want %s", e.names(), w.two.ID())
			}
			if results[0].Layers[1].Local > 0 {
				rebuilt.Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if all := w.wire.received.Load(); all > one*3/2 || rebuilt.Load() != 1 || size != layerOf(w.two).Size() {
		t.Errorf("%d bytes came, for one engine %d; %d say that they have put it together, of %d bytes", all, one, rebuilt.Load(), size)
	}
	w.quiet(t)
}

// TestDeltaOfRegistryOfTheCachePodman: Podman takes whole archives, with what was put together beside what is compressed.
func TestDeltaOfRegistryOfTheCachePodman(t *testing.T) {
	eachPodman(t, testDeltaOfRegistryOfTheCachePodman)
}

func testDeltaOfRegistryOfTheCachePodman(t *testing.T, e *enginetest.Engine, client *counted) {
	w := newCachedRegistry(t)
	var came []int64
	for _, m := range []*enginetest.Image{w.one, w.two} {
		t.Cleanup(func() { removeAll(t, e, m.Tags()[0]) })
		w.wire.received.Store(0)
		_, err := Pull(t.Context(), w.through(t), client, pulls(t, m.Tags()[0]), w.o)
		must(t, err)
		came = append(came, w.wire.received.Load())
		if id, _, err := e.ImageID(t.Context(), m.Tags()[0]); err != nil || id != m.ID() {
			t.Errorf("the engine has %s, want %s, %v", id, m.ID(), err)
		}
	}
	if came[1] > came[0]/2 || !w.keeps(t, w.two) {
		t.Errorf("%d bytes came; the second one is kept: %v", came, w.keeps(t, w.two))
	}
	w.quiet(t)
}

// TestDeltaOfRegistryWithinTheLimit: a cache with room for one release, and not for two, has no more than it may.
func TestDeltaOfRegistryWithinTheLimit(t *testing.T) {
	w := newCachedRegistry(t)
	w.brings(t, w.through(t), true, w.one)
	w.limit = w.size(t) * 3 / 2
	for _, m := range []*enginetest.Image{w.two, w.three} {
		w.brings(t, w.through(t), true, m)
		if is := w.size(t); is > w.limit {
			t.Errorf("%s: it has %d bytes, of %d", m.Tags()[0], is, w.limit)
		}
	}
	w.quiet(t)
}

// size returns how large all is that the cache has.
func (w *cachedRegistry) size(t *testing.T) (all int64) {
	t.Helper()
	must(t, filepath.WalkDir(w.at, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			all += info.Size()
		}
		return err
	}))
	return all
}
