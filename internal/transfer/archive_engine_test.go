package transfer

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dogestry/dogestry/internal/dockerarchive"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
)

// TestArchiveOfEngine: what an engine saves goes to a remote under the ID that it has
// in the engine, and comes back with it: by a pull, and by `docker load` of an archive
// that a copy wrote.
func TestArchiveOfEngine(t *testing.T) {
	for _, each := range []func(*testing.T, func(*testing.T, *enginetest.Engine)){enginetest.Each, enginetest.EachContainerd, enginetest.EachPodman} {
		each(t, testArchiveOfEngine)
	}
}

func testArchiveOfEngine(t *testing.T, e *enginetest.Engine) {
	client := &counted{Client: connect(t, e.Host)}
	const name = "much:archived"
	// Docker 29 with the classic store keeps layers of this one when it is removed, so no other test has them.
	plain := layered("archived", "archived-a", "archived-b", "archived-a")
	var l enginetest.Layout
	packed := l.Image(layered("archived", "a", "b", "c"), enginetest.Gzip, enginetest.Zstd, enginetest.Raw).For("linux", client.Platform().Architecture)
	index := l.Index(packed, l.Attestation(packed, `{"_type":"https://in-toto.io/Statement/v0.1"}`))
	for what, load := range map[string]func(t *testing.T){
		"plain": func(t *testing.T) {
			must(t, e.LoadImage(t.Context(), plain))
			t.Cleanup(func() { removeAll(t, e, name) })
		},
		"packed": func(t *testing.T) { loadLayout(t, e, &l, packed, name) },
		"index":  func(t *testing.T) { loadLayout(t, e, &l, index, name) },
	} {
		if what != "plain" && client.Kind() != engine.Containerd {
			continue // classic stores unpack all layers
		}
		t.Run(what, func(t *testing.T) {
			load(t)
			id, _, err := e.ImageID(t.Context(), name)
			must(t, err)
			saved := filepath.Join(t.TempDir(), "saved.tar")
			file, err := os.Create(saved)
			must(t, err)
			must(t, e.Save(t.Context(), file, name))
			must(t, file.Close())
			a, err := dockerarchive.Open(t.Context(), saved, saved)
			must(t, err)
			defer a.Close()
			r := remoteIn(t, t.TempDir())
			_, err = copyAll(t, a, r, CopyOptions{})
			must(t, err)
			tag := reference(t, tagsOf(t, r)[0]) // Podman adds where it is from
			if got, err := r.Resolve(t.Context(), tag); err != nil || got.String() != id {
				t.Errorf("the remote has %s, %v, the engine %s", got, err, id)
			}
			var blobs []string
			if client.Kind() == engine.Containerd {
				blobs = savedBlobs(t, e, name)
			}
			same := func(how string) {
				t.Helper()
				if got, _, err := e.ImageID(t.Context(), name); err != nil || got != id {
					t.Errorf("%s: the engine has %s, %v, want %s", how, got, err, id)
				}
				if blobs != nil && !slices.Equal(blobs, savedBlobs(t, e, name)) {
					t.Errorf("%s: the engine has other blobs", how)
				}
				removeAll(t, e, name)
			}
			removeAll(t, e, name)
			_, err = Pull(t.Context(), r, client, []PullImage{{Source: tag, Target: reference(t, name)}}, Options{})
			must(t, err)
			same("pulled")

			written := filepath.Join(t.TempDir(), "written.tar")
			w, err := dockerarchive.Create(written, written)
			must(t, err)
			defer w.Close()
			_, err = Copy(t.Context(), r, w, []CopyImage{{Source: tag, Target: reference(t, name)}}, CopyOptions{})
			must(t, err)
			file, err = os.Open(written)
			must(t, err)
			defer file.Close()
			must(t, e.LoadArchive(t.Context(), file))
			same("loaded")
		})
	}
}

// TestArchiveRuns: an image that docker load takes from a copy's archive runs.
func TestArchiveRuns(t *testing.T) {
	enginetest.Each(t, func(t *testing.T, e *enginetest.Engine) {
		ref := e.LoadFor(t, enginetest.Hello)
		r := remoteIn(t, t.TempDir())
		mustPush(t, connect(t, e.Host), r, ref)
		const name = "much:hello-archived"
		written := filepath.Join(t.TempDir(), "written.tar")
		w, err := dockerarchive.Create(written, written)
		must(t, err)
		defer w.Close()
		_, err = Copy(t.Context(), r, w, []CopyImage{{Source: reference(t, ref), Target: reference(t, name)}}, CopyOptions{})
		must(t, err)
		if _, err := e.Docker(t.Context(), nil, "load", "-i", written); err != nil {
			t.Fatal(err)
		}
		defer e.Docker(t.Context(), nil, "rmi", name) //nolint:errcheck // only a name
		out, err := e.Docker(t.Context(), nil, "run", "--rm", "--network=none", name, "wow")
		if err != nil || string(out) != "hello from dogestry\nwow\n" {
			t.Errorf("it says %q, %v", out, err)
		}
	})
}
