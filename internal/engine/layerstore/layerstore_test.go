package layerstore

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vbatts/tar-split/tar/storage"

	"github.com/dogestry/dogestry/internal/image"
)

// Layers of real engines are read by the tests of transfer, which compare their
// digests. These are made by hand.

// craft makes a data root with one layer: entries are its tar-split, and fill
// puts what it wants into its directory.
func craft(t *testing.T, driver string, entries []storage.Entry, fill func(dir string)) (*Store, image.ChainID) {
	t.Helper()
	root := t.TempDir()
	stack := image.DigestOf([]byte("stack"))
	layer := filepath.Join(root, "image", driver, "layerdb", "sha256", stack.Hex())
	files := filepath.Join(root, strings.Replace(drivers[driver], "*", "cache-1", 1))
	for _, dir := range []string{layer, files} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var split bytes.Buffer
	z := gzip.NewWriter(&split)
	for _, e := range entries {
		if err := json.NewEncoder(z).Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(layer, "tar-split.json.gz"), split.Bytes())
	write(t, filepath.Join(layer, "cache-id"), []byte("cache-1\n"))
	if fill != nil {
		fill(files)
	}
	s, err := Open(root, driver)
	if err != nil {
		t.Fatal(err)
	}
	return s, stack
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func segment(s string) storage.Entry {
	return storage.Entry{Type: storage.SegmentType, Payload: []byte(s)}
}

func file(name string, size int64) storage.Entry {
	return storage.Entry{Type: storage.FileType, Name: name, Size: size}
}

func TestLayer(t *testing.T) {
	entries := []storage.Entry{segment("<head>"), file("a/file", 5), segment("<pad>"), file("empty", 0), segment(""), file("/b", 3), file("ä", 0), segment("<end>")}
	for driver := range drivers {
		s, stack := craft(t, driver, entries, func(dir string) {
			if err := os.Mkdir(filepath.Join(dir, "a"), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "a", "file"), []byte("hello and more than was said"))
			write(t, filepath.Join(dir, "b"), []byte("dog"))
		})
		r, size, err := s.Layer(t.Context(), stack)
		if err != nil {
			t.Fatal(err)
		}
		const want = "<head>hello<pad>dog<end>"
		got, err := io.ReadAll(r)
		if string(got) != want || size != int64(len(want)) || err != nil {
			t.Errorf("%s: %q of %d bytes, %v, want %q", driver, got, size, err, want)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := r.Read(make([]byte, 1)); err == nil {
			t.Error("a closed reader reads")
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLayerElsewhere(t *testing.T) {
	for _, id := range []string{"", "..", ".", "../../etc", "a/b", "/etc", strings.Repeat("x", maxName+1)} {
		s, stack := craft(t, "overlay2", []storage.Entry{segment("x")}, nil)
		write(t, s.path("layerdb", "sha256", stack.Hex(), "cache-id"), []byte(id))
		if r, _, err := s.Layer(t.Context(), stack); err == nil {
			_ = r.Close()
			t.Errorf("the directory %.20q is opened", id)
		}
	}
}

func TestCancel(t *testing.T) {
	s, stack := craft(t, "overlay2", []storage.Entry{segment("x"), segment("y")}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	r, _, err := s.Layer(ctx, stack)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	if _, _, err := s.Layer(ctx, stack); !errors.Is(err, context.Canceled) {
		t.Errorf("open: %v", err)
	}
}

func TestOpen(t *testing.T) {
	if _, err := Open(t.TempDir(), "btrfs"); !errors.Is(err, ErrUnsupported) {
		t.Errorf("an unknown driver: %v", err)
	}
	if _, err := Open(t.TempDir(), "overlay2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestConfig(t *testing.T) {
	s, _ := craft(t, "overlay2", nil, nil)
	dir := s.path("imagedb", "content", "sha256")
	must(t, os.MkdirAll(dir, 0o700))
	id := image.DigestOf([]byte("{}"))
	if _, err := s.Config(id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	write(t, filepath.Join(dir, id.Hex()), []byte("{}"))
	if got, err := s.Config(id); string(got) != "{}" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	must(t, os.Truncate(filepath.Join(dir, id.Hex()), image.MaxDocument+1))
	if _, err := s.Config(id); err == nil {
		t.Error("a config of more than 8 MiB is read")
	}
}

// FuzzLayer makes sure that no tar-split leads out of its layer, or to a size
// that is not what is read.
func FuzzLayer(f *testing.F) {
	f.Add([]byte(`{"type":2,"payload":"eA=="}` + "\n" + `{"type":1,"name":"a","size":2}`))
	f.Add([]byte(`{"type":1,"name":"../../a","size":2}`))
	f.Fuzz(func(t *testing.T, split []byte) {
		s, stack := craft(t, "overlay2", nil, func(dir string) { write(t, filepath.Join(dir, "a"), []byte("ab")) })
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, _ = w.Write(split)
		_ = w.Close()
		write(t, s.path("layerdb", "sha256", stack.Hex(), "tar-split.json.gz"), z.Bytes())
		r, size, err := s.Layer(t.Context(), stack)
		if err != nil {
			return
		}
		defer r.Close()
		n, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20))
		if err == nil && n != min(size, 1<<20) {
			t.Errorf("%d bytes, and %d were announced", n, size)
		}
	})
}

// TestHugeEntry: what an entry may take in memory is bounded.
func TestHugeEntry(t *testing.T) {
	s, stack := craft(t, "overlay2", []storage.Entry{segment("x"), segment(strings.Repeat("\x00", maxEntry))}, nil)
	if r, _, err := s.Layer(t.Context(), stack); err == nil {
		_ = r.Close()
		t.Error("an entry of more than 16 MiB is read")
	}
	s, stack = craft(t, "overlay2", []storage.Entry{segment("x"), segment(strings.Repeat("\x00", maxEntry/2))}, nil)
	r, size, err := s.Layer(t.Context(), stack)
	if err != nil || size != maxEntry/2+1 {
		t.Fatalf("%d bytes, %v", size, err)
	}
	_ = r.Close()
}
