package layerstore

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vbatts/tar-split/tar/storage"
)

// TestTar reads every range of a tar: contents of files, and nothing else.
func TestTar(t *testing.T) {
	entries := []storage.Entry{
		segment("<head>"), file("a/file", 5), segment("<pad>"), file("empty", 0), segment(""), file("/b", 3), file("a/c", 4), segment("<end>"),
	}
	const want = "<head>hello<pad>dogmuch<end>"
	const content = "      hello     dogmuch     " // where there is some
	for driver := range drivers {
		s, stack := craft(t, driver, entries, func(dir string) {
			must(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
			write(t, filepath.Join(dir, "a", "file"), []byte("hello"))
			write(t, filepath.Join(dir, "b"), []byte("dog"))
			write(t, filepath.Join(dir, "a", "c"), []byte("much"))
		})
		tar, err := s.Tar(t.Context(), stack)
		must(t, err)
		if tar.Size() != int64(len(want)) {
			t.Errorf("%s: a tar of %d bytes", driver, tar.Size())
		}
		for off := range len(want) + 3 {
			for length := range len(want) + 3 {
				n, some := 0, off < len(want)
				for some && n < length && off+n < len(want) && content[off+n] != ' ' {
					n++
				}
				p := make([]byte, length)
				got, err := tar.ReadAt(p, int64(off))
				switch {
				case got != n || some && string(p[:n]) != want[off:off+n]:
					t.Errorf("%s: %d bytes at %d: %q", driver, length, off, p[:got])
				case n == length && err != nil,
					n < length && off+n >= len(want) && err != io.EOF,
					n < length && off+n < len(want) && !errors.Is(err, errors.ErrUnsupported):
					t.Errorf("%s: %d bytes at %d: error %v", driver, length, off, err)
				}
			}
		}
		if _, err := tar.ReadAt(make([]byte, 1), -1); err == nil {
			t.Error("an offset below zero is read")
		}
		must(t, tar.Close())
		if _, err := tar.ReadAt(make([]byte, 1), 6); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("a closed tar: %v", err)
		}
	}
}

// TestTarChanges: a file that is not as it was when the layer was made is an error,
// never zeros. One that is open, and has been replaced, still has what it had.
func TestTarChanges(t *testing.T) {
	for what, change := range map[string]func(name string) error{
		"shorter": func(name string) error { return os.Truncate(name, 3) },
		"empty":   func(name string) error { return os.Truncate(name, 0) },
		"longer":  func(name string) error { return os.Truncate(name, 7) },
		"gone":    os.Remove,
		"another": func(name string) error {
			return errors.Join(os.WriteFile(name+"2", []byte("such"), 0o600), os.Rename(name+"2", name))
		},
	} {
		for _, opened := range []bool{false, true} {
			var name string
			s, stack := craft(t, "overlay2", []storage.Entry{segment("<"), file("a", 5), file("b", 1), segment(">")}, func(dir string) {
				name = filepath.Join(dir, "a")
				write(t, name, []byte("hello"))
				write(t, filepath.Join(dir, "b"), []byte("b"))
			})
			tar, err := s.Tar(t.Context(), stack)
			must(t, err)
			p := make([]byte, 5)
			if opened {
				if _, err := tar.ReadAt(p[:1], 1); err != nil {
					t.Fatal(err)
				}
			}
			must(t, change(name))
			n, err := tar.ReadAt(p, 1)
			cut := what == "shorter" || what == "empty"
			switch {
			case opened && cut && !errors.Is(err, io.ErrUnexpectedEOF):
				t.Errorf("open and %s: %q, %v", what, p[:n], err)
			case opened && !cut && (string(p[:n]) != "hello" || err != nil):
				t.Errorf("open and %s: %q, %v", what, p[:n], err)
			case !opened && (n > 0 || err == nil):
				t.Errorf("%s: %q, %v", what, p[:n], err)
			}
			if n, err := tar.ReadAt(p[:1], 6); n != 1 || p[0] != 'b' || err != nil {
				t.Errorf("%s: the other file: %q, %v", what, p[:n], err)
			}
			must(t, tar.Close())
		}
	}
}

// TestTarAtOnce: several goroutines read, and one closes.
func TestTarAtOnce(t *testing.T) {
	names := []string{"a", "b", "c"}
	var entries []storage.Entry
	for _, name := range names {
		entries = append(entries, segment("<"), file(name, 1000), segment(">"))
	}
	s, stack := craft(t, "overlay2", entries, func(dir string) {
		for _, name := range names {
			write(t, filepath.Join(dir, name), []byte(strings.Repeat(name, 1000)))
		}
	})
	tar, err := s.Tar(t.Context(), stack)
	must(t, err)
	read := func(i int) error {
		name := i % len(names)
		p := make([]byte, 100)
		_, err := tar.ReadAt(p, int64(1002*name+1+i%900))
		if err == nil && string(p) != strings.Repeat(names[name], 100) {
			t.Errorf("%.10q of the file %s", p, names[name])
		}
		return err
	}
	var readers sync.WaitGroup
	for g := range 8 {
		readers.Go(func() {
			for i := range 200 {
				if err := read(g + i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	readers.Wait()
	for g := range 8 {
		readers.Go(func() {
			for i := g; ; i++ {
				if err := read(i); err != nil {
					if !errors.Is(err, fs.ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	reading, err := tar.take(0)
	must(t, err)
	must(t, tar.Close())
	readers.Wait()
	tar.giveBack(0, reading)
	if _, err := reading.Read(nil); !errors.Is(err, fs.ErrClosed) || tar.last != nil {
		t.Errorf("a file that was read at Close is open: %v", err)
	}
}

func TestTarCancel(t *testing.T) {
	s, stack := craft(t, "overlay2", []storage.Entry{file("a", 1)}, func(dir string) { write(t, filepath.Join(dir, "a"), []byte("a")) })
	ctx, cancel := context.WithCancel(t.Context())
	tar, err := s.Tar(ctx, stack)
	must(t, err)
	defer tar.Close()
	cancel()
	if _, err := tar.ReadAt(make([]byte, 1), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	if _, err := s.Tar(ctx, stack); !errors.Is(err, context.Canceled) {
		t.Errorf("open: %v", err)
	}
}

// TestTarTooManyFiles: what a layer's files take in memory is bounded.
func TestTarTooManyFiles(t *testing.T) {
	for what, tar := range map[string]*Tar{
		"names":  {names: make([]byte, maxTable-placeSize-1, maxTable)},
		"places": {places: make([]place, maxTable/placeSize-1, maxTable/placeSize)},
	} {
		entry := file("x", 1)
		must(t, tar.add(&entry))
		if err := tar.add(&entry); !errors.Is(err, errors.ErrUnsupported) || tar.size != 1 {
			t.Errorf("too many %s: %v", what, err)
		}
	}
}

// FuzzTar makes sure that no tar-split leads out of its layer, and that what is read
// at an offset is what Layer has there.
func FuzzTar(f *testing.F) {
	f.Add([]byte(`{"type":2,"payload":"eA=="}`+"\n"+`{"type":1,"name":"a","size":2}`), int64(0), uint16(9))
	f.Add([]byte(`{"type":1,"name":"../../a","size":2}`), int64(0), uint16(1))
	f.Add([]byte(`{"type":1,"name":"a","size":2}`+"\n"+`{"type":1,"name_raw":"YQ==","size":2}`+"\n"+`{"type":1,"name":"a","size":1}`), int64(1), uint16(4))
	f.Add([]byte(`{"type":1,"name":"a","size":-2}`), int64(1), uint16(4))
	f.Add([]byte(`{"type":1,"name":"a","size":9223372036854775807}`+"\n"+`{"type":1,"name":"a","size":2}`), int64(1<<62), uint16(4))
	f.Fuzz(func(t *testing.T, split []byte, off int64, length uint16) {
		s, stack := craft(t, "overlay2", nil, func(dir string) { write(t, filepath.Join(dir, "a"), []byte("ab")) })
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, _ = w.Write(split)
		_ = w.Close()
		write(t, s.path("layerdb", "sha256", stack.Hex(), "tar-split.json.gz"), z.Bytes())
		tar, err := s.Tar(t.Context(), stack)
		if err != nil {
			return
		}
		defer tar.Close()
		r, size, err := s.Layer(t.Context(), stack)
		if err != nil {
			t.Fatalf("the layer cannot be opened: %v", err)
		}
		defer r.Close()
		p := make([]byte, length)
		n, err := tar.ReadAt(p, off)
		if n < len(p) && err == nil || n > 0 && int64(n) > size-off || tar.Size() != size {
			t.Fatalf("%d of %d bytes at %d of %d, %v", n, length, off, size, err)
		}
		if n == 0 || off > 1<<20 {
			return
		}
		whole, err := io.ReadAll(io.LimitReader(r, off+int64(n)))
		if whole = whole[min(off, int64(len(whole))):]; err == nil && !bytes.Equal(whole, p[:n]) {
			t.Errorf("%q at %d, and the layer has %q", p[:n], off, whole)
		}
	})
}
