package repo_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dogestry/dogestry/internal/codec"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/remote/remotetest"
	"github.com/dogestry/dogestry/internal/repo"
	"github.com/dogestry/dogestry/internal/storage/mem"
)

func incompleteError(t testing.TB, err error) *remote.IncompleteError {
	t.Helper()
	var incomplete *remote.IncompleteError
	if !errors.As(err, &incomplete) {
		t.Fatalf("got %v, want an IncompleteError", err)
	}
	return incomplete
}

// TestTornCopy takes parts of an entry away, as a copier does that was interrupted.
func TestTornCopy(t *testing.T) {
	whole := newStored(t)
	id := whole.img.DiffIDs()[0]
	entry := "images/" + id.Hex() + "/"
	for name, tear := range map[string]func(s stored){
		"json without its layer": func(s stored) { remove(t, s.store, entry+"layer.tar.lz4") },
		"layer without its json": func(s stored) { remove(t, s.store, entry+"json") },
		"VERSION alone":          func(s stored) { remove(t, s.store, entry+"json"); remove(t, s.store, entry+"layer.tar.lz4") },
		"cut json":               func(s stored) { put(t, s.store, entry+"json", whole.objects[entry+"json"][:20]) },
		"empty json":             func(s stored) { put(t, s.store, entry+"json", nil) },
		"json of another layer": func(s stored) {
			put(t, s.store, entry+"json", metadata(whole.img.DiffIDs()[1], 10, "layer.tar.lz4", 10))
		},
		"json without a diffID":   func(s stored) { put(t, s.store, entry+"json", []byte(`{"size":10,"file":"layer.tar.lz4"}`)) },
		"json that is null":       func(s stored) { put(t, s.store, entry+"json", []byte(`null`)) },
		"json with a twin":        func(s stored) { put(t, s.store, entry+"json", slices.Repeat(whole.objects[entry+"json"], 2)) },
		"json of negative size":   func(s stored) { put(t, s.store, entry+"json", metadata(id, -1, "layer.tar.lz4", 10)) },
		"json as deep as it goes": func(s stored) { put(t, s.store, entry+"json", []byte(strings.Repeat("[", 60000))) },
		"deep json of its diffID": func(s stored) { put(t, s.store, entry+"json", deep(id)) },
		"json of 65,537 bytes": func(s stored) {
			put(t, s.store, entry+"json", append(whole.objects[entry+"json"], make([]byte, 65537)...))
		},
		"size as text":             func(s stored) { put(t, s.store, entry+"json", fmt.Appendf(nil, `{"diffID":%q,"size":"7"}`, id)) },
		"size that is no integer":  func(s stored) { put(t, s.store, entry+"json", fmt.Appendf(nil, `{"diffID":%q,"size":1e99}`, id)) },
		"an alias, and no layer":   func(s stored) { remove(t, s.store, entry+"layer.tar.lz4"); put(t, s.store, entry+"json", alias(id)) },
		"only a file of no format": func(s stored) { remove(t, s.store, entry+"layer.tar.lz4"); put(t, s.store, entry+"layer.tar.xz", nil) },
		"a file elsewhere": func(s stored) {
			remove(t, s.store, entry+"layer.tar.lz4")
			put(t, s.store, entry+"json", metadata(id, 1, "../VERSION", 3))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStored(t)
			tear(s)
			r := open(t, s.store, codec.Zstd)
			_, err := remotetest.Pull(t.Context(), r, remotetest.Ref(t, "app:1"))
			if !fault.Is(err, fault.Damaged) || !strings.Contains(err.Error(), "incomplete copy: "+entry) || fault.AdviceOf(err) == "" {
				t.Errorf("pull: %v, want an incomplete copy that names the entry, and advice", err)
			}
			missing, there, err := r.Missing(t.Context(), s.img.Closure())
			if err != nil || len(missing.Layers) != 1 || missing.Layers[0] != id || len(missing.Documents) != 0 || len(there) != 4 {
				t.Errorf("missing: %v, %v, %d there", err, missing, len(there))
			}
			incomplete := incompleteError(t, r.Tag(t.Context(), remotetest.Ref(t, "app:2"), s.img.ID))
			if len(incomplete.Missing.Layers) != 1 || incomplete.Missing.Layers[0] != id {
				t.Errorf("tag: %+v", incomplete)
			}
			if err := remotetest.Put(t.Context(), r, s.img, missing); err != nil {
				t.Fatal(err)
			}
			if err := s.pull(t, "app:1", entry+"json", "mended"); err != nil {
				t.Errorf("PutLayer does not complete it: %v", err)
			}
		})
	}
}

func metadata(id image.DiffID, size int64, file string, stored int64) []byte {
	return fmt.Appendf(nil, `{"diffID":%q,"size":%d,"file":%q,"storedSize":%d}`+"\n", id, size, file, stored)
}

func alias(id image.DiffID) []byte {
	return fmt.Appendf(nil, `{"diffID":%q,"size":10,"blob":%q}`, id, id)
}

// deep is metadata with a member that goes too deep for a parser that recurses.
func deep(id image.DiffID) []byte {
	return fmt.Appendf(nil, `{"diffID":%q,"size":0,"x":%s}`, id, strings.Repeat("[", 20000)+strings.Repeat("]", 20000))
}

// TestLies is about metadata that parses and is not true.
func TestLies(t *testing.T) {
	s := newStored(t)
	id := s.img.DiffIDs()[0]
	entry := "images/" + id.Hex() + "/"
	size := int64(len(s.img.Layers[0]))
	storedSize := int64(len(s.objects[entry+"layer.tar.lz4"]))
	for _, lie := range []int64{0, 1, size - 1, size + 1, 2 * size, 1 << 40, 1<<63 - 1} {
		put(t, s.store, entry+"json", metadata(id, lie, "layer.tar.lz4", storedSize))
		if err := s.pull(t, "app:1", entry+"json", "size lies"); err == nil {
			t.Errorf("size %d instead of %d, and nobody saw it", lie, size)
		}
	}
	// The stored size is a hint: a pull does not need it, a push mends it.
	for _, lie := range []int64{-1, 0, storedSize - 1, storedSize + 1, 1<<63 - 1} {
		put(t, s.store, entry+"json", metadata(id, size, "layer.tar.lz4", lie))
		if err := s.pull(t, "app:1", entry+"json", "storedSize lies"); err != nil {
			t.Errorf("storedSize %d instead of %d: %v", lie, storedSize, err)
		}
		missing, _, err := open(t, s.store, codec.LZ4).Missing(t.Context(), s.img.Closure())
		if err != nil || len(missing.Layers) != 1 || missing.Layers[0] != id {
			t.Errorf("storedSize %d: %v, missing %v", lie, err, missing)
		}
	}
	s.push(t)
	if got := get(t, s.store, entry+"json"); string(got) != string(s.objects[entry+"json"]) {
		t.Errorf("a push leaves %s", got)
	}
	// The file that it names is not there, another one is.
	for _, file := range []string{"layer.tar.zst", "layer.tar", "", "json", "../" + id.Hex() + "/layer.tar.lz4", "/layer.tar.lz4"} {
		put(t, s.store, entry+"json", metadata(id, size, file, storedSize))
		if err := s.pull(t, "app:1", entry+"json", "file lies"); err != nil {
			t.Errorf("file %q: %v", file, err)
		}
		missing, _, err := open(t, s.store, codec.LZ4).Missing(t.Context(), s.img.Closure())
		if err != nil || len(missing.Layers) != 1 {
			t.Errorf("file %q: %v, missing %v", file, err, missing)
		}
	}
	// Two files, of which the one that is not named is damaged.
	put(t, s.store, entry+"json", metadata(id, size, "layer.tar", size))
	put(t, s.store, entry+"layer.tar", s.img.Layers[0])
	put(t, s.store, entry+"layer.tar.lz4", []byte("garbage"))
	if err := s.pull(t, "app:1", entry+"json", "two files"); err != nil {
		t.Errorf("the file that is named: %v", err)
	}
}

// TestMarkers is about the major version.
func TestMarkers(t *testing.T) {
	for marker, want := range map[string]bool{
		"2.0": true, "2.0\n": true, "2.1": true, "2.99": true, "1.0": true,
		"3.0": false, "3": false, "10.0": false, "99999999999999999999.0": false, "": false, "x": false, "two.0": false, ".0": false,
		strings.Repeat("2", 1<<17): false,
	} {
		s := newStored(t)
		put(t, s.store, "VERSION", []byte(marker))
		r, err := repo.Open(t.Context(), s.store, repo.Options{Name: "the-remote"})
		if !want {
			if err == nil || !strings.Contains(err.Error(), "the-remote") || fault.KindOf(err) != fault.Refused && len(marker) < 100 {
				t.Errorf("marker %.30q: %v, want a refused fault that names the remote", marker, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("marker %q: %v", marker, err)
			continue
		}
		if _, err := remotetest.Pull(t.Context(), r, remotetest.Ref(t, "app:1")); err != nil {
			t.Errorf("marker %q: %v", marker, err)
		}
		s.push(t)
		if got := get(t, s.store, "VERSION"); string(got) != marker {
			t.Errorf("a push makes %q of the marker %q", got, marker)
		}
	}
	// Absent means 2.0; what documents name is verified whatever an entry's VERSION says.
	s := newStored(t)
	remove(t, s.store, "VERSION")
	for key := range s.objects {
		if strings.HasSuffix(key, "/VERSION") {
			put(t, s.store, key, []byte("1.0"))
		}
	}
	if err := s.pull(t, "app:1", "VERSION", "removed"); err != nil {
		t.Error(err)
	}
}

// TestOriginal is about an entry that the original dogestry wrote.
func TestOriginal(t *testing.T) {
	s := mem.New()
	id := strings.Repeat("0123", 16)
	put(t, s, "repositories/app/1", []byte(id))
	put(t, s, "images/"+id+"/VERSION", []byte("1.0"))
	put(t, s, "images/"+id+"/json", []byte(`{"id":"`+id+`","parent":""}`))
	put(t, s, "images/"+id+"/layer.tar", []byte("tar"))
	r := open(t, s, codec.LZ4)
	for _, name := range []string{"app:1", "app@sha256:" + id} { // it is no document, and no digest
		_, err := remotetest.Pull(t.Context(), r, remotetest.Ref(t, name))
		if !fault.Is(err, fault.Damaged) || !errors.Is(err, remote.ErrOriginal) || !strings.Contains(err.Error(), "original dogestry (format 1.0)") {
			t.Errorf("pull %s: %v", name, err)
		}
	}
	// It gets no other name.
	if err := r.Tag(t.Context(), remotetest.Ref(t, "app:2"), mustID(t, id)); !fault.Is(err, fault.Refused) || !strings.Contains(fault.AdviceOf(err), "dogestry upgrade") {
		t.Errorf("tag: %v", err)
	}
	// A push of another image moves the tag.
	img := remotetest.NewImage(t, "new", remotetest.FileLayer(t, "a", "a"))
	if _, err := remotetest.Push(t.Context(), r, remotetest.Ref(t, "app:1"), img); err != nil {
		t.Error(err)
	}
}

// endless is a store where one object does not end.
type endless struct {
	*mem.Store
	key  string
	read atomic.Int64
}

func (e *endless) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if key != e.key {
		return e.Store.Get(ctx, key, offset, length)
	}
	return io.NopCloser(e), nil
}

func (e *endless) Read(p []byte) (int, error) {
	const size = 100 << 20
	n := min(int64(len(p)), size-e.read.Load())
	for i := range p[:n] {
		p[i] = '1'
	}
	e.read.Add(n)
	if n == 0 {
		return 0, io.EOF
	}
	return int(n), nil
}

// TestHuge lets each object be 100 MB and counts how much of it is read.
func TestHuge(t *testing.T) {
	s := newStored(t)
	for key, content := range s.objects {
		e := &endless{Store: s.store, key: key}
		r, err := repo.Open(t.Context(), e, repo.Options{Name: "the-remote"})
		if err == nil {
			_, err = remotetest.Pull(t.Context(), r, remotetest.Ref(t, "app:1"))
		}
		if err == nil && e.read.Load() > 0 {
			t.Errorf("%s has 100 MB, and nobody saw it", key)
		}
		if err != nil && !fault.Is(err, fault.Damaged) && key != "VERSION" {
			t.Errorf("%s: %v", key, err)
		}
		most := int64(64<<10 + 1)
		switch {
		case strings.HasSuffix(key, "/json"):
			most = image.MaxDocument + 1
		case strings.Contains(key, "/layer.tar"):
			most = int64(len(content)) + 9<<20 // what is read ahead
		}
		if read := e.read.Load(); read > most {
			t.Errorf("%s: %d bytes were read of it, want at most %d", key, read, most)
		}
	}
}

// TestStrangeDocuments tags and pulls what is no image for this version.
func TestStrangeDocuments(t *testing.T) {
	for name, doc := range map[string]string{
		"index":             `{"manifests":[{"digest":"sha256:` + strings.Repeat("1", 64) + `","size":1}]}`,
		"manifest":          `{"layers":[],"config":{}}`,
		"mixture":           `{"rootfs":{"type":"layers"},"layers":[]}`,
		"rootfs twice":      `{"rootfs":{"type":"layers"},"rootfs":{"type":"layers","diff_ids":[]}}`,
		"empty":             `{}`,
		"no JSON":           `rootfs`,
		"deep":              `{"rootfs":` + strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20) + `}`,
		"foreign type":      `{"rootfs":{"type":"windows"}}`,
		"1,001 layers":      `{"rootfs":{"type":"layers","diff_ids":["sha256:` + strings.Repeat("0", 63) + `1"` + strings.Repeat(`,"sha256:`+strings.Repeat("0", 63)+`1"`, 1000) + `]}}`,
		"a layer's name":    `{"rootfs":{"type":"layers","diff_ids":["../../etc"]}}`,
		"a layer's name, 2": `{"rootfs":{"type":"layers","diff_ids":["sha512:` + strings.Repeat("0", 128) + `"]}}`,
	} {
		s := mem.New()
		id := image.DigestOf([]byte(doc))
		put(t, s, "images/"+id.Hex()+"/json", []byte(doc))
		put(t, s, "repositories/app/1", []byte(id.Hex()))
		r := open(t, s, codec.LZ4)
		if _, err := remotetest.Pull(t.Context(), r, remotetest.Ref(t, "app:1")); err == nil {
			t.Errorf("%s: it is pulled", name)
		}
		err := r.Tag(t.Context(), remotetest.Ref(t, "app:2"), id)
		if err == nil || !strings.Contains(err.Error(), id.Short()) || errors.As(err, new(*remote.IncompleteError)) {
			t.Errorf("%s: tag: %v, want an error that names it", name, err)
		}
		if got := keys(t, s, "repositories/"); len(got) != 1 {
			t.Errorf("%s: it is tagged: %v", name, got)
		}
	}
}

func mustID(t *testing.T, hex string) image.ID {
	t.Helper()
	id, err := image.ParseHex(hex)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
