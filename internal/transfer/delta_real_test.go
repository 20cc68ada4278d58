package transfer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/storage/file"
)

// TestDeltaReal: each kind of engine that has its layers as tars, or as files and what makes tars of them, gets the second of
// two releases out of the first, also after an interrupt, and where a file of the first has changed on its disk.
func TestDeltaReal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root reads the engine's own directory")
	}
	enginetest.Each(t, testDeltaReal)
	enginetest.EachContainerd(t, testDeltaReal)
	enginetest.EachPodman(t, testDeltaReal)
}

func testDeltaReal(t *testing.T, e *enginetest.Engine) {
	one, two := releases()
	client := forgetful{connectWith(t, engine.Options{URL: e.Host, Store: engine.StoreAuto}), digestOf(t, layerOf(two))}
	loadImage(t, e, one)
	t.Cleanup(func() { removeAll(t, e, "much:1"); removeAll(t, e, "much:2") })
	loadImage(t, e, two)
	dir, err := file.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	store := &watchedStore{Store: dir, read: map[string]int64{}}
	r := remoteOn(t, store, codec.LZ4)
	mustPush(t, client, r, "much:1", "much:2")
	pushed := mustPush(t, client, r, "much:2")[0]
	o := Options{Delta: DeltaAlways, leastDelta: 1}
	pull := func() LayerResult {
		t.Helper()
		results, err := Pull(t.Context(), r, client, pulls(t, "much:2"), o)
		if err != nil {
			t.Fatal(err)
		}
		if results[0].ID != pushed.ID {
			t.Errorf("pulled %s, want %s", results[0].ID, pushed.ID)
		}
		return results[0].Layers[1]
	}
	removeAll(t, e, "much:2")
	clear(store.read)
	got := pull()
	if read := store.of(layerOf(two)); client.Kind() == engine.Podman {
		if got.Local > 0 || got.Fetched > 0 {
			t.Errorf("Podman: %+v", got)
		}
		return
	} else if got.Local < releaseFiles*releaseSize*8/10 || read > got.Stored/6 || got.Fetched < read {
		t.Errorf("%+v, and %d bytes of it were read", got, read)
	}
	fresh := remoteIn(t, t.TempDir()) // the engine gives it again as it was
	if again := mustPush(t, client, fresh, "much:2")[0]; again.ID != pushed.ID {
		t.Errorf("pushed again it is %s, want %s", again.ID, pushed.ID)
	}

	removeAll(t, e, "much:2")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var reads atomic.Int64
	store.get = func(key string, _, _ int64) error {
		if key == fileOf(layerOf(two)) && reads.Add(1) == 2 { // behind the index
			cancel()
		}
		return nil
	}
	if _, err := Pull(ctx, r, client, pulls(t, "much:2"), o); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	store.plain()
	if got := pull(); got.Local == 0 {
		t.Errorf("after an interrupt: %+v", got)
	}

	removeAll(t, e, "much:2")
	undo := spoilLocal(t, e, one, client.Kind())
	defer undo()
	if changed := pull(); changed.Local == 0 || changed.Fetched <= got.Fetched {
		t.Errorf("with a changed file: %+v, and before %+v", changed, got)
	}
}

// forgetful is an engine that lacks a layer: containerd keeps for a while what was removed.
type forgetful struct {
	*counted
	layer image.Digest
}

func (f forgetful) HeldBlobs(ctx context.Context, wanted []image.Digest, read engine.ManifestReader) (map[image.Digest]bool, error) {
	held, err := f.counted.HeldBlobs(ctx, wanted, read)
	delete(held, f.layer)
	return held, err
}

// spoilLocal changes a byte in a file of the release where the engine has it, until undo is called.
func spoilLocal(t *testing.T, e *enginetest.Engine, m *enginetest.Image, kind engine.Kind) (undo func()) {
	t.Helper()
	ask := func(args ...string) string {
		out, err := e.Docker(t.Context(), nil, args...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	path, at := "", int64(1000)
	if kind == engine.Containerd {
		path = filepath.Join(ask("info", "--format", "{{.DockerRootDir}}"), "containerd/daemon/io.containerd.content.v1.content/blobs/sha256", strings.TrimPrefix(layerOf(m).DiffID(), "sha256:"))
		at = int64(strings.Index(string(layerOf(m).Bytes()), "srv/app/030")) + 1000
	} else {
		path = filepath.Join(ask("image", "inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", "much:1"), "srv/app/030")
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	flip := func() {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		b := make([]byte, 1)
		_, err = f.ReadAt(b, at)
		b[0] ^= 1
		if err == nil {
			_, err = f.WriteAt(b, at)
		}
		if err = errors.Join(err, os.Chtimes(path, time.Now(), info.ModTime())); err != nil {
			t.Error(err)
		}
	}
	flip()
	return flip
}
