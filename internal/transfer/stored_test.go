package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/engine"
	"github.com/dogestry/dogestry/internal/enginetest"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

// storedClient is a client that reads the own store of a private engine.
func storedClient(t *testing.T, e *enginetest.Engine, o engine.Options) *counted {
	t.Helper()
	enginetest.NeedPrivate(t, e.Private())
	o.URL = e.Host
	client := dialWith(t, o)
	t.Cleanup(func() { _ = client.Close() })
	return &counted{Client: client}
}

// TestStored pushes each trouble image without an export: the remote proves
// that each layer is its tar, byte for byte. It can do what an export cannot.
func TestStored(t *testing.T) { enginetest.Each(t, testStored) }

func testStored(t *testing.T, e *enginetest.Engine) {
	client := storedClient(t, e, engine.Options{Store: engine.StoreRequire})
	version, err := e.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range enginetest.Trouble() {
		if takesLong(tr) && (testing.Short() || strings.HasPrefix(version, "20.")) {
			continue
		}
		t.Run(tr.Name, func(t *testing.T) {
			loadImage(t, e, tr.Image)
			defer remove(t, e, tr.ID())
			r := remoteOn(t, mem.New(), codec.None)
			name := reference(t, "stored/image:1")
			_, err := Push(t.Context(), client, r, []PushImage{{Source: tr.Ref, Target: name}}, Options{})
			if tr.Name == "sparse" { // the engine keeps it expanded, and forgot how it was
				if !fault.Is(err, fault.Damaged) {
					t.Errorf("%v, want a fault: the engine's store has other bytes", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			id, err := r.Resolve(t.Context(), name)
			if err != nil || id.String() != tr.ID() {
				t.Errorf("the remote has %s, %v, want %s", id, err, tr.ID())
			}
			remove(t, e, tr.ID())
			mustPullAs(t, r, client, name)
		})
	}
	if client.exports > 0 {
		t.Errorf("%d exports", client.exports)
	}
}

func mustPullAs(t *testing.T, r remote.Source, to Loader, name image.Reference) {
	t.Helper()
	if _, err := Pull(t.Context(), r, to, []PullImage{{Source: name}}, Options{}); err != nil {
		t.Error(err)
	}
}

// TestStoredDamaged is about an engine's store that is not what it seems: the
// layers that cannot be had from it come from an export.
func TestStoredDamaged(t *testing.T) { enginetest.Each(t, testStoredDamaged) }

func testStoredDamaged(t *testing.T, e *enginetest.Engine) {
	m := wordsImage("stored/damaged:1", "stored-one", "stored-two", "stored-three")
	loadImage(t, e, m)
	defer remove(t, e, m.ID())
	for name, damage := range map[string]func(t *testing.T, root string){
		"nothing is there": func(t *testing.T, root string) {
			must(t, os.RemoveAll(filepath.Join(root, "image")))
		},
		"a layer is missing": func(t *testing.T, root string) {
			must(t, os.RemoveAll(someLayer(t, root)))
		},
		"the list of a layer's files is another's": func(t *testing.T, root string) {
			all := splits(t, root)
			must(t, copyFile(all[0], all[1]))
		},
		"the list of a layer's files is cut": func(t *testing.T, root string) {
			must(t, os.Truncate(splits(t, root)[0], 40))
		},
		"the list of a layer's files is noise": func(t *testing.T, root string) {
			must(t, os.WriteFile(splits(t, root)[0], []byte("much noise"), 0o600))
		},
		"a layer's name leads elsewhere": func(t *testing.T, root string) {
			must(t, os.WriteFile(filepath.Join(someLayer(t, root), "cache-id"), []byte("../../etc"), 0o600))
		},
		"the config is another": func(t *testing.T, root string) {
			must(t, os.WriteFile(filepath.Join(root, "image/overlay2/imagedb/content/sha256", strings.TrimPrefix(m.ID(), "sha256:")), []byte("{}"), 0o600))
		},
		"files have changed": func(t *testing.T, root string) {
			must(t, os.Remove(filepath.Join(root, "overlay2")))
			must(t, exec.CommandContext(t.Context(), "cp", "-r", filepath.Join(e.DataRoot(), "overlay2"), root).Run())
			changed := 0
			must(t, filepath.WalkDir(filepath.Join(root, "overlay2"), func(path string, d fs.DirEntry, err error) error {
				if err == nil && strings.HasPrefix(d.Name(), "stored-") {
					changed++
					return os.WriteFile(path, bytes.Repeat([]byte("changed!\n"), 1000), 0o600)
				}
				return err
			}))
			if changed < 3 {
				t.Fatalf("%d files changed", changed)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			must(t, exec.CommandContext(t.Context(), "cp", "-r", filepath.Join(e.DataRoot(), "image"), root).Run())
			must(t, os.Symlink(filepath.Join(e.DataRoot(), "overlay2"), filepath.Join(root, "overlay2")))
			damage(t, root)
			var log bytes.Buffer
			logger := slog.New(slog.NewTextHandler(&log, nil))
			client := storedClient(t, e, engine.Options{DataRoot: root, Log: logger})
			r := remoteOn(t, mem.New(), codec.None)
			if _, err := Push(t.Context(), client, r, pushes(t, "stored/damaged:1"), Options{Log: logger}); err != nil {
				t.Fatal(err)
			}
			if client.exports != 1 {
				t.Errorf("%d exports, want one:\n%s", client.exports, log.String())
			}
			if !strings.Contains(log.String(), "export") || !strings.Contains(log.String(), "why=") {
				t.Errorf("the log does not say why: %s", log.String())
			}
			if _, err := r.Resolve(t.Context(), reference(t, "stored/damaged:1")); err != nil {
				t.Error(err)
			}

			client = storedClient(t, e, engine.Options{DataRoot: root, Store: engine.StoreRequire})
			_, err := Push(t.Context(), client, remoteOn(t, mem.New(), codec.None), pushes(t, "stored/damaged:1"), Options{})
			if err == nil || client.exports > 0 || !strings.Contains(fault.AdviceOf(err), "--engine-store require") {
				t.Errorf("required: %v, %d exports", err, client.exports)
			}
		})
	}
}

// TestStoredOff makes sure that what is turned off is not read.
func TestStoredOff(t *testing.T) { enginetest.Each(t, testStoredOff) }

func testStoredOff(t *testing.T, e *enginetest.Engine) {
	client := storedClient(t, e, engine.Options{Store: engine.StoreOff})
	m := wordsImage("stored/off:1", "stored-off")
	loadImage(t, e, m)
	defer remove(t, e, m.ID())
	mustPush(t, client, remoteOn(t, mem.New(), codec.None), "stored/off:1")
	if client.exports != 1 {
		t.Errorf("%d exports", client.exports)
	}
}

// TestStoredRemote makes sure that a failure of the remote is none of the engine's store.
func TestStoredRemote(t *testing.T) { enginetest.Each(t, testStoredRemote) }

func testStoredRemote(t *testing.T, e *enginetest.Engine) {
	client := storedClient(t, e, engine.Options{})
	m := wordsImage("stored/remote:1", "stored-remote")
	loadImage(t, e, m)
	defer remove(t, e, m.ID())
	broken := errors.New("the remote broke")
	_, err := Push(t.Context(), client, failingTarget{remoteOn(t, mem.New(), codec.None), broken}, pushes(t, "stored/remote:1"), Options{})
	if !errors.Is(err, broken) || client.exports > 0 {
		t.Errorf("%v after %d exports", err, client.exports)
	}
}

func wordsImage(name string, words ...string) *enginetest.Image {
	m := enginetest.NewImage().Tag(name)
	for _, w := range words {
		m.Layer(enginetest.File(w, 0o644, strings.Repeat(w+"\n", 1000)))
	}
	return m
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// splits are the lists of files of the image's layers.
func splits(t *testing.T, root string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(root, "image/overlay2/layerdb/sha256/*/tar-split.json.gz"))
	if err != nil || len(all) < 3 {
		t.Fatalf("%q, %v", all, err)
	}
	return all
}

func someLayer(t *testing.T, root string) string { return filepath.Dir(splits(t, root)[0]) }

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// failingTarget is a remote that takes no layer.
type failingTarget struct {
	remote.Target
	err error
}

func (f failingTarget) PutLayer(context.Context, image.Descriptor, io.Reader) (remote.Layer, error) {
	return remote.Layer{}, f.err
}
