//go:build unix

package contentstore

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dogestry/dogestry/internal/image"
)

func TestStore(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "containerd", "daemon", plugin, "blobs", "sha256")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const content = "much content"
	id, folder, absent := image.DigestOf([]byte(content)), image.DigestOf([]byte("a folder")), image.DigestOf([]byte("absent"))
	if err := errors.Join(os.WriteFile(filepath.Join(dir, id.Hex()), []byte(content), 0o400), os.Mkdir(filepath.Join(dir, folder.Hex()), 0o700)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(root, id)
	if err != nil || s.Dir() != dir {
		t.Fatalf("Open: %v, error %v", s, err)
	}
	blob, size, err := s.Blob(id)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if b, err := io.ReadAll(blob); string(b) != content || size != int64(len(content)) || err != nil {
		t.Errorf("Blob: %q of %d bytes, error %v", b, size, err)
	}
	if _, _, err := s.Blob(absent); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a blob that is not there: %v", err)
	}
	if _, _, err := s.Blob(folder); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder: %v", err)
	}
	fifo := image.DigestOf([]byte("a FIFO"))
	if err := syscall.Mkfifo(filepath.Join(dir, fifo.Hex()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Blob(fifo); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a FIFO: %v", err)
	}
	// The store that does not have the image is not the engine's.
	if _, err := Open(root, absent); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open for another image: %v", err)
	}
	if _, err := Open(t.TempDir(), id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of nothing: %v", err)
	}
}

// TestOpenOf: the store of the containerd that the engine uses, and no other, also where that has no image yet.
func TestOpenOf(t *testing.T) {
	root := t.TempDir()
	const own = "/run/docker/containerd/containerd.sock"
	if _, err := OpenOf(root, own); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing is there: %v", err)
	}
	dir := filepath.Join(root, "containerd", "daemon", plugin, "blobs", "sha256")
	there, folder, absent := image.DigestOf([]byte("there")), image.DigestOf([]byte("a folder")), image.DigestOf([]byte("absent"))
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, folder.Hex()), 0o700), os.WriteFile(filepath.Join(dir, there.Hex()), nil, 0o400)); err != nil {
		t.Fatal(err)
	}
	s, err := OpenOf(root, own)
	if err != nil || s.Dir() != dir {
		t.Fatalf("OpenOf: %v, error %v", s, err)
	}
	for id, want := range map[image.Digest]bool{there: true, folder: false, absent: false} {
		if has, err := s.Has(id); has != want || err != nil {
			t.Errorf("Has(%s): %v, error %v", id.Short(), has, err)
		}
	}
	for _, socket := range systemSockets {
		if s, err := OpenOf(root, socket); err == nil && s.Dir() == dir {
			t.Errorf("the system's containerd at %s is taken for the engine's own", socket)
		}
	}
}

// TestTar: only what is a tar itself is read at offsets.
func TestTar(t *testing.T) {
	dir := t.TempDir()
	s := &Store{dir: dir}
	add := func(content string) image.Digest {
		id := image.DigestOf([]byte(content))
		if err := os.WriteFile(filepath.Join(dir, id.Hex()), []byte(content), 0o400); err != nil {
			t.Fatal(err)
		}
		return id
	}
	layer := strings.Repeat("n", 257) + "ustar" + strings.Repeat("x", 250) + "much content"
	tar, err := s.Tar(add(layer))
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 7)
	if n, err := tar.ReadAt(p, 517); string(p[:n]) != "content" || tar.Size() != int64(len(layer)) || err != nil && err != io.EOF {
		t.Errorf("%q of %d bytes, error %v", p[:n], tar.Size(), err)
	}
	if n, err := tar.ReadAt(p, 520); string(p[:n]) != "tent" || err != io.EOF {
		t.Errorf("beyond its end: %q, error %v", p[:n], err)
	}
	if err := tar.Close(); err != nil {
		t.Error(err)
	}
	if _, err := tar.ReadAt(p, 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	for _, content := range []string{"", "short", layer[:261], "\x1f\x8b" + strings.Repeat("x", 600), "ustar" + strings.Repeat("x", 600)} {
		if _, err := s.Tar(add(content)); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%.10q of %d bytes: error %v", content, len(content), err)
		}
	}
	if _, err := s.Tar(image.DigestOf([]byte("absent"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}
