package dockerarchive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

func begin(t testing.TB, path string) *Writer {
	t.Helper()
	w, err := Create(path, "docker-archive:"+filepath.Base(path))
	check(t, err)
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func push(t testing.TB, to remote.Target, name string, img remotetest.Image) {
	t.Helper()
	_, err := remotetest.Push(t.Context(), to, remotetest.Ref(t, name), img)
	check(t, err)
}

// entriesOf returns what a foreign reader finds in an archive.
func entriesOf(t testing.TB, path string) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	all := map[string][]byte{}
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		check(t, err)
		if _, twice := all[h.Name]; twice {
			t.Errorf("%s is there twice", h.Name)
		}
		all[h.Name], err = io.ReadAll(r)
		check(t, err)
	}
}

func listed(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestWrite: several images share what they share, several names are one image's,
// nothing is there before Commit, and nothing else after it.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.tar")
	w := begin(t, path)
	one, two := someImage(t, "one"), someImage(t, "two")
	push(t, w, "app:1", one)
	push(t, w, "team/app:live", two)
	push(t, w, "app:also", one)
	push(t, w, "app:moved", one)
	push(t, w, "app:moved", two)
	if err := w.CreateTag(t.Context(), remotetest.Ref(t, "app:1"), two.ID); !fault.Is(err, fault.Refused) {
		t.Errorf("a name that must not move: %v", err)
	}
	if missing, _, err := w.Missing(t.Context(), one.Closure()); err != nil || !missing.Empty() {
		t.Errorf("it lacks %v, %v", missing, err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is there before it is whole: %v", err)
	}
	check(t, w.Commit(t.Context()))
	check(t, w.Close())
	if names := listed(t, dir); !slices.Equal(names, []string{"a.tar"}) {
		t.Errorf("there is %q", names)
	}
	all := entriesOf(t, path)
	for name, content := range all {
		if hex, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && image.DigestOf(content).Hex() != hex {
			t.Errorf("%s has other bytes", name)
		}
	}
	if n := len(all); n != 3+3+2+2 { // files that name, layers, configs, manifests
		t.Errorf("%d entries", n)
	}
	var images []saved
	check(t, json.Unmarshal(all["manifest.json"], &images))
	tags := map[string][]string{}
	for _, s := range images {
		slices.Sort(s.RepoTags)
		tags[s.Config] = s.RepoTags
		for _, l := range s.Layers {
			if all[l] == nil {
				t.Errorf("%s is named and not there", l)
			}
		}
	}
	if got := fmt.Sprint(tags[blobName(one.ID)], tags[blobName(two.ID)]); got != "[app:1 app:also] [app:moved team/app:live]" {
		t.Errorf("names are %s", got)
	}
	a, err := Open(t.Context(), path, "a")
	check(t, err)
	defer a.Close()
	for name, img := range map[string]remotetest.Image{"app:1": one, "app:also": one, "team/app:live": two, "app:moved": two} {
		holds(t, a, name, img)
		if id, err := a.Resolve(t.Context(), remotetest.Ref(t, name)); err != nil || id != img.ID {
			t.Errorf("%s is %s, %v, want %s", name, id, err, img.ID)
		}
	}
}

// TestWriteFailures: a layer that fails leaves no trace in the archive.
func TestWriteFailures(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tar")
	w := begin(t, path)
	img := someImage(t, "app")
	large := remotetest.Noise("large", 1<<20)
	broken := errors.New("it broke")
	ended, cancel := context.WithCancel(t.Context())
	for name, test := range map[string]struct {
		ctx  context.Context
		size int64
		body io.Reader
	}{
		"other bytes":  {t.Context(), int64(len(large)), bytes.NewReader(remotetest.Noise("other", 1<<20))},
		"fewer bytes":  {t.Context(), int64(len(large)), bytes.NewReader(large[:1<<19])},
		"more bytes":   {t.Context(), int64(len(large)), io.MultiReader(bytes.NewReader(large), strings.NewReader("x"))},
		"unknown size": {t.Context(), -1, bytes.NewReader(large[:1<<19])},
		"fails":        {t.Context(), -1, io.MultiReader(bytes.NewReader(large[:1<<19]), iotest.ErrReader(broken))},
		"cancelled":    {ended, -1, io.MultiReader(bytes.NewReader(large[:1<<19]), acting(cancel), bytes.NewReader(large[1<<19:]))},
	} {
		if _, err := w.PutLayer(test.ctx, image.Descriptor{Digest: image.DigestOf(large), Size: test.size}, test.body); err == nil {
			t.Errorf("%s: no error", name)
		}
		if missing, _, err := w.Missing(t.Context(), remote.Closure{Layers: []image.Digest{image.DigestOf(large)}}); err != nil || len(missing.Layers) != 1 {
			t.Errorf("%s: it is there, %v", name, err)
		}
	}
	if err := w.Tag(t.Context(), remotetest.Ref(t, "app:0"), img.ID); !errors.As(err, new(*remote.IncompleteError)) {
		t.Errorf("a name before its image: %v", err)
	}
	push(t, w, "app:1", img)
	check(t, w.Commit(t.Context()))
	info, err := os.Stat(path)
	check(t, err)
	if info.Size() > 1<<19 {
		t.Errorf("it has %d bytes: what failed is in it", info.Size())
	}
	entriesOf(t, path)
	check(t, pullAll(t.Context(), path))
}

type acting func()

func (a acting) Read([]byte) (int, error) {
	a()
	return 0, io.EOF
}

// TestWriteAtOnce: many images at once, of layers whose sizes are not known.
func TestWriteAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tar")
	w := begin(t, path)
	var images []remotetest.Image
	for i := range 8 {
		images = append(images, someImage(t, fmt.Sprint(i)))
	}
	var g errgroup.Group
	for i, img := range images {
		g.Go(func() error {
			for _, l := range img.Layers {
				if _, err := w.PutLayer(t.Context(), image.Descriptor{Digest: image.DigestOf(l), Size: -1}, iotest.HalfReader(bytes.NewReader(l))); err != nil {
					return err
				}
			}
			_, err := remotetest.Push(t.Context(), w, image.Reference{Repository: "app", Tag: fmt.Sprint(i)}, img)
			return err
		})
	}
	check(t, g.Wait())
	check(t, w.Commit(t.Context()))
	entriesOf(t, path)
	a, err := Open(t.Context(), path, "a")
	check(t, err)
	defer a.Close()
	for i, img := range images {
		holds(t, a, fmt.Sprintf("app:%d", i), img)
	}
}

// TestNotOverwritten: what is there stays, also what comes while an archive is written.
func TestNotOverwritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.tar")
	w := begin(t, path)
	push(t, w, "app:1", someImage(t, "app"))
	check(t, os.WriteFile(path, []byte("another's"), 0o644))
	if err := w.Commit(t.Context()); !fault.Is(err, fault.Refused) || fault.AdviceOf(err) == "" {
		t.Errorf("a file that came meanwhile: %v", err)
	}
	check(t, w.Close())
	for _, create := range []func(string, string) (*Writer, error){Create, Plan} {
		if _, err := create(path, "a"); !fault.Is(err, fault.Refused) {
			t.Errorf("a file that is there: %v", err)
		}
		if _, err := create(filepath.Join(dir, "no", "a.tar"), "a"); !fault.Is(err, fault.NotFound) {
			t.Errorf("no directory: %v", err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "another's" {
		t.Errorf("it is %q, %v", b, err)
	}
	check(t, os.Symlink("nowhere", filepath.Join(dir, "link")))
	if _, err := Create(filepath.Join(dir, "link"), "a"); !fault.Is(err, fault.Refused) {
		t.Errorf("a link: %v", err)
	}
	if names := listed(t, dir); !slices.Equal(names, []string{"a.tar", "link"}) {
		t.Errorf("there is %q", names)
	}
}

// TestGivenUp: without Commit, or with a context that has ended, nothing is left; nor
// is what a killed Writer of the same archive left, while that of a living one is.
func TestGivenUp(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.tar")
	dead := filepath.Join(dir, ".a.tar.0123456789abcdef.tmp")
	for _, name := range []string{dead, filepath.Join(dir, ".b.tar.0123456789abcdef.tmp"), filepath.Join(dir, ".a.tar.mine.tmp")} {
		check(t, os.WriteFile(name, []byte("x"), 0o644))
	}
	living := begin(t, path)
	push(t, living, "app:1", someImage(t, "app"))
	w := begin(t, path)
	push(t, w, "app:1", someImage(t, "app"))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Commit(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	check(t, w.Close())
	check(t, w.Close())
	plan, err := Plan(path, "a")
	check(t, err)
	if missing, _, err := plan.Missing(t.Context(), someImage(t, "app").Closure()); err != nil || len(missing.Layers) != 2 {
		t.Errorf("a plan lacks %v, %v", missing, err)
	}
	check(t, plan.Close())
	check(t, living.Commit(t.Context()))
	check(t, living.Close())
	if names := listed(t, dir); !slices.Equal(names, []string{".a.tar.mine.tmp", ".b.tar.0123456789abcdef.tmp", "a.tar"}) {
		t.Errorf("there is %q", names)
	}
	check(t, pullAll(t.Context(), path))
}

// TestHeader: a size that plain tar cannot say takes no more room, and is read.
func TestHeader(t *testing.T) {
	for _, size := range []int64{0, 1, 1<<33 - 1, 1 << 33, 1 << 40} {
		header, err := headerOf(blobName(image.Digest{1}), size)
		check(t, err)
		h, err := tar.NewReader(bytes.NewReader(header)).Next()
		if err != nil || h.Size != size || h.Name != blobName(image.Digest{1}) || len(header) != block {
			t.Errorf("%d bytes: %+v, %v", size, h, err)
		}
	}
}
