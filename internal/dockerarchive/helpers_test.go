package dockerarchive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// part is an entry of an archive.
type part struct {
	tar.Header
	content []byte
}

func regular(name string, content []byte) part {
	return part{tar.Header{Name: name, Typeflag: tar.TypeReg}, content}
}

func link(name, to string) part {
	return part{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}, nil}
}

// pack returns a tar.
func pack(t testing.TB, parts ...part) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, p := range parts {
		h := p.Header
		h.Size, h.Mode = int64(len(p.content)), 0o644
		check(t, w.WriteHeader(&h))
		_, err := w.Write(p.content)
		check(t, err)
	}
	check(t, w.Close())
	return b.Bytes()
}

func manifestJSON(t testing.TB, images ...saved) part {
	t.Helper()
	b, err := json.Marshal(images)
	check(t, err)
	return regular(manifestFile, b)
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var to bytes.Buffer
	w := gzip.NewWriter(&to)
	_, err := w.Write(b)
	check(t, err)
	check(t, w.Close())
	return to.Bytes()
}

// old is an image as Docker up to 24 saves it: a layer that occurs again is a link.
func old(t testing.TB, name string, img remotetest.Image) []part {
	t.Helper()
	s := saved{Config: img.ID.Hex() + ".json"}
	if name != "" {
		s.RepoTags = []string{name}
	}
	var parts []part
	at := map[image.Digest]string{}
	for i, l := range img.Layers {
		dir := image.DigestOf(append([]byte{byte(i)}, l...)).Hex()
		file := dir + "/layer.tar"
		parts = append(parts, part{tar.Header{Name: dir + "/", Typeflag: tar.TypeDir}, nil}, regular(dir+"/VERSION", []byte("1.0")), regular(dir+"/json", []byte("{}")))
		if first := at[image.DigestOf(l)]; first != "" {
			parts = append(parts, link(file, "../"+first))
		} else {
			parts = append(parts, regular(file, l))
			at[image.DigestOf(l)] = file
		}
		s.Layers = append(s.Layers, file)
	}
	return append(parts, regular(s.Config, img.Config), manifestJSON(t, s), regular("repositories", []byte("{}")))
}

func inFile(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.tar")
	check(t, os.WriteFile(path, content, 0o644))
	return path
}

// open opens an archive that is sound.
func open(t testing.TB, content []byte) *Archive {
	t.Helper()
	a, err := Open(t.Context(), inFile(t, content), "docker-archive:a.tar")
	check(t, err)
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func holds(t testing.TB, a *Archive, name string, img remotetest.Image) {
	t.Helper()
	got, err := remotetest.Pull(t.Context(), a, remotetest.Ref(t, name))
	if err != nil {
		t.Errorf("%s: %v", name, err)
	} else if diff := img.Diff(got); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
}

func someImage(t testing.TB, name string) remotetest.Image {
	base := remotetest.FileLayer(t, "base", "base")
	return remotetest.NewImage(t, name, base, remotetest.FileLayer(t, name, name), base)
}
