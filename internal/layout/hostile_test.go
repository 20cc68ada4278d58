package layout_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/layout"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/storage"
)

// TestHostile puts into a layout what an attacker, or a torn copy, may: each is an
// error of its kind that names what is wrong, and nothing outside is read.
func TestHostile(t *testing.T) {
	img := remotetest.NewImage(t, "app", remotetest.FileLayer(t, "a", "a"), remotetest.FileLayer(t, "b", "b"))
	manifest := image.DigestOf(img.Manifest())
	ref := remotetest.Ref(t, "app:1")
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, img.Layers[0])
	config := []byte(`{"x":"` + strings.Repeat("x", image.MaxDocument) + `"}`)
	for _, test := range []struct {
		name   string
		damage func(t *testing.T, dir string, blob func(image.Digest) string)
		says   string
	}{
		{"a config with other bytes", func(t *testing.T, dir string, blob func(image.Digest) string) { write(t, blob(img.ID), []byte(`{}`)) }, "document " + img.ID.Short() + " is damaged"},
		{"a manifest with other bytes", func(t *testing.T, dir string, blob func(image.Digest) string) { write(t, blob(manifest), []byte(`{}`)) }, "document " + manifest.Short() + " is damaged"},
		{"a config that is missing", func(t *testing.T, dir string, blob func(image.Digest) string) { remove(t, blob(img.ID)) }, img.ID.Hex() + " is missing"},
		{"a manifest that is missing", func(t *testing.T, dir string, blob func(image.Digest) string) { remove(t, blob(manifest)) }, manifest.Hex() + " is missing"},
		{"a layer that is missing", func(t *testing.T, dir string, blob func(image.Digest) string) { remove(t, blob(img.DiffIDs()[1])) }, img.DiffIDs()[1].Hex() + " is missing"},
		{"a layer cut short", func(t *testing.T, dir string, blob func(image.Digest) string) {
			write(t, blob(img.DiffIDs()[1]), img.Layers[1][:512])
		}, "layer " + img.DiffIDs()[1].Short() + " is damaged"},
		{"a config without end", func(t *testing.T, dir string, blob func(image.Digest) string) { write(t, blob(img.ID), config) }, "larger than 8 MiB"},
		{"a layer that is a link out", func(t *testing.T, dir string, blob func(image.Digest) string) {
			remove(t, blob(img.DiffIDs()[0]))
			check(t, os.Symlink(secret, blob(img.DiffIDs()[0])))
		}, img.DiffIDs()[0].Hex() + " is missing"},
		{"blobs that are a link", func(t *testing.T, dir string, blob func(image.Digest) string) {
			check(t, os.Rename(filepath.Join(dir, "blobs"), secret+".blobs"))
			check(t, os.Symlink(secret+".blobs", filepath.Join(dir, "blobs")))
		}, "blobs"},
		{"a layer that is a directory", func(t *testing.T, dir string, blob func(image.Digest) string) {
			remove(t, blob(img.DiffIDs()[0]))
			check(t, os.Mkdir(blob(img.DiffIDs()[0]), 0o755))
		}, img.DiffIDs()[0].Hex() + " is missing"},
		{"an index that is no JSON", func(t *testing.T, dir string, blob func(image.Digest) string) {
			write(t, filepath.Join(dir, "index.json"), []byte("{"))
		}, "index.json of the-layout is damaged"},
		{"an index without end", func(t *testing.T, dir string, blob func(image.Digest) string) {
			write(t, filepath.Join(dir, "index.json"), bytes.Repeat([]byte(" "), image.MaxDocument+1))
		}, "too large"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := remotetest.Push(t.Context(), create(t, dir), ref, img); err != nil {
				t.Fatal(err)
			}
			test.damage(t, dir, func(d image.Digest) string { return filepath.Join(dir, "blobs", "sha256", d.Hex()) })
			l, err := layout.Open(t.Context(), store(t, dir), "the-layout")
			if err != nil {
				t.Fatal(err)
			}
			_, err = remotetest.Pull(t.Context(), l, ref)
			if !fault.Is(err, fault.Damaged) && test.name != "blobs that are a link" || err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("pull: %v, want a damaged fault that says %q", err, test.says)
			}
		})
	}
}

// TestElsewhere: a layer whose bytes are to be fetched from a URL is refused, and
// the URL is told; with its bytes there it is as any other.
func TestElsewhere(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir)
	img := remotetest.NewImage(t, "app", remotetest.FileLayer(t, "a", "a"))
	manifest := []byte(strings.Replace(string(img.Manifest()), `"layers":[{`, `"layers":[{"urls":["https://example.com/layer"],`, 1))
	manifest = []byte(strings.Replace(string(manifest), "image.layer.v1.tar", "image.layer.nondistributable.v1.tar", 1))
	for _, doc := range [][]byte{img.Config, manifest} {
		check(t, l.PutDocument(t.Context(), doc))
	}
	id := image.DigestOf(manifest)
	write(t, filepath.Join(dir, "index.json"), fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":"m","digest":%q,"size":%d}]}`, id, len(manifest)))
	_, err := remotetest.Pull(t.Context(), l, remotetest.Ref(t, "any:1"))
	if !fault.Is(err, fault.Damaged) || !strings.Contains(fault.AdviceOf(err), `"https://example.com/layer"`) {
		t.Errorf("without its bytes: %v, advice %q", err, fault.AdviceOf(err))
	}
	if err := l.Tag(t.Context(), remotetest.Ref(t, "any:1"), id); !errors.As(err, new(*remote.IncompleteError)) {
		t.Errorf("tag without its bytes: %v", err)
	}
	if _, err := l.PutLayer(t.Context(), image.Descriptor{Digest: img.DiffIDs()[0], Size: -1}, bytes.NewReader(img.Layers[0])); err != nil {
		t.Fatal(err)
	}
	got, err := remotetest.Pull(t.Context(), l, remotetest.Ref(t, "any:1"))
	if err != nil || img.Diff(got) != "" {
		t.Errorf("with its bytes: %v %s", err, img.Diff(got))
	}
}

// TestClaimedID: that an image is known by its config counts only where the manifest
// is the one that follows from the config.
func TestClaimedID(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir)
	img, other := remotetest.NewImage(t, "app", remotetest.FileLayer(t, "a", "a")), remotetest.NewImage(t, "other")
	for _, i := range []remotetest.Image{img, other} {
		if _, err := remotetest.Push(t.Context(), l, remotetest.Ref(t, "app:1"), i); err != nil {
			t.Fatal(err)
		}
	}
	docker := bytes.Replace(img.Manifest(), []byte(`{"schemaVersion":2,`), []byte(`{ "schemaVersion":2,`), 1)
	check(t, l.PutDocument(t.Context(), docker))
	for name, test := range map[string]struct {
		root  []byte
		claim image.Digest
		want  image.ID
	}{
		"true":                 {img.Manifest(), img.ID, img.ID},
		"another image's":      {img.Manifest(), other.ID, image.DigestOf(img.Manifest())},
		"not the frozen bytes": {docker, img.ID, image.DigestOf(docker)},
		"nothing there":        {img.Manifest(), image.DigestOf([]byte("x")), image.DigestOf(img.Manifest())},
		"of what is a config":  {img.Config, img.ID, img.ID},
	} {
		write(t, filepath.Join(dir, "index.json"), fmt.Appendf(nil,
			`{"schemaVersion":2,"manifests":[{"digest":%q,"size":%d,"annotations":{"com.github.dogestry.image.id":%q}}]}`, image.DigestOf(test.root), len(test.root), test.claim))
		if id, err := l.Resolve(t.Context(), remotetest.Ref(t, "any:1")); err != nil || id != test.want {
			t.Errorf("%s: %s, %v, want %s", name, id, err, test.want)
		}
	}
}

// TestVersions: a layout of another version is neither read nor written, and a
// directory of something else gets no blobs.
func TestVersions(t *testing.T) {
	for version, kind := range map[string]fault.Kind{
		`{"imageLayoutVersion":"1.0.0"}`:             0,
		`{ "imageLayoutVersion" : "1.0.0", "x": 1 }`: 0,
		`{"imageLayoutVersion":"1.0.1"}`:             fault.Refused,
		`{}`:                                         fault.Refused,
		`x`:                                          fault.Refused,
		strings.Repeat(" ", 1<<20):                   fault.Damaged,
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "oci-layout"), []byte(version))
		write(t, filepath.Join(dir, "index.json"), []byte(`{"manifests":[]}`))
		for what, open := range map[string]func() error{
			"open":   func() error { _, err := layout.Open(t.Context(), store(t, dir), "l"); return err },
			"create": func() error { _, err := layout.Create(t.Context(), store(t, dir), "l"); return err },
			"plan":   func() error { _, err := layout.Plan(t.Context(), store(t, dir), "l"); return err },
		} {
			if err := open(); kind == 0 && err != nil || kind != 0 && !fault.Is(err, kind) {
				t.Errorf("%s of %.40q: %v", what, version, err)
			}
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), nil)
	if _, err := layout.Create(t.Context(), store(t, dir), "l"); !fault.Is(err, fault.Refused) || !strings.Contains(err.Error(), "file") {
		t.Errorf("in a directory of something else: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("it has %v by now, %v", entries, err)
	}
}

// TestCreateAtOnce: many make one layout of an empty directory, and name images in it.
func TestCreateAtOnce(t *testing.T) {
	for range 5 {
		dir := t.TempDir()
		var g errgroup.Group
		for i := range 8 {
			s := store(t, dir)
			img := remotetest.NewImage(t, fmt.Sprint(i), remotetest.FileLayer(t, "a", "a"))
			g.Go(func() error {
				l, err := layout.Create(t.Context(), s, "l")
				if err == nil {
					_, err = remotetest.Push(t.Context(), l, image.Reference{Repository: "app", Tag: fmt.Sprint(i)}, img)
				}
				return err
			})
		}
		check(t, g.Wait())
		if names, err := plain(store(t, dir)); err != nil || len(names) != 8 {
			t.Errorf("%d names, %v", len(names), err)
		}
	}
}

// reading notes what is read of a store.
type reading struct {
	layout.Store
	keys *[]string
}

func (r reading) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	*r.keys = append(*r.keys, key)
	return r.Store.Get(ctx, key, offset, length)
}

// TestHashedOnce: a layer of which no manifest tells the size is hashed before its
// image is named, and not when it, or another that has it, is named again.
func TestHashedOnce(t *testing.T) {
	dir := t.TempDir()
	one := remotetest.NewImage(t, "one", remotetest.FileLayer(t, "a", "a"))
	two := remotetest.NewImage(t, "two", one.Layers[0])
	object := "blobs/sha256/" + one.DiffIDs()[0].Hex()
	_, err := create(t, dir).PutLayer(t.Context(), image.Descriptor{Digest: one.DiffIDs()[0], Size: -1}, bytes.NewReader(one.Layers[0]))
	check(t, err)
	for _, test := range []struct {
		name  string
		img   remotetest.Image
		reads bool
	}{{"app:1", one, true}, {"app:1", one, false}, {"app:2", two, false}} {
		var keys []string
		l, err := layout.Create(t.Context(), reading{store(t, dir), &keys}, "l")
		check(t, err)
		_, err = remotetest.Push(t.Context(), l, remotetest.Ref(t, test.name), test.img)
		check(t, err)
		if slices.Contains(keys, object) != test.reads {
			t.Errorf("%s: the layer is read: %t, want %t", test.name, !test.reads, test.reads)
		}
	}
}

// late is a store in which somebody makes a layout after it was looked for.
type late struct {
	layout.Store
	before func()
}

func (l late) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	l.before()
	return l.Store.List(ctx, prefix)
}

// TestCreateLate is the moment that TestCreateAtOnce may miss.
func TestCreateLate(t *testing.T) {
	dir := t.TempDir()
	if _, err := layout.Create(t.Context(), late{store(t, dir), func() { create(t, dir) }}, "l"); err != nil {
		t.Errorf("another was quicker: %v", err)
	}
}

// TestCreateTag: of many that take a name which must not move, one succeeds.
func TestCreateTag(t *testing.T) {
	dir := t.TempDir()
	ref := remotetest.Ref(t, "app:1")
	var g errgroup.Group
	var won atomic.Int32
	for i := range 8 {
		l, img := create(t, dir), remotetest.NewImage(t, fmt.Sprint(i))
		check(t, l.PutDocument(t.Context(), img.Config))
		g.Go(func() error {
			for range 2 { // the winner may do it again
				err := l.CreateTag(t.Context(), ref, img.ID)
				if err == nil {
					won.Add(1)
				} else if !fault.Is(err, fault.Refused) {
					return err
				}
			}
			if err := l.MayCreate(t.Context(), ref, img.ID, false); err != nil && !fault.Is(err, fault.Refused) {
				return err
			}
			return nil
		})
	}
	check(t, g.Wait())
	if won.Load() != 2 {
		t.Errorf("%d of 16 succeeded", won.Load())
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	check(t, os.WriteFile(path, content, 0o644))
}

func remove(t testing.TB, path string) {
	t.Helper()
	check(t, os.Remove(path))
}
